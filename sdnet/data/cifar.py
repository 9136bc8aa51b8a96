"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): from the official archive of pickles to one file of plain arrays.

Nothing in the archive is trusted: no member is extracted to disk, and a pickle that asks for anything but arrays is
refused before it runs.
"""

import hashlib
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
from torchvision.datasets import CIFAR10, CIFAR100

from sdnet.data.datasets import INFO
from sdnet.data.download import DAMAGED_ARCHIVE, file_checksum
from sdnet.files import whole

# torchvision's classes list the members of the official archives and their MD5s.
OFFICIAL = {"cifar10": CIFAR10, "cifar100": CIFAR100}
LABELS_KEY = {"cifar10": b"labels", "cifar100": b"fine_labels"}  # the 100 fine classes, not the 20 coarse ones
IMAGES_PER_SPLIT = {"train": 50_000, "test": 10_000}


def convert(archive: Path, name: str, out: Path) -> None:
    """Write the images of an official archive as one `.npz`, whole or not at all.

    Its arrays are the fields of `Images`, and `archive`, the checksum of the archive. `source` is "official" only if
    every batch file has its official MD5; else it names the images a copy, for every table made from them.

    Args:
        archive: `cifar-10-python.tar.gz` or `cifar-100-python.tar.gz`, or their files packed anew, compressed or not.
        name: "cifar10" or "cifar100".
        out: the `.npz` to write; its folder is made.

    Raises:
        ValueError: if the archive is damaged, lacks a member, or holds anything but the expected images and labels.
    """
    official = OFFICIAL[name]
    members = {"train": official.train_list, "test": official.test_list}
    contents = _read_members(archive, official)
    classes = _read_classes(contents[official.meta["filename"]], official, INFO[name].num_classes, archive)
    arrays = {}
    for split, batches in members.items():
        parts = [
            _read_batch(contents[batch], LABELS_KEY[name], len(classes), f"{archive}: {batch}") for batch, _ in batches
        ]
        pixels, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
        if len(labels) != IMAGES_PER_SPLIT[split]:
            raise ValueError(f"{archive}: {len(labels):,} {split} images, expected {IMAGES_PER_SPLIT[split]:,}.")
        arrays[f"{split}_images"] = np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        arrays[f"{split}_labels"] = labels
    with whole(out) as file:
        np.savez(
            file,
            **arrays,
            classes=classes,
            source=_source(contents, official),
            archive=file_checksum(archive, "sha256"),
        )


def _read_members(archive: Path, official: type[CIFAR10]) -> dict[str, bytes]:
    """The contents of the known members, in memory; links, folders and any other name are passed over."""
    names = [member for member, _ in official.train_list + official.test_list] + [official.meta["filename"]]
    contents = {}
    try:
        with tarfile.open(archive, "r|*") as tar:
            for entry in tar:
                folder, _, member = entry.name.rpartition("/")
                if folder.removeprefix("./") == official.base_folder and member in names and entry.isreg():
                    contents[member] = tar.extractfile(entry).read()
    except DAMAGED_ARCHIVE as error:
        raise ValueError(f"{archive} is damaged or cut short ({error}): delete it and download it again.") from error
    if missing := [name for name in names if name not in contents]:
        raise ValueError(
            f"{archive} lacks {', '.join(missing)} in its folder {official.base_folder}: is it the official archive?"
        )
    return contents


def _source(contents: dict[str, bytes], official: type[CIFAR10]) -> str:
    md5 = {member: hashlib.md5(content, usedforsecurity=False).hexdigest() for member, content in contents.items()}
    if all(md5[member] == expected for member, expected in official.train_list + official.test_list):
        return "official"
    test = official.test_list[0][0]
    return f"unofficial copy (md5 of {test}: {md5[test]})"


class _ArraysOnly(pickle.Unpickler):
    """Unpickles numbers, strings, containers and NumPy arrays, as NumPy 1 under Python 2 wrote them, nothing else."""

    ALLOWED = (
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),  # bytes, in a pickle that Python 3 wrote in the old format
    )

    def find_class(self, module, name):
        module = module.replace("numpy.core.", "numpy._core.")  # renamed in NumPy 2
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def _unpickle(content: bytes, where: str) -> dict:
    try:
        batch = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise any
        raise ValueError(f"{where} is not a pickle of plain arrays ({error}); it was refused.") from error
    if not isinstance(batch, dict):
        raise ValueError(f"{where} holds a {type(batch).__name__}, expected a dictionary.")
    return batch


def _read_classes(content: bytes, official: type[CIFAR10], num_classes: int, archive: Path) -> list[str]:
    key, where = official.meta["key"], f"{archive}: {official.meta['filename']}"
    names = _unpickle(content, where).get(key.encode())
    if not (isinstance(names, list) and len(names) == num_classes and all(isinstance(name, bytes) for name in names)):
        raise ValueError(f"{where}: {key!r} must be a list of {num_classes} names.")
    return [name.decode() for name in names]


def _read_batch(content: bytes, labels_key: bytes, num_classes: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels, uint8 (N, 3072), and labels, int64 (N,), of one batch file."""
    batch = _unpickle(content, where)
    pixels, labels = batch.get(b"data"), batch.get(labels_key)
    if not (isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.shape[1:] == (3072,)):
        raise ValueError(f"{where}: 'data' must be an array of uint8, images by 3072 (3 channels of 32 x 32 pixels).")
    known = isinstance(labels, list) and all(type(y) is int and 0 <= y < num_classes for y in labels)
    if not (known and len(labels) == len(pixels)):
        raise ValueError(
            f"{where}: {labels_key.decode()!r} must be a list of one number of 0 to {num_classes - 1} for each image."
        )
    return pixels, np.array(labels, dtype=np.int64)
