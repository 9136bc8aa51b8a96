"""Checkpoints: whole or not there, and never able to run code."""

import errno
import io
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from sdnet.training.checkpoint import DamagedCheckpoint, latest_checkpoint, load_checkpoint, save_checkpoint


def state(epoch):
    generator = torch.Generator().manual_seed(epoch)
    return {
        "model": {"weight": torch.randn(64, 64, generator=generator)},
        "history": [{"epoch": k} for k in range(epoch)],
    }


@pytest.fixture
def folder(tmp_path):
    """Checkpoints of epochs 1, 2 and 3, of which two are kept."""
    for epoch in (1, 2, 3):
        save_checkpoint(tmp_path / "checkpoints", epoch, state(epoch))
    return tmp_path / "checkpoints"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def assert_is(loaded, epoch):
    assert loaded["history"] == state(epoch)["history"]
    assert torch.equal(loaded["model"]["weight"], state(epoch)["model"]["weight"])


def test_what_is_loaded_is_what_was_saved(folder):
    assert_is(load_checkpoint(folder / "epoch0003.pt"), 3)


def test_the_last_two_are_kept_and_the_last_is_used(folder):
    assert names(folder) == ["epoch0002.pt", "epoch0003.pt"]
    assert_is(latest_checkpoint(folder), 3)


def test_no_folder_and_an_empty_folder_hold_no_checkpoint(tmp_path):
    assert latest_checkpoint(tmp_path / "none") is None
    assert latest_checkpoint(tmp_path) is None


def test_a_state_that_could_not_be_read_back_is_refused(folder):
    with pytest.raises(ValueError, match=r"epoch0004.pt could not be read back: the state holds pathlib.*Path; give"):
        save_checkpoint(folder, 4, state(4) | {"trained_by": [(1, {"data": Path("x")})]})
    assert names(folder) == ["epoch0002.pt", "epoch0003.pt"]


