"""Files that are whole or not there, however the writing ends; and what reading a damaged one can raise."""

import contextlib
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

DAMAGED_ARRAYS = (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error)  # what reading an .npz can raise


@contextlib.contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its place at `path` once all of it is on the disk.

    Until then it is `.<name>.<process>` beside it. If writing fails, or the block raises, nothing is left of it and
    what was at `path` stays; a killed process leaves the hidden file, which nothing reads.

    Raises:
        OSError: naming the file, if it cannot be written: a full disk, a read-only folder.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is None or Path(error.filename) == temporary:  # None: a full disk
            error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with whole(path) as file:
        file.write(text.encode())
