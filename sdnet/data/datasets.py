"""The data sets of the replication: their facts, and those that fit in memory, loaded by name."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sdnet.data.images import Images
from sdnet.files import DAMAGED_ARRAYS

SMALL_IMAGES = 64  # pixels; larger ones are cropped as ImageNet's are, and met by its stem


@dataclass(frozen=True)
class DatasetInfo:
    """What a network and its training need to know of a data set.

    Attributes:
        num_classes: None where the folders of the tree decide.
        channels: 3 for colour, 1 for grey.
        size: height and width that the network sees, in pixels.
        mean, std: of each channel, to normalise pixels in [0, 1].
        flip: whether a mirrored image keeps its class.
        crop_padding: black pixels around an image before a random crop of the original size; 0 where the loader crops
            and scales instead.
    """

    num_classes: int | None
    channels: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool
    crop_padding: int


# The input statistics of the authors' code, also for CIFAR-100. The means are CIFAR-10's; the std is the mean over its
# images of the std of one image, smaller than the std of all pixels (0.2470, 0.2435, 0.2616).
CIFAR_STATISTICS = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)}
# The usual ones of ImageNet's training set, as torchvision's pretrained models take them.
IMAGENET_STATISTICS = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
# Over all pixels of the 1,437 training digits, rounded.
DIGITS_STATISTICS = {"mean": (0.3094,), "std": (0.3489,)}

CLASS_FOLDERS = ("imagenet", "folder")  # read from a tree of folders, a class each; the others fit in memory

INFO = {
    # ASSUME: the paper prints no augmentation; padding by 4, crops and flips are usual (He et al. 2016, section 4.2).
    "cifar10": DatasetInfo(10, 3, 32, **CIFAR_STATISTICS, flip=True, crop_padding=4),
    "cifar100": DatasetInfo(100, 3, 32, **CIFAR_STATISTICS, flip=True, crop_padding=4),
    "imagenet": DatasetInfo(1000, 3, 224, **IMAGENET_STATISTICS, flip=True, crop_padding=0),
    # ASSUME: an eighth of the width as for CIFAR; no flip, since a mirrored digit is another sign.
    "digits": DatasetInfo(10, 1, 16, **DIGITS_STATISTICS, flip=False, crop_padding=2),
    "folder": DatasetInfo(None, 3, 224, **IMAGENET_STATISTICS, flip=True, crop_padding=0),
}


def load(name: str, path: Path | None) -> Images:
    """The images of a data set that fits in memory.

    Args:
        name: "cifar10", "cifar100" or "digits"; the image trees "imagenet" and "folder" are read by `FolderLoader`.
        path: the `.npz` that `cifar.convert` wrote; digits needs none and ignores it.

    Raises:
        ValueError: if the name is unknown or the file is damaged.
        FileNotFoundError: if there is no such file.
    """
    if name == "digits":
        from sdnet.data.digits import load_digits_images  # here, since scikit-learn takes seconds to import

        return load_digits_images()
    if name not in ("cifar10", "cifar100"):
        raise ValueError(f"data set {name!r} is not one to load into memory: choose cifar10, cifar100 or digits.")
    remedy = f"`python -m sdnet data {name}` or `snakemake data/{name}.npz` makes it"
    if path is None or not path.is_file():
        raise FileNotFoundError(f"{name}: there is no file {path}; {remedy}.")
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return Images(
                train_images=arrays["train_images"],
                train_labels=arrays["train_labels"],
                test_images=arrays["test_images"],
                test_labels=arrays["test_labels"],
                classes=tuple(arrays["classes"].tolist()),
                source=str(arrays["source"]),
            )
    except PermissionError:
        raise
    except (*DAMAGED_ARRAYS, TypeError, KeyError) as error:
        raise ValueError(
            f"{name}: {path} is damaged or holds something else; if it is no other file of yours, delete it: "
            f"{remedy} again."
        ) from error
