"""Batches of images that lie on the device as bytes and are cropped and mirrored there, each image on its own."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad


class Loader(Protocol):
    """What a training reads: `DeviceLoader`, `FolderLoader`, or one of your own."""

    num_images: int  # in an epoch, those of other shards included
    batch_size: int

    def __len__(self) -> int:
        """Batches in an epoch."""

    def epoch(self, k: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of images in [0, 1], (B, channels, H, W), and int64 labels, (B,); a function of k alone."""


class DeviceLoader:
    """Batches of a data set that fits on the device.

    An epoch costs one small copy of random numbers to the device, and nothing within it waits for the host. All that
    is random in epoch k follows from `seed` and k, whatever ran before: a resumed training sees the same batches.

    Args:
        images: uint8 pixels, (N, H, W, channels).
        labels: int64, (N,).
        batch_size: images in a batch; the last one may have fewer.
        device: where the images lie and the batches are made.
        augment: True for training: shuffled, cropped, mirrored; False for evaluation: in order, as they are.
        crop_padding: black pixels put around an image before a random crop of its own size.
        flip: whether each image is mirrored left to right with probability 1/2.
        seed: of the order and the augmentation.
        shard: (k, n) gives of each batch every n-th image from the k-th on: n such loaders share the batches.

    Attributes:
        num_images: N, those of the other shards included.

    Raises:
        ValueError: if images and labels are not as above.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        batch_size: int,
        device: torch.device | str,
        augment: bool,
        crop_padding: int = 0,
        flip: bool = False,
        seed: int = 0,
        shard: tuple[int, int] = (0, 1),
    ):
        labels = np.asarray(labels)
        kinds = (images.dtype, images.ndim, labels.dtype, labels.shape)
        if kinds != (np.uint8, 4, np.int64, (len(images),)):
            raise ValueError(
                f"DeviceLoader: images are {images.dtype} {images.shape} with labels {labels.dtype} {labels.shape}, "
                "expected uint8 (N, H, W, channels) and int64 (N,)."
            )
        self.num_images, self.height, self.width, self.channels = images.shape
        self.batch_size, self.augment, self.seed, self.shard = batch_size, augment, seed, shard
        self.crop_padding, self.flip = (crop_padding, flip) if augment else (0, False)
        margin = 2 * (self.crop_padding,)
        padded = pad(torch.tensor(images, device=device), (0, 0, *margin, *margin))
        self.pixels = padded.view(-1, self.channels)  # one row a pixel, of all padded images
        self.labels = torch.tensor(labels, device=device)

    def __len__(self) -> int:
        return -(-self.num_images // self.batch_size)

    def epoch(self, k: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of epoch k.

        Yields:
            float32 pixels in [0, 1], (B, channels, H, W), channels-last in memory; int64 labels, (B,).
        """
        device = self.pixels.device
        numbers = self._draw(k)
        if device.type == "cuda":
            numbers = numbers.pin_memory()
        order, corner, step = numbers.to(device, non_blocking=True)
        rows = (self.width + 2 * self.crop_padding) * torch.arange(self.height, device=device)[:, None]
        columns = torch.arange(self.width, device=device)
        first, every = self.shard
        for start in range(first, self.num_images, self.batch_size):
            part = slice(start, start - first + self.batch_size, every)
            where = corner[part, None, None] + rows + step[part, None, None] * columns
            images = self.pixels.index_select(0, where.flatten()).view(-1, self.height, self.width, self.channels)
            yield unit_pixels(images), self.labels[order[part]]

    def _draw(self, k: int) -> Tensor:
        """Epoch k as int64 numbers, (3, N): the image, its top left pixel in `self.pixels`, and +1, or -1 if mirrored.

        The "left" of a mirrored image is its right edge, from where its columns are read backwards.
        """
        n, width, room = self.num_images, self.width, 2 * self.crop_padding
        order = torch.arange(n, device="cpu")
        top = left = mirrored = torch.zeros(n, dtype=torch.int64, device="cpu")
        if self.augment:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, k))
            order = torch.randperm(n, generator=generator, device="cpu")
            top, left = torch.randint(room + 1, (2, n), generator=generator, device="cpu")
            mirrored = self.flip * torch.randint(2, (n,), generator=generator, device="cpu")
        corner = (order * (self.height + room) + top) * (width + room) + left + mirrored * (width - 1)
        return torch.stack([order, corner, 1 - 2 * mirrored])


def derive_seed(*numbers: int) -> int:
    """A seed computed from these numbers, each 0 to 2**32 - 1; other numbers give an unrelated seed.

    Zeros at the end may not count: (3, 1) gives the seed of (3, 1, 0).
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def unit_pixels(images: Tensor) -> Tensor:
    """Bytes (B, H, W, channels) as float32 in [0, 1], (B, channels, H, W), channels-last in memory."""
    return images.permute(0, 3, 1, 2).float().div_(255)
