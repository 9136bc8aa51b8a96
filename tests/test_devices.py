"""GPU leases between real processes, on devices that are only counted."""

import contextlib
import fcntl
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from filelock import Timeout

from sdnet.experiments import devices
from sdnet.experiments.devices import lease

# Leases, prints its devices, and holds them until its input is closed or it kills itself. That nobody else holds
# them is checked by locks of the test's own, which the kernel frees too when a process is killed.
HOLDER = """
import fcntl, os, signal, sys, time
from sdnet.experiments import devices
devices.POLL_SECONDS = 0.05
count, available, checks, end = int(sys.argv[1]), eval(sys.argv[2]), sys.argv[3], sys.argv[4]

def claim(file):
    for _ in range(20):  # a killed process may lose the lease's lock a moment before the test's
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.01)
    sys.exit("two processes on one device")

with devices.lease(count, available=available, alone=end == "alone") as held:
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ",".join(map(str, held))
    files = [open(f"{checks}/{device}", "w") for device in held]
    for file in files:
        claim(file)
    if end == "forked":
        reader, writer = os.pipe()
        if os.fork() == 0:
            for file in files:
                file.close()
            os.closerange(0, 3)
            os.write(writer, b"1")  # it runs, and has let go of what it was born with
            time.sleep(5)
            os._exit(0)
        os.read(reader, 1)
    print(*held, flush=True)
    if end in ("input", "forked", "alone"):
        sys.stdin.read()
    else:
        time.sleep(float(end.removeprefix("killed after ")))
        if end.startswith("killed"):
            os.kill(os.getpid(), signal.SIGKILL)
    for file in files:
        file.close()
"""


@pytest.fixture(autouse=True)
def quiet_machine(tmp_path, monkeypatch):
    """No real device, no scheduler, and lock files of this test alone."""
    monkeypatch.setenv("SDNET_GPU_LOCKS", str(tmp_path / devices.LOCKS.name))
    monkeypatch.setattr(devices, "LOCKS", tmp_path / devices.LOCKS.name)
    monkeypatch.setattr(devices, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(devices, "DRIVER", tmp_path / "nvidia0")
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "checks").mkdir()
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    install(tmp_path, "exit 9")


def install(tmp_path, script):
    """A stand-in for nvidia-smi."""
    devices.installed.cache_clear()
    path = tmp_path / "bin" / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def start(tmp_path):
    """Starts holders, and ends those that are left."""
    started = []

    def start(count, available="range(4)", end="input"):
        command = [sys.executable, "-c", HOLDER, str(count), available, str(tmp_path / "checks"), end]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def held(process):
    """Its devices, once it has them."""
    return [int(device) for device in process.stdout.readline().split()]


def finish(process):
    _, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")


def test_twenty_jobs_on_four_devices_and_random_kills_never_two_on_one_and_none_left_behind(start, capsys):
    chance = random.Random(0)
    counts = [1, 1, 2, 4, 1, 3, 1, 2, 1, 4, 1, 1, 2, 1, 3, 1, 1, 4, 1, 2]
    ends = [("killed after " if i % 3 == 0 else "") + f"{chance.uniform(0.1, 0.4):.2f}" for i in range(20)]
    processes = [start(count, end=end) for count, end in zip(counts, ends, strict=True)]
    victims = chance.sample(range(20), 4)  # killed from outside, holding, waiting or still starting
    for victim in victims:
        time.sleep(chance.uniform(0.1, 0.6))
        processes[victim].kill()
    for i, (process, count, end) in enumerate(zip(processes, counts, ends, strict=True)):
        output, errors = process.communicate()
        assert "two processes" not in errors
        if i in victims:
            continue
        assert process.returncode == (-9 if end.startswith("killed") else 0), errors
        own = [int(device) for device in output.split()]
        assert len(set(own)) == count, "all that it asked for"
        assert set(own) <= set(range(4))
    with lease(4, available=range(4)) as own:
        assert own == (0, 1, 2, 3)
    assert capsys.readouterr().err == "", "nobody was left to wait for"


def test_parallel_jobs_get_distinct_devices(start):
    processes = [start(1) for _ in range(4)]
    assert sorted(device for process in processes for device in held(process)) == [0, 1, 2, 3]


