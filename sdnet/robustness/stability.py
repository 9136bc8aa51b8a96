"""How far noise moves what a layer makes of an image (sections 1 and 3.3: stable recovery, Theorem 1)."""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from sdnet.csc import evaluation_mode
from sdnet.robustness.batches import as_input

ROUNDING = 1e-6  # of squares in float32: what varies by less does not vary


@dataclass(frozen=True)
class Stability:
    """Of a feature map z(x), under noise e.

    Attributes:
        noise_to_signal: the mean of ||z(x + e) - z(x)||^2 over the variance of z(x) between images. Neither a scale nor
            a shift of the feature map changes it.
        zeros: the share of the entries of z(x) that are exactly zero.
        new: the share of the non-zero entries of z(x + e) that are zero in z(x).
    """

    noise_to_signal: float
    zeros: float
    new: float


class _Sums:
    """What the stability of one feature map is made of, summed over batches."""

    def __init__(self):
        self.images = self.entries = self.zeros = self.nonzero = self.new = 0
        self.noise = self.square = self.total = 0.0

    def add(self, clean: Tensor, noisy: Tensor) -> None:
        self.images += len(clean)
        self.entries += clean.numel()
        self.zeros += int((clean == 0).sum())
        self.nonzero += int((noisy != 0).sum())
        self.new += int(((noisy != 0) & (clean == 0)).sum())
        self.noise += float((noisy - clean).square().sum(dtype=torch.float64))
        self.square += float(clean.square().sum(dtype=torch.float64))
        self.total = self.total + clean.sum(dim=0, dtype=torch.float64)

    def result(self) -> Stability:
        variance = self.square - float(self.total.square().sum()) / self.images
        ratio = self.noise / variance if variance > ROUNDING * self.square else np.nan
        return Stability(ratio, self.zeros / self.entries, self.new / self.nonzero if self.nonzero else np.nan)


@torch.no_grad()
def stability_under(
    model: nn.Module,
    feature_maps: Callable[[Tensor], Iterable[tuple[Hashable, Tensor]]],
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
) -> dict[Hashable, Stability]:
    """The stability of some feature maps of a network, by their names, on the same images and noise.

    Args:
        model: the network; it is measured in evaluation mode, and left as it was found.
        feature_maps: gives each one's name, and what it is of images in [0, 1], (N, channels, H, W); one by one.
        batches: of clean images and the same with noise, uint8, (N, H, W, channels).

    Raises:
        ValueError: if there is no batch, or a single image, which nothing varies from.
    """
    sums: dict[Hashable, _Sums] = {}
    with evaluation_mode(model):
        for clean, noisy in batches:
            for name, z in feature_maps(as_input(np.concatenate([clean, noisy]), model)):
                sums.setdefault(name, _Sums()).add(*z.chunk(2))
    if not sums:
        raise ValueError("stability_under: there is no batch; give images, and no iterator that is used up already")
    if next(iter(sums.values())).images < 2:
        raise ValueError("stability_under: given 1 image; noise is compared with how images differ, so give 2 or more")
    return {name: one.result() for name, one in sums.items()}
