"""GPU leases: parallel jobs on one machine get distinct devices. Snakemake only counts them."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

POLL_SECONDS = 0.5
LOCKS = Path(tempfile.gettempdir()) / f"sdnet-gpu-{socket.gethostname()}"


def installed() -> list[int]:
    """Indices of this machine's NVIDIA devices; empty without a driver."""
    try:
        query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        listed = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [int(line) for line in listed.split()]


def visible() -> list[int]:
    """The installed devices that CUDA_VISIBLE_DEVICES, where it is set, leaves to this process."""
    outer = os.environ.get("CUDA_VISIBLE_DEVICES")
    if outer is None:
        return installed()
    return [int(index) for index in outer.split(",") if index.strip().isdigit()]


@contextlib.contextmanager
def lease(count: int, *, available: Sequence[int] | None = None) -> Iterator[tuple[int, ...]]:
    """Hold `count` devices that no other lease on this machine holds; wait for them if need be.

    Each device has a lock file, held by this process: the kernel frees it the instant the process
    ends, however it ends. Waiting is first come, first served, so that a job of several devices is
    not passed over for ever. Inside, CUDA_VISIBLE_DEVICES names the devices: enter before the first
    use of CUDA. A scheduler's own assignment (Slurm) is taken as it is.

    Args:
        count: how many devices; 0 for the CPU.
        available: indices to choose from; by default those visible to this process.

    Yields:
        the indices; fewer than `count` if there are fewer, empty on a machine without a GPU.

    Raises:
        ValueError: if count is negative.
    """
    if count < 0:
        raise ValueError(f"lease: count is {count}; it must be 0 (the CPU) or more")
    pool = visible() if available is None else list(available)
    if available is None and "SLURM_JOB_ID" in os.environ:
        yield tuple(pool)
        return
    with contextlib.ExitStack() as locks:
        held = _acquire(min(count, len(pool)), pool, locks)
        previous = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # the order of nvidia-smi
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, held))
        try:
            yield held
        finally:
            if previous is None:
                del os.environ["CUDA_VISIBLE_DEVICES"]
            else:
                os.environ["CUDA_VISIBLE_DEVICES"] = previous


def _acquire(count: int, pool: list[int], locks: contextlib.ExitStack) -> tuple[int, ...]:
    if count == 0:
        return ()
    LOCKS.mkdir(parents=True, exist_ok=True)
    held: list[int] = []
    told = False
    # Whoever holds the gate collects devices as they come free; the others queue behind it.
    with FileLock(LOCKS / "gate"):
        while True:
            for device in pool:
                if device not in held and len(held) < count:
                    with contextlib.suppress(Timeout):
                        locks.enter_context(FileLock(LOCKS / str(device)).acquire(blocking=False))
                        held.append(device)
            if len(held) == count:
                return tuple(sorted(held))
            if not told:
                print(f"waiting for {count - len(held)} of {count} GPUs, all {len(pool)} busy", file=sys.stderr)
                told = True
            time.sleep(POLL_SECONDS)
