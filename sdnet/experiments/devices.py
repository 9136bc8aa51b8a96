"""GPU leases: parallel jobs on one machine get distinct devices. Snakemake only counts them."""

import contextlib
import fcntl
import functools
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from sdnet.experiments.settings.files import site_setting

POLL_SECONDS = 0.5
# Not in TMPDIR, which may differ from user to user. The tests have folders of their own.
LOCKS = Path(os.environ.get("SDNET_GPU_LOCKS", "/tmp/sdnet-gpu"))
DRIVER = Path("/dev/nvidia0")  # there where a driver has found a device

Device = int | str  # the index of nvidia-smi; the UUID of a part of a device (MIG), which has none


@functools.cache
def installed() -> dict[str, int]:
    """The UUID and index of each of this machine's NVIDIA devices; empty without a driver.

    Raises:
        OSError: if there are some, but nvidia-smi fails or does not answer; a job would go to the CPU, unnoticed.
    """
    try:
        query = ["nvidia-smi", "--query-gpu=uuid,index", "--format=csv,noheader"]
        listed = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        if DRIVER.exists() or isinstance(error, subprocess.TimeoutExpired):
            raise OSError(
                f"nvidia-smi does not say which GPUs there are ({error}): mend that and type the same command, or set "
                "CUDA_VISIBLE_DEVICES to their numbers, or to nothing for the CPU"
            ) from None
        return {}
    return {uuid: int(index) for uuid, index in (line.split(",") for line in listed.splitlines())}


def visible() -> list[Device]:
    """The installed devices that CUDA_VISIBLE_DEVICES, where it is set, leaves to this process.

    As for CUDA, the list ends at the first name that is none of a device.
    """
    outer = os.environ.get("CUDA_VISIBLE_DEVICES")
    if outer is None:
        return list(installed().values())
    index = installed() if "GPU-" in outer else {}

    def device(name: str) -> Device | None:
        if name.startswith("GPU-") and index:  # without nvidia-smi, CUDA may know it
            return next((i for uuid, i in index.items() if uuid.startswith(name)), None)
        return int(name) if name.isdigit() else name if name.startswith(("GPU-", "MIG-")) else None

    named = (device(name.strip()) for name in outer.split(","))
    return list(dict.fromkeys(itertools.takewhile(lambda one: one is not None, named)))


@contextlib.contextmanager
def lease(
    count: int, *, alone: bool = False, available: Sequence[Device] | None = None
) -> Iterator[tuple[Device, ...]]:
    """Hold `count` devices that no other lease on this machine holds; wait for them if need be.

    Each device has a lock file, held by this process: the kernel frees it the instant the process
    ends, however it ends. Jobs choose one after another, so that a job of several devices is not
    passed over for ever by smaller ones. Inside, CUDA_VISIBLE_DEVICES names the devices: enter
    before the first use of CUDA. What a scheduler (Slurm) has assigned to a job is shared out in the
    same way among the job's processes.

    A site may let several jobs share a device (`jobs_per_gpu`): then it has as many places, each with a
    lock file, and the devices with most of them free are taken first.

    Args:
        count: how many devices; 0 for the CPU.
        alone: all places of each, for a job that measures.
        available: devices to choose from; by default those visible to this process.

    Yields:
        the indices; fewer than `count` if there are fewer, empty on a machine without a GPU.

    Raises:
        ValueError: if count is negative, or `jobs_per_gpu` is no number of 1 or more.
        OSError: as `installed`.
    """
    if count < 0:
        raise ValueError(f"lease: count is {count}; it must be 0 (the CPU) or more")
    pool = visible() if available is None else list(available)
    with contextlib.ExitStack() as locks:
        held = _acquire(min(count, len(pool)), pool, alone, locks)
        new = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, held))}
        previous = {name: os.environ.get(name) for name in new}
        os.environ.update(new)
        try:
            yield held
        finally:
            for name, value in previous.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def _acquire(count: int, pool: list[Device], alone: bool, locks: contextlib.ExitStack) -> tuple[Device, ...]:
    if count == 0:
        return ()
    locks.enter_context(_locks_kept())
    files, places = _lock_names(pool), _places_of_each()
    wanted = places if alone else 1
    told = False

    def taken(device: Device) -> int:
        """How many of its places other jobs hold."""
        with contextlib.ExitStack() as tried:
            return sum(not _try(_place(files[device], place), tried) for place in range(places))

    while True:
        with contextlib.ExitStack() as turn:
            # Whoever holds the gates of its devices collects places as they come free; others queue behind it. All take
            # gates in the same order, so that no two wait for each other.
            queued = False
            for gate in (_lock(f"gate-{name}") for name in sorted(files.values())):
                if not _try(gate, turn, timeout=POLL_SECONDS):
                    if not (told or queued):
                        _say(f"waiting for {count} of {len(pool)} GPUs, behind another job that waits for some")
                    queued = True
                    turn.enter_context(gate)
            mine: dict[Device, set[int]] = {device: set() for device in pool}
            stacks = {device: turn.enter_context(contextlib.ExitStack()) for device in pool}
            while True:
                for device, place in itertools.product(sorted(pool, key=taken), range(places)):
                    open_to_it = len(mine[device]) < wanted and place not in mine[device]
                    if open_to_it and _try(_place(files[device], place), stacks[device]):
                        mine[device].add(place)
                    held = tuple(device for device in pool if len(mine[device]) == wanted)
                    if len(held) == count:
                        for device in held:
                            locks.push(stacks[device].pop_all())
                        return held
                if not told:
                    used = f"{len(pool) - len(held)} of {len(pool)} in use"
                    _say(f"waiting for {count - len(held)} of {count} GPUs; {used}")
                    told = True
                if count * wanted == 1:  # it has nothing to keep, and others may want other devices
                    break
                time.sleep(POLL_SECONDS)
        time.sleep(POLL_SECONDS)


def _places_of_each() -> int:
    """How many jobs may share a device."""
    given = site_setting("jobs_per_gpu")
    if not (given.isdecimal() and int(given) > 0):
        raise ValueError(f"jobs_per_gpu is {given}; it must be a whole number, 1 or more: see config/config.yaml")
    return int(given)


@contextlib.contextmanager
def _locks_kept() -> Iterator[None]:
    """One folder for the machine, of all its users; what clears /tmp of old files passes over it while it is locked."""
    LOCKS.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(PermissionError):  # it is another user's, who has opened it
        LOCKS.chmod(0o777)
    descriptor = os.open(LOCKS, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def _lock_names(pool: Sequence[Device]) -> dict[Device, str]:
    """UUIDs: what hides devices from a job (Slurm, a container) may number from 0 those that it leaves."""
    try:
        uuids = {index: uuid for uuid, index in installed().items()}
    except OSError:  # and the devices were named by hand
        uuids = {}
    return {device: uuids.get(device, str(device)) for device in pool}


def _place(name: str, place: int) -> FileLock:
    return _lock(f"{name}.{place}")


def _lock(name: str) -> FileLock:
    return FileLock(LOCKS / name, mode=0o666)


def _try(lock: FileLock, held: contextlib.ExitStack, timeout: float = 0) -> bool:
    try:
        held.enter_context(lock.acquire(timeout=timeout))
    except Timeout:
        return False
    return True


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
