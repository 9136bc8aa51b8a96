"""What every measurement of a trained run holds: a device, and that its weights stay the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from sdnet.commands.parts import file_digest
from sdnet.experiments.devices import lease
from sdnet.runs.device import choose_device


@contextmanager
def measuring(folder: Path, gpus: int) -> Iterator[torch.device]:
    """Lease a device; of weights that were replaced meanwhile, nothing shall be written.

    Args:
        folder: the run's.
        gpus: devices to hold.

    Raises:
        ValueError: at the end, if they were.
    """
    path = folder / "model.pt"
    with lease(gpus) as devices:
        before = file_digest(path) if path.exists() else None  # what loads it says what to do
        yield choose_device(devices)
        if not path.exists() or file_digest(path) != before:
            raise ValueError(
                f"{path} was replaced meanwhile, as by a training; nothing was written: run the command again"
            )
