"""Files that are whole or not there."""

import errno
import os
import signal
from pathlib import Path

import pytest

from sdnet.files import whole


@pytest.fixture
def path(tmp_path):
    """A file that is there already."""
    path = tmp_path / "result.csv"
    path.write_bytes(b"old")
    return path


def write(path, content):
    with whole(path) as file:
        file.write(content)


def assert_untouched(path):
    assert path.read_bytes() == b"old"
    assert [other.name for other in path.parent.iterdir()] == [path.name]


def test_a_file_takes_its_place_when_it_is_complete(path):
    with whole(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert [other.name for other in path.parent.iterdir()] == [path.name]


def test_its_folder_is_made(tmp_path):
    write(tmp_path / "a" / "b" / "result.csv", b"new")
    assert (tmp_path / "a" / "b" / "result.csv").read_bytes() == b"new"


def test_an_error_in_between_leaves_the_old_file_and_nothing_else(path):
    with pytest.raises(TypeError), whole(path) as file:
        file.writelines([b"new", "text"])
    assert_untouched(path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("size", [1, 10_000_000], ids=["small", "large"])
def test_a_full_disk_is_reported_with_the_file_and_leaves_the_old_one(path, size):
    path.with_name(f".{path.name}.{os.getpid()}").symlink_to("/dev/full")
    with pytest.raises(OSError) as full:
        write(path, bytes(size))
    assert full.value.errno == errno.ENOSPC
    assert str(path) in str(full.value)
    assert_untouched(path)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_disk_that_fails_at_the_last_moment_leaves_the_old_file(path, monkeypatch, failing):
    def fail(*args):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match=r"Input/output error: .*result\.csv"):
        write(path, b"new")
    assert_untouched(path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a process to kill")
def test_a_process_killed_while_writing_leaves_the_old_file(path):
    child = os.fork()
    if child == 0:
        with whole(path) as file:
            file.write(b"new")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert path.read_bytes() == b"old"
    (left,) = set(path.parent.iterdir()) - {path}
    assert left.name == f".result.csv.{child}"
    write(path, b"newer")
    assert path.read_bytes() == b"newer"
