"""Images in folders, one per class, as ImageNet has them: read by worker processes, batch by batch."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from sdnet.data.datasets import SMALL_IMAGES
from sdnet.data.images import balanced_indices
from sdnet.data.loaders import derive_seed, unit_pixels
from sdnet.processes import end_with

LAYOUT = "expected ROOT/train/<class>/<image> and ROOT/val/<class>/<image> (or test for val)"


class FolderLoader:
    """Batches of a tree of class folders; the twin of `DeviceLoader` for data that does not fit in memory.

    To train, a random part of the image is scaled to the size of the network and mirrored with probability 1/2; to
    evaluate, the shorter side is scaled to 256/224 of that size and the centre taken (the usual ImageNet recipe). Small
    images (up to 64 pixels) are scaled to the size; to train, they are then cropped from black padding of 4 pixels.

    All that is random in epoch k follows from `seed`, k and the image, whatever ran before and however many workers
    there are: a resumed training sees the same batches.

    Args:
        root: folder of `train` and of `val` (or `test`), each of one folder a class.
        split: "train" or "val".
        image_size: height and width of the batches, in pixels.
        batch_size: images in a batch; the last one may have fewer.
        augment: True for training: shuffled, cropped, mirrored; False for evaluation: in order.
        workers: processes that read images; 0 reads them in this one.
        seed: of the order and the augmentation.
        limit: read at most so many images, class-balanced, the same ones for every seed.
        device: where the batches shall be.
        shard: (k, n) gives of each batch every n-th image from the k-th on: n such loaders share the batches.

    Attributes:
        classes: sorted names of the class folders; label y is `classes[y]`.
        num_images: images in an epoch, those of the other shards included.

    Raises:
        FileNotFoundError: if the root, a split, or the images of a class are missing.
        ValueError: if the split is another, or the splits have different classes; in `epoch`, if an image cannot be
            read.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        *,
        image_size: int,
        batch_size: int,
        augment: bool,
        workers: int,
        seed: int = 0,
        limit: int | None = None,
        device: torch.device | str = "cpu",
        shard: tuple[int, int] = (0, 1),
    ):
        test_instead = (root / "test").is_dir() and not (root / "val").is_dir()
        folders = {"train": root / "train", "val": root / ("test" if test_instead else "val")}
        if split not in folders:
            raise ValueError(f"there is no split {split!r}: choose 'train' or 'val', whose folder may be named test.")
        for folder in (root, *folders.values()):
            if not folder.is_dir():
                raise FileNotFoundError(f"there is no folder {folder}: {LAYOUT}.")
        classes = {
            name: {entry.name for entry in folder.iterdir() if entry.is_dir()} for name, folder in folders.items()
        }
        if alone := sorted(classes["train"] ^ classes["val"]):
            raise ValueError(
                f"the class folders of {folders['train']} and {folders['val']} differ ({len(alone)} are in one of them "
                f"only, such as {alone[0]!r}): {LAYOUT}, with the same classes in both."
            )
        try:
            images = ImageFolder(folders[split])
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{folders[split]} lacks classes or images ({error}): {LAYOUT}.") from None
        self.samples, self.classes = images.samples, images.classes
        self.indices = np.arange(len(images))
        if limit is not None:
            self.indices = balanced_indices(np.array(images.targets), limit, np.random.default_rng(0))
        self.num_images = len(self.indices)
        self.transform = _augmentation(image_size) if augment else _centre(image_size)
        self.batch_size, self.augment, self.workers, self.seed = batch_size, augment, workers, seed
        self.device, self.shard = torch.device(device), shard

    def __len__(self) -> int:
        return -(-self.num_images // self.batch_size)

    def epoch(self, k: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of epoch k.

        Yields:
            float32 pixels in [0, 1], (B, 3, H, W), channels-last in memory; int64 labels, (B,).

        Raises:
            ValueError: naming the file, if an image cannot be read.
        """
        generator = torch.Generator().manual_seed(derive_seed(self.seed, k))
        order = torch.from_numpy(self.indices)
        if self.augment:
            order = order[torch.randperm(self.num_images, generator=generator, device="cpu")]
        first, every = self.shard
        batches = read_batches(
            Epoch(self.samples, self.transform, self.seed, k),
            workers=self.workers,
            batch_sampler=[
                batch[first::every].tolist() for batch in order.split(self.batch_size) if len(batch) > first
            ],
            pin_memory=self.device.type == "cuda",
            generator=generator,
        )
        for batch in batches:
            images, labels = (part.to(self.device, non_blocking=True) for part in batch)
            yield unit_pixels(images), labels


# ASSUME: the paper does not print its ImageNet augmentation; these are the customary crops of 224 from 256 pixels.
def _centre(size: int) -> v2.Transform:
    shorter_side = size if size <= SMALL_IMAGES else round(size * 256 / 224)
    return v2.Compose([v2.Resize(shorter_side), v2.CenterCrop(size)])


def _augmentation(size: int) -> v2.Transform:
    # ASSUME: a small image has no detail to spare for a random scale, so it is treated as CIFAR's are.
    crop = [_centre(size), v2.RandomCrop(size, padding=4)] if size <= SMALL_IMAGES else [v2.RandomResizedCrop(size)]
    return v2.Compose([*crop, v2.RandomHorizontalFlip()])


class Epoch(Dataset):
    """Image i of epoch k as bytes, (H, W, 3), with its label, or the ValueError that names an unreadable file.

    Its random numbers follow from (seed, k, i) alone.
    """

    def __init__(self, samples: list[tuple[str, int]], transform: v2.Transform, seed: int, k: int):
        self.samples, self.transform, self.seed, self.k = samples, transform, seed, k

    def __getitem__(self, i: int) -> tuple[Tensor, int] | ValueError:
        path, label = self.samples[i]
        try:
            with Image.open(path) as file:
                if file.mode.startswith(("I", "F")):  # which Pillow would clip at 255
                    raise ValueError(f"it has more than 8 bits a channel, mode {file.mode}")
                image = file.convert("RGB")
        except Exception as error:  # Pillow raises many kinds; returned, since a worker would bury it in its traceback
            return ValueError(f"{path} cannot be read as an image ({error}): replace or remove it.")
        with torch.random.fork_rng(devices=[]):  # the transforms draw from the global CPU generator
            torch.default_generator.manual_seed(derive_seed(self.seed, self.k, i))
            return torch.from_numpy(np.array(self.transform(image))), label


def read_batches(dataset: Dataset, *, workers: int, **options) -> Iterator[list[Tensor]]:
    """Batches of items such as those of `Epoch`, read by worker processes; options as of torch's `DataLoader`.

    Raises:
        ValueError: the first that is met in place of an item.
    """
    # By itself a worker notices the death of this process within 5 seconds, or never if it had just been started. Till
    # then no launcher learns of that death.
    ends = partial(end_with, os.getpid())
    for batch in DataLoader(dataset, num_workers=workers, collate_fn=_collate, worker_init_fn=ends, **options):
        if isinstance(batch, ValueError):
            raise batch
        yield batch


def _collate(samples: list) -> list[Tensor] | ValueError:
    return next((sample for sample in samples if isinstance(sample, ValueError)), None) or default_collate(samples)