def test_a_killed_job_frees_its_devices_at_once(start, capsys):
    process = start(2, "[5, 6]")
    assert held(process) == [5, 6]
    process.kill()
    process.wait()
    with lease(2, available=[5, 6]) as own:
        assert own == (5, 6)
    assert capsys.readouterr().err == "", "there was nothing to wait for"


def test_a_child_that_outlives_its_killed_job_holds_no_device(start, capsys):
    """As a worker of a data loader does for some seconds: it was forked, and does not use the device."""
    process = start(1, end="forked")
    assert held(process) == [0]
    process.kill()
    process.wait()
    with lease(4, available=range(4)) as own:
        assert own == (0, 1, 2, 3)
    assert capsys.readouterr().err == "", "there was nothing to wait for"


def test_a_wide_job_is_not_passed_over_by_small_ones_and_all_who_wait_say_so(start):
    first = start(1)
    assert held(first) == [0]
    wide = start(4)
    assert wide.stderr.readline() == "waiting for 1 of 4 GPUs; 1 of 4 in use\n"
    small = [start(1) for _ in range(3)]
    for process in small:
        assert process.stderr.readline() == "waiting for 1 of 4 GPUs, behind another job that waits for some\n"
    finish(first)
    assert held(wide) == [0, 1, 2, 3], "though three small jobs asked while it waited"
    finish(wide)
    assert len({device for process in small for device in held(process)}) == 3


def test_a_wide_job_that_waits_keeps_nobody_from_devices_that_it_cannot_have(start):
    first = start(1, "[0]")
    assert held(first) == [0]
    wide = start(2, "[0, 1]")
    assert wide.stderr.readline() == "waiting for 1 of 2 GPUs; 1 of 2 in use\n"
    assert held(start(1, "[2]")) == [2]
    finish(first)
    assert held(wide) == [0, 1]


def test_a_job_that_waits_for_one_device_does_not_keep_others_from_another(start):
    """As two workflows of one machine do, each with devices of its own in CUDA_VISIBLE_DEVICES."""
    first = start(1, "[0]")
    assert held(first) == [0]
    waiting = start(1, "[0]")
    assert waiting.stderr.readline() == "waiting for 1 of 1 GPUs; 1 of 1 in use\n"
    assert held(start(1, "[1]")) == [1]
    finish(first)
    assert held(waiting) == [0]


def test_a_waiting_job_that_is_killed_blocks_nobody(start):
    first = start(1)
    assert held(first) == [0]
    wide = start(4)
    wide.stderr.readline()
    wide.kill()
    wide.wait()
    assert held(start(3)) == [1, 2, 3], "what the killed job had gathered is free again"


def test_where_jobs_share_devices_each_takes_the_emptiest_and_no_more_than_fit(start, monkeypatch, capsys):
    monkeypatch.setenv("SDNET_JOBS_PER_GPU", "2")
    with ExitStack() as jobs:
        own = [jobs.enter_context(lease(1, available=[0, 1])) for _ in range(3)]
        assert own == [(0,), (1,), (0,)]
        with lease(2, available=[0, 1, 2]) as wide:
            assert wide == (1, 2), "the emptiest, and not two places of one"
            fifth = start(1, "[0, 1]")
            assert fifth.stderr.readline() == "waiting for 1 of 1 GPUs; 2 of 2 in use\n"
        assert held(fifth) == [1]
    finish(fifth)
    assert capsys.readouterr().err == ""


def test_of_shared_devices_one_that_is_idle_by_now_is_taken_first(monkeypatch):
    monkeypatch.setenv("SDNET_JOBS_PER_GPU", "2")
    with ExitStack() as ended:
        ended.enter_context(lease(1, available=[0, 1]))
        ended.enter_context(lease(1, available=[0, 1]))
        third = lease(1, available=[0, 1])
        assert third.__enter__() == (0,)
    with lease(1, available=[0, 1]) as own:
        assert own == (1,)
    third.__exit__(None, None, None)


