"""What a long job has done so far, kept part by part, so that a killed job goes on where it was."""

import contextlib
import hashlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sdnet.experiments import results
from sdnet.files import DAMAGED_ARRAYS

Arrays = dict[str, np.ndarray]


class Parts:
    """Arrays by name, each set computed once.

    Args:
        folder: where parts are kept, in a folder of their own for all that they depend on.
        depends: what every part depends on: settings as text, weights and images as bytes.
    """

    def __init__(self, folder: Path, *depends: str | bytes):
        self._folder = folder / digest(*depends)

    def get(self, name: str, compute: Callable[[], Arrays]) -> Arrays:
        """The part of this name: as it was kept, or computed now. A damaged one is named, and computed again."""
        path = self._folder / f"{digest(name)}.npz"
        if path.exists():
            try:
                with np.load(path, allow_pickle=False) as kept:
                    return dict(kept)
            except DAMAGED_ARRAYS as error:
                print(f"warning: {path} is damaged ({error}); computing it again", file=sys.stderr)
        arrays = compute()
        with contextlib.suppress(FileNotFoundError):  # a process that does the same is done, and has cleared the folder
            results.write_arrays(path, **arrays)
        return arrays

    def clear(self) -> None:
        """Forget all parts, once their results are written."""
        shutil.rmtree(self._folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # another job's parts are there
            self._folder.parent.rmdir()


def file_digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(*values: str | bytes) -> str:
    """A short name of some values."""
    together = hashlib.sha256()
    for value in values:
        together.update(hashlib.sha256(value.encode() if isinstance(value, str) else value).digest())
    return together.hexdigest()[:16]
