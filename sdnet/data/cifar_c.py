"""The official CIFAR-10-C and CIFAR-100-C files: taken out of their archive, checked, and read.

Each archive is one folder with 19 arrays `<corruption>.npy`, uint8 (50000, 32, 32, 3), and `labels.npy`.
Rows 0 to 9999 are the 10,000 test images, in the order of the test batch, at severity 1, and so on up to
severity 5. Four of the arrays are needed: 0.6 of 2.9 GB.
"""

import functools
import hashlib
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from filelock import FileLock

from sdnet.data.corruptions import check_cell
from sdnet.data.download import DAMAGED_ARCHIVE, file_checksum
from sdnet.files import whole


@dataclass(frozen=True)
class Archive:
    """What is needed of an official archive, by its MD5; config/config.yaml has the address and that of the whole."""

    name: str
    members_md5: Mapping[str, str]


# As ENSTA-U2IS-AI/torch-uncertainty checks them.
ARCHIVES = {
    "cifar10": Archive(
        name="CIFAR-10-C",
        members_md5={
            "gaussian_noise.npy": "ecaf8b9a2399ffeda7680934c33405fd",
            "shot_noise.npy": "3a7239bb118894f013d9bf1984be7f11",
            "speckle_noise.npy": "ef00b87611792b00df09c0b0237a1e30",
            "impulse_noise.npy": "2090e01c83519ec51427e65116af6b1a",
            "labels.npy": "c439b113295ed5254878798ffe28fd54",
        },
    ),
    "cifar100": Archive(
        name="CIFAR-100-C",
        members_md5={
            "gaussian_noise.npy": "ecc4d366eac432bdf25c024086f5e97d",
            "shot_noise.npy": "b0a1fa6e1e465a747c1b204b1914048a",
            "speckle_noise.npy": "e3f215b1a0f9fd9fd6f0d1cf94a7ce99",
            "impulse_noise.npy": "3b3c210ddfa0b5cb918ff4537a429fef",
            "labels.npy": "bb4026e9ce52996b95f439544568cdb2",
        },
    ),
}


def extract(archive: Path, folder: Path, members_md5: Mapping[str, str]) -> None:
    """Take the members named in `members_md5` out of `archive` and write them to `folder`.

    The archive is read once, front to back, and only as far as the last member that is needed. The folder is
    there once all files are, with their checksums; until then they are in a hidden one beside it, which
    the next call removes if this one is killed. A folder that is there already gets the files, once all
    are there, and keeps what else it holds. Of two processes the second waits for the first (`<folder>.lock`).

    Args:
        archive: the .tar file, as downloaded, or its files packed anew, compressed or not.
        folder: where the .npy files go; made if it is missing.
        members_md5: file name to MD5, `ARCHIVES[dataset].members_md5`.

    Raises:
        ValueError: if a member is missing or its checksum does not hold, or the archive is damaged.
    """
    folder = Path(folder).resolve()
    hidden = folder.with_name(f".{folder.name}.part")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        shutil.rmtree(hidden, ignore_errors=True)
        try:
            _take(archive, hidden, members_md5)
            if folder.exists():
                for path in hidden.iterdir():
                    shutil.move(path, folder / path.name)
            else:
                hidden.rename(folder)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)


def _take(archive: Path, folder: Path, members_md5: Mapping[str, str]) -> None:
    missing = dict(members_md5)
    try:
        with tarfile.open(archive, mode="r|*") as tar:
            while missing and (member := tar.next()) is not None:
                # The last part of the name alone decides, so that no member can point outside the folder.
                name = PurePosixPath(member.name).name
                if name in missing and member.isfile():
                    _write_checked(tar.extractfile(member), folder / name, missing.pop(name))
    except DAMAGED_ARCHIVE as error:
        raise ValueError(f"{archive} is damaged ({error}); delete it and download it again") from error
    if missing:
        raise ValueError(f"{archive} does not contain {', '.join(missing)}; is it the right archive?")


def _write_checked(source, path: Path, md5: str) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    with whole(path) as target:
        while block := source.read(1 << 20):
            digest.update(block)
            target.write(block)
        if digest.hexdigest() != md5:
            raise ValueError(f"{path.name} has MD5 {digest.hexdigest()}, expected {md5}; download the archive again")


@functools.cache
def checksums(folder: Path, noise: str) -> dict[str, str]:
    """The MD5 of the labels and of a noise's images, by file; a process reads them for it once, 0.15 GB.

    Raises:
        FileNotFoundError: if they are not in the folder.
    """
    return {name: file_checksum(_existing(folder, name), "md5") for name in ("labels.npy", f"{noise}_noise.npy")}


def source(folder: Path, dataset: str, noise: str) -> str:
    """What the files of a noise are: "official" if they have the known checksums, else "local CIFAR-10-C", say.

    Raises:
        ValueError: if there are no such files of the data set.
        FileNotFoundError: if they are not in the folder.
    """
    if dataset not in ARCHIVES:
        raise ValueError(f"{dataset} has no official noisy images: leave out --official, to generate the noise")
    archive = ARCHIVES[dataset]
    found = checksums(folder, noise)
    official = all(value == f"md5:{archive.members_md5[name]}" for name, value in found.items())
    return "official" if official else f"local {archive.name}"


def load(folder: Path, noise: str, severity: int, test_labels: np.ndarray) -> np.ndarray:
    """The test images under one noise at one severity.

    Args:
        folder: where `extract` wrote the files, or the like of them; `source` says which.
        noise: "gaussian", "shot", "speckle" or "impulse".
        severity: 1 to 5.
        test_labels: labels of the clean test set, (N,), which the files must repeat five times.

    Returns:
        uint8, (N, 32, 32, 3), read-only, mapped from the file: image i is test image i.

    Raises:
        ValueError: for an unknown noise or severity, or files that are damaged or do not belong to this test set.
        FileNotFoundError: if the files have not been extracted.
    """
    check_cell(noise, severity)
    n = len(test_labels)
    path = _existing(folder, "labels.npy")
    if not np.array_equal(_array(path), np.tile(test_labels, 5)):
        raise ValueError(f"{path} is not the {n} test labels five times over; is it the same data set?")
    path = _existing(folder, f"{noise}_noise.npy")
    images = _array(path)
    if images.dtype != np.uint8 or images.shape != (5 * n, 32, 32, 3):
        raise ValueError(f"{path} holds {images.dtype} of shape {images.shape}, expected uint8 {(5 * n, 32, 32, 3)}")
    return images[(severity - 1) * n : severity * n]


def _array(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is damaged ({error}); extract it from its archive again") from error


def _existing(folder: Path, name: str) -> Path:
    path = Path(folder) / name
    if not path.exists():
        raise FileNotFoundError(f"{folder} holds no {name}, as CIFAR-10-C does; is it the folder of its .npy files?")
    return path
