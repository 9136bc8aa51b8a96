"""Checkpoints that are whole or not there: written under another name, checked by a digest when read."""

import hashlib
import io
import pickle
import warnings
from pathlib import Path

import torch

from sdnet.files import whole

HEADER = b"sdnet checkpoint, sha256 of the rest:\n"
KEPT = 2  # the last one, and the one before it in case the last is damaged


class DamagedCheckpoint(ValueError):
    """A checkpoint whose content is not what was written."""


def save_checkpoint(folder: Path, epoch: int, state: dict) -> None:
    """Write the state after `epoch` epochs and remove all but the last two files.

    Killed at any moment, it leaves the new file whole, or the old ones as they were.
    Checkpoints of later epochs stay: they are damaged, or this one would not have been reached again.

    Raises:
        ValueError: if the state holds more than tensors and plain values, which `load_checkpoint` would refuse.
        OSError: if the file cannot be written, a full disk say; the earlier checkpoints are still there.
    """
    path = folder / f"epoch{epoch:04d}.pt"
    buffer = io.BytesIO()
    torch.save(state, buffer)  # written to a file, it would tell of a full disk in words of its own
    buffer.seek(0)
    if unreadable := torch.serialization.get_unsafe_globals_in_checkpoint(buffer):
        raise ValueError(
            f"{path} could not be read back: the state holds {', '.join(unreadable)}; give tensors and plain values, "
            "such as the str of a path"
        )
    content = buffer.getbuffer()
    with whole(path) as file:
        file.write(HEADER + _digest(folder, content).encode() + b"\n")
        file.write(content)
    earlier = [other for other in _by_epoch(folder) if _epoch(other) <= epoch]
    killed_while_writing = folder.glob(".epoch*.pt.*")
    for old in (*earlier[:-KEPT], *killed_while_writing):
        old.unlink(missing_ok=True)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict:
    """Read a checkpoint; tensors and plain values only, so that a file can carry no code.

    Raises:
        DamagedCheckpoint: if the file is cut short or altered, is no checkpoint, or was written in a folder of
            another name: that of another experiment.
    """
    with open(path, "rb") as file:
        header, digest, content = file.readline(), file.readline().strip().decode(errors="replace"), file.read()
    if header != HEADER or _digest(path.parent, content) != digest:
        raise DamagedCheckpoint(
            f"{path} is damaged, or of another experiment than {path.parent.name}: "
            "content and folder do not have the digest it was written with"
        )
    try:
        return torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except pickle.UnpicklingError:
        raise DamagedCheckpoint(f"{path} is no checkpoint: it holds more than tensors and plain values") from None


def latest_checkpoint(folder: Path, device: torch.device | str = "cpu") -> dict | None:
    """The newest checkpoint that is whole, or None; a damaged one is named in a warning and passed over."""
    for path in reversed(_by_epoch(folder)):
        try:
            return load_checkpoint(path, device)
        except DamagedCheckpoint as error:
            warnings.warn(f"{error}; an earlier checkpoint, or else the start, takes its place", stacklevel=2)
    return None


def _by_epoch(folder: Path) -> list[Path]:
    """Without what somebody put beside them, such as epoch0003-copy.pt."""
    return sorted((path for path in folder.glob("epoch*.pt") if path.stem[len("epoch") :].isdecimal()), key=_epoch)


def _epoch(path: Path) -> int:
    return int(path.stem.removeprefix("epoch"))


def _digest(folder: Path, content: memoryview | bytes) -> str:
    digest = hashlib.sha256(folder.name.encode())
    digest.update(content)
    return digest.hexdigest()
