"""Checkpoints that are whole or not there: written under another name, checked by a digest when read."""

import hashlib
import io
import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import torch

HEADER = b"sdnet checkpoint, sha256 of the rest:\n"
KEPT = 2  # the last one, and the one before it in case the last is damaged


class DamagedCheckpoint(ValueError):
    """A checkpoint whose content is not what was written."""


def save_checkpoint(folder: Path, epoch: int, state: dict) -> Path:
    """Write the state after `epoch` epochs and remove all but the last two; the file, or the old ones, survive a kill.

    Raises:
        OSError: if the file cannot be written, a full disk say; the earlier checkpoints are still there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"epoch{epoch:04d}.pt"
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    write_atomically(path, HEADER + hashlib.sha256(content).hexdigest().encode() + b"\n", content)
    killed_while_writing = folder.glob(".epoch*.pt.*")
    for old in (*sorted(folder.glob("epoch*.pt"))[:-KEPT], *killed_while_writing):
        old.unlink()
    return path


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict:
    """Read a checkpoint; tensors and plain values only, so that a file can carry no code.

    Raises:
        DamagedCheckpoint: if the file is cut short or altered, or is no checkpoint.
    """
    with open(path, "rb") as file:
        header, digest, content = (
            file.readline(),
            file.readline().strip().decode(errors="replace"),
            file.read(),
        )
    if header != HEADER or hashlib.sha256(content).hexdigest() != digest:
        raise DamagedCheckpoint(f"{path} is damaged: its content does not have the digest it was written with")
    try:
        return torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except pickle.UnpicklingError:
        raise DamagedCheckpoint(f"{path} is no checkpoint: it holds more than tensors and plain values") from None


def latest_checkpoint(folder: Path, device: torch.device | str = "cpu") -> dict | None:
    """The newest checkpoint that is whole, or None; a damaged one is named in a warning and passed over."""
    for path in sorted(folder.glob("epoch*.pt"), reverse=True):
        try:
            return load_checkpoint(path, device)
        except DamagedCheckpoint as error:
            warnings.warn(f"{error}; an earlier checkpoint, or else the start, takes its place", stacklevel=2)
    return None


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write NumPy arrays to a compressed .npz, whole or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(path, buffer.getbuffer())


def write_atomically(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file under a temporary name, flush it to the disk, and rename it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