def truncated(content):
    return content[: len(content) // 2]


def without_its_end(content):
    return content[:-1]


def with_one_bit_flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def empty(content):
    return b""


def of_zeros(content):
    """What some file systems leave after a power cut."""
    return bytes(len(content))


def foreign(content):
    return b"\x89PNG\r\n\x1a\n" + content


def without_its_header(content):
    """A plain file of torch.save."""
    return content.split(b"\n", 2)[2]


DAMAGES = [truncated, without_its_end, with_one_bit_flipped, empty, of_zeros, foreign, without_its_header]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_last_checkpoint_is_named_and_the_one_before_it_is_used(folder, damage):
    last = folder / "epoch0003.pt"
    last.write_bytes(damage(last.read_bytes()))
    with pytest.raises(DamagedCheckpoint, match=r"epoch0003\.pt"):
        load_checkpoint(last)
    with pytest.warns(UserWarning, match=r"epoch0003\.pt is damaged") as warned:
        assert_is(latest_checkpoint(folder), 2)
    assert len(warned) == 1


def test_with_all_checkpoints_damaged_each_is_named_and_none_is_used(folder):
    for path in folder.iterdir():
        path.write_bytes(truncated(path.read_bytes()))
    with pytest.warns(UserWarning, match="or else the start") as warned:
        assert latest_checkpoint(folder) is None
    assert ["epoch0003.pt" in str(warned[0].message), "epoch0002.pt" in str(warned[1].message)] == [True, True]


class Malicious:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize("disguised", [False, True])
def test_a_pickle_that_would_run_code_is_never_executed(folder, tmp_path, disguised, monkeypatch):
    trace = tmp_path / "executed"
    payload = io.BytesIO()
    torch.save({"model": Malicious(trace)}, payload)
    if disguised:  # with the right header and digest, as an attacker would
        monkeypatch.setattr(torch.serialization, "get_unsafe_globals_in_checkpoint", lambda file: [])
        save_checkpoint(folder, 4, {"model": Malicious(trace)})
    else:
        (folder / "epoch0004.pt").write_bytes(payload.getvalue())
    with pytest.warns(UserWarning, match=r"epoch0004\.pt"):
        assert_is(latest_checkpoint(folder), 3)
    assert not trace.exists()
    torch.load(io.BytesIO(payload.getvalue()), weights_only=False)
    assert trace.exists(), "the file must be able to do harm, or the test shows nothing"


def test_the_ten_thousandth_epoch_comes_after_the_one_before(folder):
    for epoch in (9_998, 9_999, 10_000, 10_001):
        save_checkpoint(folder, epoch, state(epoch))
    assert names(folder) == ["epoch10000.pt", "epoch10001.pt"]
    assert_is(latest_checkpoint(folder), 10_001)


def test_a_copy_that_somebody_keeps_beside_the_checkpoints_is_none_of_them(folder):
    shutil.copy(folder / "epoch0002.pt", folder / "epoch0002-copy.pt")
    save_checkpoint(folder, 4, state(4))
    assert names(folder) == ["epoch0002-copy.pt", "epoch0003.pt", "epoch0004.pt"]
    assert_is(latest_checkpoint(folder), 4)


def test_saving_again_after_damage_leaves_two_good_ones(folder):
    for path in folder.iterdir():
        path.write_bytes(truncated(path.read_bytes()))
    save_checkpoint(folder, 3, state(3))
    save_checkpoint(folder, 4, state(4))
    assert names(folder) == ["epoch0003.pt", "epoch0004.pt"]
    assert_is(load_checkpoint(folder / "epoch0003.pt"), 3)
    assert_is(latest_checkpoint(folder), 4)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_checkpoints_and_nothing_else(folder, monkeypatch, failing):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk:
        disk.setattr(os, failing, full)
        with pytest.raises(OSError, match="No space left"):
            save_checkpoint(folder, 4, state(4))
    assert names(folder) == ["epoch0002.pt", "epoch0003.pt"]
    assert_is(latest_checkpoint(folder), 3)
    save_checkpoint(folder, 4, state(4))
    assert_is(latest_checkpoint(folder), 4)


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a file system is not allowed here")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_on_a_disk_that_is_really_full_the_old_checkpoints_stay(tiny_disk):
    for epoch in (1, 2, 3):  # 17 KiB each: the disk has room for three
        save_checkpoint(tiny_disk, epoch, state(epoch))
    (tiny_disk / "ballast").write_bytes(bytes(20_000))
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tiny_disk, 4, state(4))
    assert names(tiny_disk) == ["ballast", "epoch0002.pt", "epoch0003.pt"]
    assert_is(latest_checkpoint(tiny_disk), 3)


def test_a_checkpoint_of_another_experiment_is_named_and_not_used(folder):
    """Its folder has the name of the experiment."""
    other = folder.with_name("another")
    save_checkpoint(other, 4, state(4))
    shutil.copy(other / "epoch0004.pt", folder)
    with pytest.warns(UserWarning, match=r"epoch0004\.pt is damaged, or of another experiment than checkpoints"):
        assert_is(latest_checkpoint(folder), 3)


def test_a_start_over_damaged_checkpoints_keeps_what_it_saves(folder):
    """Those of later epochs stand in its way for a while."""
    for path in folder.iterdir():
        path.write_bytes(truncated(path.read_bytes()))
    save_checkpoint(folder, 1, state(1))
    with pytest.warns(UserWarning, match="damaged"):
        assert_is(latest_checkpoint(folder), 1)


def test_what_a_process_killed_while_writing_left_is_cleared_away(folder):
    (folder / ".epoch0004.pt.4711").write_bytes(b"half of a checkpoint")
    assert_is(latest_checkpoint(folder), 3)
    save_checkpoint(folder, 4, state(4))
    assert names(folder) == ["epoch0003.pt", "epoch0004.pt"]


def test_a_checkpoint_that_may_not_be_read_is_not_taken_for_a_damaged_one(folder):
    """Training on from an older one would then overwrite a good one."""
    (folder / "epoch0003.pt").unlink()
    (folder / "epoch0003.pt").mkdir()  # unreadable also for root
    with pytest.raises(IsADirectoryError):
        latest_checkpoint(folder)
