"""Batches of images as a network takes them."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from sdnet.data.loaders import unit_pixels

Batches = Iterable[tuple[Tensor | np.ndarray, Tensor | np.ndarray]]  # images and labels, see `as_input`

FAR = 20  # largest absolute pixel that is taken for unclipped noise; larger ones must be grey levels, 0 to 255


def labelled(batch: Sequence, caller: str) -> tuple:
    """Images and labels of a batch.

    Raises:
        ValueError: if it is no pair.
    """
    if not (isinstance(batch, tuple | list) and len(batch) == 2):
        raise ValueError(f"{caller}: each of the batches must be a pair, images and labels, as a DataLoader gives them")
    return tuple(batch)


def as_input(images: Tensor | np.ndarray, model: nn.Module) -> Tensor:
    """A batch as the network takes it: float in [0, 1], (N, channels, H, W), on the network's device.

    uint8 is read as (N, H, W, channels) in 0 to 255, floats as (N, channels, H, W) in [0, 1]. Noise may leave [0, 1].

    Raises:
        ValueError: for what is no tensor or array, bytes with the channels first, other integers, and floats that are
            grey levels.
    """
    parameter = next(model.parameters())
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(images.copy())  # torch cannot share what is read-only, as a mapped file is
    if not isinstance(images, Tensor):
        raise ValueError(f"images are {type(images).__name__}; give a tensor or an array, alone or first in a tuple")
    images = images.to(parameter.device, non_blocking=True)
    if images.dtype == torch.uint8:
        if images.dim() != 4 or (images.shape[1] in (1, 3) and images.shape[-1] not in (1, 3)):
            raise ValueError(
                f"images are uint8, {tuple(images.shape)}; give (N, H, W, channels), or images / 255 as floats, "
                "(N, channels, H, W)"
            )
        images = unit_pixels(images)
    elif not images.is_floating_point():
        raise ValueError(
            f"images are {images.dtype}; give uint8, (N, H, W, channels), or floats in [0, 1], (N, channels, H, W)"
        )
    elif images.numel() and (largest := images.abs().max().item()) > FAR:
        raise ValueError(f"pixels reach {largest:.3g}; give floats in [0, 1], or uint8, (N, H, W, channels)")
    return images.to(parameter.dtype)
