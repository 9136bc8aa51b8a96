"""Downloads that resume, fall back to mirrors, and are not believed before their checksum holds."""

import errno
import hashlib
import logging
import lzma
import os
import re
import shutil
import tarfile
import zlib
from functools import partial
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from filelock import FileLock
from tqdm import tqdm

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 30  # of silence, while connecting and between packets
DAMAGED_ARCHIVE = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError)  # what reading one can raise


def fetch(urls: list[str], checksum: str, path: Path) -> Path:
    """Download a file from the first address that gives it, unless it is there already.

    `path` appears whole and verified, or not at all. What arrived of an interrupted download stays in `<path>.part`,
    and the next call goes on from there where the server can (HTTP Range). Of two processes that want the same file
    the second waits for the first (`<path>.lock`). A terminal shows the progress.

    Args:
        urls: http(s):// or file:// addresses of the same file, tried in this order; each failure is logged.
        checksum: "md5:<hex>" or "sha256:<hex>".
        path: where the file shall be; its folder is made.

    Returns:
        `path`.

    Raises:
        ValueError: if `checksum` has another form.
        OSError: if no address gives the file (with the reason of each), or the disk is full.
    """
    checksum = checksum.lower()
    if not re.fullmatch("md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", checksum):
        raise ValueError(
            f"checksum {checksum!r} of {path.name}: expected 'md5:' and 32, or 'sha256:' and 64, hexadecimal digits."
        )
    part = path.with_name(f"{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    with FileLock(f"{path}.lock"):
        if path.exists():
            if file_checksum(path, checksum.split(":")[0]) == checksum:
                return path
            logger.warning("%s does not have the checksum %s: downloading it again.", path, checksum)
        for url in urls:
            try:
                _download(url, part, checksum)
            except (OSError, HTTPException, ValueError) as error:
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                    kept = part.stat().st_size if part.exists() else 0
                    raise OSError(
                        f"the disk that holds {path.parent} is full: free some space and start again; "
                        f"the {kept:,} bytes that arrived are kept."
                    ) from error
                logger.warning("no download from %s: %s", url, error)
                failures.append(f"{url}: {error}")
            else:
                os.replace(part, path)
                return path
    raise OSError(
        f"{path.name} could not be downloaded ({'; '.join(failures) or 'no address is given'}): try again, put the "
        f"official file at {path} by hand, or set the address and checksum of a mirror you trust in config/config.yaml."
    )


def file_checksum(path: Path, algorithm: str) -> str:
    """The checksum of a file, as "<algorithm>:<hex>"; `algorithm` is "md5" or "sha256"."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, partial(hashlib.new, algorithm, usedforsecurity=False))
    return f"{algorithm}:{digest.hexdigest()}"


def _download(url: str, part: Path, checksum: str) -> None:
    """Complete `part` from `url`; a wrong file is removed, lest it stand in the way of the next try."""
    resumed = _transfer(url, part)
    found = file_checksum(part, checksum.split(":")[0])
    if found != checksum:
        part.unlink()
        if not resumed:
            raise ValueError(f"another file (expected {checksum}, got {found})")
        _download(url, part, checksum)  # the kept bytes may have been of another file: once more, all of it


def _transfer(url: str, part: Path) -> bool:
    """Append to `part` what it lacks of the file at `url`; True if bytes from before were kept."""
    with open(part, "ab") as file:
        start = file.tell()
        headers = {"User-Agent": "sdnet"} | ({"Range": f"bytes={start}-"} if start else {})
        try:
            response = urlopen(Request(url, headers=headers), timeout=TIMEOUT_SECONDS)
        except HTTPError as error:
            if error.code == 416 and start:  # range not satisfiable: there is nothing behind the bytes we have
                return True
            raise
        with response:
            if start and response.status != 206:  # the whole file comes, not the rest asked for
                start = file.seek(0)
                file.truncate()
            length = response.headers["Content-Length"]
            end = None if length is None else start + int(length)
            with tqdm.wrapattr(file, "write", total=end, initial=start, desc=part.stem, disable=None) as out:
                shutil.copyfileobj(response, out, 1 << 18)
            if end is not None and file.tell() < end:
                raise ConnectionError(f"cut off after {file.tell():,} of {end:,} bytes, which are kept to go on from")
    return start > 0
