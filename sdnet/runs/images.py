"""The images that a run's spec.json names."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sdnet.data.datasets import CLASS_FOLDERS, INFO, load
from sdnet.data.images import Images, subset
from sdnet.data.loaders import DeviceLoader, Loader
from sdnet.experiments.settings.files import data_dir, image_folder
from sdnet.runs.device import cores
from sdnet.runs.spec import image_size

if TYPE_CHECKING:
    from sdnet.data.folders import FolderLoader

EVALUATION_BATCH = 250
IMAGENET_IMAGES = {"train": 1_281_167, "val": 50_000}


@dataclass(frozen=True)
class Data:
    """The two loaders of a data set, its class names, and what its images are."""

    train: Loader
    test: Loader
    classes: tuple[str, ...]
    source: str


def open_data(spec: dict, path: Path | None, device: torch.device, shard: tuple[int, int] = (0, 1)) -> Data:
    """The images of a run, in batches on a device.

    Args:
        spec: as from `read_spec`.
        path: the .npz of CIFAR, or the folder of ImageNet or of one's own images; None looks in the
            `image_folder` of data_dir (by default data), imagenet_root or folder_root.
        device: where batches are made.
        shard: as in the loaders: this process's part of each batch.
    """
    wanted = spec["dataset"]
    seed, batch_size = spec["seed"], spec["training"]["batch_size"]
    if wanted["name"] in CLASS_FOLDERS:
        where = {"device": device, "shard": shard}
        training = {"batch_size": batch_size, "augment": True, "seed": seed, "limit": wanted["train_images"]}
        train = open_folder(spec, path, "train", **training, **where)
        test = open_folder(spec, path, "val", augment=False, limit=wanted["test_images"], **where)
        sources = folder_source(wanted["name"], train, "train"), folder_source(wanted["name"], test, "val")
        source = next((words for words in sources if words != "official"), "official")
        return Data(train, test, tuple(train.classes), source)
    images = open_images(spec, path)
    images = subset(images, wanted["train_images"], wanted["test_images"], seed=0)  # the same ones for every seed
    info = INFO[wanted["name"]]
    train = DeviceLoader(
        images.train_images,
        images.train_labels,
        batch_size=batch_size,
        device=device,
        augment=True,
        crop_padding=info.crop_padding,
        flip=info.flip,
        seed=seed,
        shard=shard,
    )
    test = DeviceLoader(
        images.test_images, images.test_labels, batch_size=EVALUATION_BATCH, device=device, augment=False, shard=shard
    )
    return Data(train, test, images.classes, images.source)


def open_images(spec: dict, path: Path | None) -> Images:
    """All images of a data set that fits in memory; `path` as in `open_data`."""
    name = spec["dataset"]["name"]
    if name == "digits" and path:
        raise ValueError(f"--data: given {path}; the digits come with scikit-learn, leave it out")
    return load(name, path or data_dir() / f"{name}.npz")


def open_folder(
    spec: dict,
    path: Path | None,
    split: str,
    *,
    batch_size: int = EVALUATION_BATCH,
    shard: tuple[int, int] = (0, 1),
    **options,
) -> "FolderLoader":
    """One split of a data set that is a tree of class folders; `path` as in `open_data`, options as in the loader."""
    from sdnet.data.folders import FolderLoader  # here, since torchvision takes seconds to import

    name = spec["dataset"]["name"]
    if not (root := path or image_folder(f"{name}_root")):
        raise ValueError(f"{name}: its folder is not known; set {name}_root in config/config.yaml, or give --data")
    _, processes = shard
    workers = max(1, min(8, cores() // processes))
    return FolderLoader(
        root, split, image_size=image_size(spec), batch_size=batch_size, workers=workers, shard=shard, **options
    )


def folder_source(name: str, loader: "FolderLoader", split: str) -> str:
    """What a tree of class folders holds: "official", or the words that say what it is instead.

    ASSUME: an ImageNet with the classes and as many images as ILSVRC 2012 has is that; its 150 GB are not hashed.
    """
    classes = all(re.fullmatch(r"n\d{8}", one) for one in loader.classes) and len(loader.classes)
    if name == "imagenet" and classes == 1000 and len(loader.samples) == IMAGENET_IMAGES[split]:
        return "official"
    return f"local folder of {len(loader.classes)} classes"