def test_leases_hold_whatever_the_folder_of_temporary_files_is(monkeypatch):
    """Which may be another for each user, or each login."""
    code = "from sdnet.experiments import devices; print(devices.LOCKS)"
    monkeypatch.delenv("SDNET_GPU_LOCKS")
    found = set()
    for folder in ("/tmp", "/var/tmp"):
        options = {"env": os.environ | {"TMPDIR": folder}, "capture_output": True, "text": True, "check": True}
        found.add(subprocess.run([sys.executable, "-c", code], **options).stdout)
    assert len(found) == 1


def test_a_command_by_hand_shares_devices_as_the_settings_say(monkeypatch, tmp_path):
    monkeypatch.delenv("SDNET_JOBS_PER_GPU", raising=False)
    monkeypatch.chdir(tmp_path)
    with lease(1, available=[0]) as first:
        assert first == (0,)
        Path("config").mkdir()
        Path("config/config.yaml").write_text("jobs_per_gpu: 2\n")
        with lease(1, available=[0]) as second:
            assert second == (0,)


def test_a_job_that_measures_shares_with_nobody_and_leaves_what_it_cannot_use(monkeypatch, start):
    monkeypatch.setenv("SDNET_JOBS_PER_GPU", "3")
    with lease(1, available=[0, 1]) as other, lease(1, alone=True, available=[0, 1]) as own:
        assert (other, own) == ((0,), (1,))
        assert held(start(1, "[0, 1]")) == [0], "what it tried on the other device is free again"
        with lease(1, available=[0, 1]) as third:
            assert third == (0,)
            assert start(1, "[0, 1]").stderr.readline() == "waiting for 1 of 1 GPUs; 2 of 2 in use\n"


