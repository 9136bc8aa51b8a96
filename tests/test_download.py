"""Downloads, from real servers on the loopback address and from file:// addresses."""

import errno
import hashlib
import multiprocessing
import re
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from filelock import FileLock, Timeout

from sdnet.commands.data import data
from sdnet.data.download import fetch
from sdnet.experiments.settings.files import read_yaml

CONTENT = np.random.default_rng(0).bytes(3_000_000)  # several blocks of copying
PROJECT = Path(__file__).parents[1]
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `content`; notes what is asked for; can know Range or not, and cut connections after `cut` bytes."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.ranges, self.cut, self.status, self.asked = CONTENT, True, None, None, []
        self.when_asked = lambda: None
        self.url = f"http://127.0.0.1:{self.server_port}/file"

    def handle_error(self, request, client_address):
        pass  # a client that hangs up


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        asked = self.headers["Range"]
        server.asked.append(asked)
        server.when_asked()
        if server.status:
            return self.send_error(server.status)
        start = int(re.fullmatch("bytes=([0-9]+)-", asked)[1]) if asked and server.ranges else 0
        if start and start >= len(server.content):
            return self.send_error(416)
        body = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cut])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "file.bin"


def part_of(path):
    return path.with_name("file.bin.part")


@pytest.mark.parametrize("checksum", [MD5, SHA256, SHA256.upper().replace("SHA256", "sha256")])
def test_a_download_is_the_file_and_leaves_no_part(server, path, checksum):
    assert fetch([server.url], checksum, path) == path
    assert path.read_bytes() == CONTENT
    assert not part_of(path).exists()


def test_a_file_address_works(tmp_path, path):
    (tmp_path / "mirror").write_bytes(CONTENT)
    fetch([(tmp_path / "mirror").as_uri()], SHA256, path)
    assert path.read_bytes() == CONTENT


def test_a_verified_file_is_not_downloaded_again(server, path):
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    fetch([server.url], MD5, path)
    assert server.asked == []


def test_a_file_of_another_checksum_is_replaced_and_named(server, path, caplog):
    path.parent.mkdir()
    path.write_bytes(b"an older version")
    fetch([server.url], MD5, path)
    assert path.read_bytes() == CONTENT
    assert "does not have the checksum" in caplog.text


def test_a_file_of_another_checksum_stays_until_a_right_one_is_there(server, path):
    path.parent.mkdir()
    path.write_bytes(b"an older version")
    server.status = 503
    with pytest.raises(OSError, match="503"):
        fetch([server.url], MD5, path)
    assert path.read_bytes() == b"an older version"


@pytest.mark.parametrize("checksum", ["", "abc", "md5:123", "sha1:" + 40 * "0", SHA256 + "0", "sha256:" + 64 * "g"])
def test_another_form_of_checksum_is_refused(path, checksum):
    with pytest.raises(ValueError, match="expected 'md5:' and 32, or 'sha256:' and 64, hexadecimal digits"):
        fetch(["file:///nowhere"], checksum, path)


def test_a_cut_connection_is_noticed_and_the_next_call_asks_for_the_rest_only(server, path):
    server.cut = 1_000_000
    with pytest.raises(OSError, match="cut off after 1,000,000 of 3,000,000 bytes"):
        fetch([server.url], MD5, path)
    assert not path.exists()
    assert part_of(path).read_bytes() == CONTENT[:1_000_000]
    server.cut = None
    fetch([server.url], MD5, path)
    assert server.asked == [None, "bytes=1000000-"]
    assert path.read_bytes() == CONTENT


def test_the_next_mirror_goes_on_from_where_the_first_was_cut_off(server, path):
    with Server() as cutting:
        cutting.cut = 10
        Thread(target=cutting.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        fetch([cutting.url, server.url], MD5, path)
        cutting.shutdown()
    assert server.asked == ["bytes=10-"]
    assert path.read_bytes() == CONTENT


def test_a_server_without_range_starts_the_file_again(server, path):
    path.parent.mkdir()
    part_of(path).write_bytes(b"x" * 1000)
    server.ranges = False
    fetch([server.url], MD5, path)
    assert path.read_bytes() == CONTENT
    assert server.asked == ["bytes=1000-"]


@pytest.mark.parametrize("stale", [b"x" * 1000, CONTENT + b"x"], ids=["of another file", "too long"])
def test_a_stale_part_does_not_spoil_the_download(server, path, stale):
    path.parent.mkdir()
    part_of(path).write_bytes(stale)
    fetch([server.url], MD5, path)
    assert path.read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(stale)}-", None]


def test_a_part_that_was_complete_is_not_downloaded_again(server, path):
    """Killed between the last byte and the rename: the server has nothing to add (416)."""
    path.parent.mkdir()
    part_of(path).write_bytes(CONTENT)
    fetch([server.url], MD5, path)
    assert path.read_bytes() == CONTENT
    assert server.asked == ["bytes=3000000-"]


def test_a_wrong_file_is_removed_and_the_error_says_address_expected_and_got(server, path):
    server.content = b"another file"
    with pytest.raises(OSError) as error:
        fetch([server.url], MD5, path)
    for part in (server.url, MD5, hashlib.md5(b"another file").hexdigest(), "config/config.yaml"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert not path.exists()
    assert not part_of(path).exists()


def test_mirrors_are_tried_in_order_and_each_failure_is_reported(server, tmp_path, path, caplog):
    wrong = tmp_path / "wrong"
    wrong.write_bytes(b"another file")
    urls = [(tmp_path / "missing").as_uri(), "no address at all", wrong.as_uri()]
    fetch([*urls, server.url], MD5, path)
    assert [url for record in caplog.records for url in urls if url in record.getMessage()] == urls
    assert path.read_bytes() == CONTENT
    path.unlink()
    with pytest.raises(OSError) as error:
        fetch(urls, MD5, path)
    assert all(url in str(error.value) for url in urls)


def test_no_address_is_an_error_of_its_own(path):
    with pytest.raises(OSError, match="no address is given"):
        fetch([], MD5, path)


@pytest.fixture
def unpacked(monkeypatch):
    """The archives that `data` finds, which are not looked into."""
    archives = []
    for unpack in ("cifar.convert", "cifar_c.extract"):
        monkeypatch.setattr(f"sdnet.commands.data.{unpack}", lambda archive, *others: archives.append(archive))
    return archives


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "cifar10-c", "cifar100-c"])
def test_an_archive_placed_by_hand_is_found_under_its_official_name_which_the_error_gives(tmp_path, unpacked, name):
    (url,) = read_yaml(PROJECT / "config/config.yaml")["downloads"][name]["urls"]
    archive = tmp_path / Path(url).name
    with pytest.raises(OSError, match=f"put the official file at {archive} by hand"):
        data(name, ("file:///nowhere",), MD5, tmp_path / name)
    archive.write_bytes(CONTENT)
    data(name, ("file:///nowhere",), MD5, tmp_path / name)
    assert unpacked == [archive]


def test_a_disk_too_full_for_a_single_byte_is_named_as_well(server, path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sdnet.data.download._download", full)
    with pytest.raises(OSError, match=r"is full: free some space and start again; the 0 bytes that arrived"):
        fetch([server.url], MD5, path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_named_and_no_other_mirror_is_tried(server, path):
    path.parent.mkdir()
    part_of(path).symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"the disk that holds .* is full: free some space"):
        fetch([server.url, server.url], MD5, path)
    assert len(server.asked) == 1


def test_the_lock_is_held_during_the_download_and_free_after_it(server, path):
    lock, held = FileLock(f"{path}.lock", timeout=0), []

    def note():
        try:
            with lock:
                held.append(False)
        except Timeout:
            held.append(True)

    server.when_asked = note
    fetch([server.url], MD5, path)
    note()
    assert held == [True, False]


def fetch_together(barrier, *arguments):
    barrier.wait()
    fetch(*arguments)


def test_two_processes_download_once(server, path):
    """The second asks for the file while the first waits for the server."""
    server.when_asked = lambda: time.sleep(1)
    context = multiprocessing.get_context("spawn")
    arguments = (context.Barrier(2, timeout=60), [server.url], MD5, path)
    processes = [context.Process(target=fetch_together, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert server.asked == [None]
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_on_a_terminal_only(server, path, capfd, monkeypatch, terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    fetch([server.url], MD5, path)
    assert ("file.bin" in capfd.readouterr().err) is terminal