def test_inside_the_variables_name_the_devices_and_outside_they_are_as_before(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    with lease(1) as own:
        assert own == (3,)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
        assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3,1"
    assert "CUDA_DEVICE_ORDER" not in os.environ
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with pytest.raises(KeyError), lease(1, available=range(4)):
        raise KeyError
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_the_outer_variable_limits_the_choice(start, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    processes = [start(1, "None") for _ in range(2)]
    assert sorted(device for process in processes for device in held(process)) == [2, 3]


@pytest.mark.parametrize(
    ("outer", "expected"),
    [
        (None, [0, 1]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1", [1]),
        (" 1 , 0 ", [1, 0]),
        ("GPU-bbb", [1]),
        ("GPU-bbbb-1,GPU-aaaa-0", [1, 0]),
        ("MIG-cccc", ["MIG-cccc"]),
        ("1,GPU-bbb,1", [1]),
        ("0,-1,1", [0]),
        ("0,GPU-dddd,1", [0]),
    ],
)
def test_what_is_visible(tmp_path, monkeypatch, outer, expected):
    install(tmp_path, 'printf "GPU-aaaa-0, 0\\nGPU-bbbb-1, 1\\n"')
    if outer is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", outer)
    assert devices.visible() == expected


def test_a_machine_without_a_driver_has_no_device(tmp_path, monkeypatch):
    assert devices.visible() == [], "nvidia-smi fails"
    with monkeypatch.context() as outer:
        outer.setenv("CUDA_VISIBLE_DEVICES", "GPU-aaaa,GPU-bbbb")
        assert devices.visible() == ["GPU-aaaa", "GPU-bbbb"], "which CUDA may know"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert devices.visible() == [], "there is none"
    with lease(1) as own:
        assert own == ()


@pytest.mark.parametrize("failure", ["exit 9", "sleep 60"])
def test_gpus_that_nvidia_smi_does_not_tell_of_are_not_left_for_the_cpu_unnoticed(tmp_path, monkeypatch, failure):
    install(tmp_path, f"exec {failure}" if "sleep" in failure else failure)
    run = subprocess.run
    monkeypatch.setattr(devices.subprocess, "run", lambda *given, **options: run(*given, **options | {"timeout": 2}))
    if failure == "exit 9":
        devices.DRIVER.touch()
    with pytest.raises(OSError, match=r"^nvidia-smi does not say which GPUs there are \(.*\): mend that"), lease(1):
        pass
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with lease(1) as own:
        assert own == (1,)


def test_what_clears_old_files_leaves_those_of_a_lease():
    """As systemd-tmpfiles tells: it locks a folder before it clears it."""
    with lease(1, available=[0]), open_folder(devices.LOCKS) as folder, pytest.raises(BlockingIOError):
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with open_folder(devices.LOCKS) as folder:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def open_folder(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def test_fewer_devices_than_asked_for_are_all_given():
    with lease(8, available=range(2)) as own:
        assert own == (0, 1)


def test_a_job_for_the_cpu_takes_none_and_sees_none():
    with lease(0, available=range(4)) as own:
        assert own == ()
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize("given", ["0", "-1", "two", "1.5"])
def test_a_number_of_jobs_that_is_none_is_refused(monkeypatch, given):
    monkeypatch.setenv("SDNET_JOBS_PER_GPU", given)
    with pytest.raises(ValueError, match=f"^jobs_per_gpu is {given}; it must be a whole number, 1 or more"):
        lease(1, available=[0]).__enter__()


def test_a_number_of_jobs_that_is_none_is_refused_by_hand_too(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("config").mkdir()
    Path("config/config.yaml").write_text("jobs_per_gpu: 0\n")
    with pytest.raises(ValueError, match=r"^jobs_per_gpu is 0; it must be"):
        lease(1, available=[0]).__enter__()


def test_a_negative_count_is_refused():
    with pytest.raises(ValueError, match="count is -1; it must be 0"), lease(-1):
        pass


@pytest.mark.parametrize("variable", ["0,1", None])
def test_devices_that_slurm_or_a_container_numbers_from_0_are_told_apart(tmp_path, monkeypatch, variable):
    if variable:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    install(tmp_path, 'printf "GPU-a, 0\nGPU-b, 1\n"')
    for asked, given in {2: (0, 1), 4: (0, 1), 1: (0,), 0: ()}.items():
        with lease(asked) as own:
            assert own == given
            assert os.environ["CUDA_VISIBLE_DEVICES"] == ",".join(map(str, own))
    with lease(1) as first:
        install(tmp_path, 'printf "GPU-c, 0\nGPU-d, 1\n"')
        with lease(2, available=[0, 1]) as of_another_job:
            assert first + of_another_job == (0, 0, 1)
        install(tmp_path, 'printf "GPU-b, 0\nGPU-a, 1\n"')
        with lease(1, available=[0, 1]) as of_one_that_sees_the_same:
            assert of_one_that_sees_the_same == (0,), "the second of the first job's"


def test_jobs_inside_one_slurm_allocation_share_it_out(start, monkeypatch):
    """As with `salloc --gpus 2` and Snakemake in its shell, whichever step or task each job is."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    processes = [start(1, "None") for _ in range(2)]
    assert sorted(device for process in processes for device in held(process)) == [0, 1]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can act as another user")
def test_the_users_of_a_machine_share_its_devices():
    code = (
        "import os\n"
        "from sdnet.experiments.devices import lease\n"
        "for user in (65533, 65534):\n"
        "    os.seteuid(0); os.seteuid(user); os.umask(0o077)\n"
        "    with lease(2, available=range(2)) as held: print(user, *held)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        # Not in the project: the other users may not read the Python that reads its settings.
        options = {"env": os.environ | {"SDNET_GPU_LOCKS": f"{folder}/locks"}, "cwd": folder}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, **options)
    assert (done.stdout, done.stderr) == ("65533 0 1\n65534 0 1\n", "")


def test_a_job_that_measures_keeps_what_it_has_of_a_shared_device_and_lets_nobody_pass(monkeypatch, start):
    monkeypatch.setenv("SDNET_JOBS_PER_GPU", "2")
    with lease(1, available=[0]), lease(1, available=[0]):
        measuring = start(1, "[0]", end="alone")
        assert measuring.stderr.readline() == "waiting for 1 of 1 GPUs; 1 of 1 in use\n"
        with pytest.raises(Timeout):
            devices._lock("gate-0").acquire(timeout=1)
    assert held(measuring) == [0]


def test_gates_are_taken_in_one_order_whatever_the_order_of_the_devices(monkeypatch):
    """Or two jobs would wait for each other, for ever."""
    taken, lock = [], devices._lock
    monkeypatch.setattr(devices, "_lock", lambda name: (taken.append(name), lock(name))[1])
    for pool in ([0, 1], [1, 0]):
        with lease(2, available=pool):
            pass
    assert [name for name in taken if name.startswith("gate-")] == ["gate-0", "gate-1"] * 2
