"""The operator A of the convolutional sparse coding model and its adjoint (Eqs. 3 and 7)."""

from contextlib import AbstractContextManager, nullcontext
from numbers import Integral

import torch
import torch.nn.functional as F
from torch import Tensor

Pair = int | tuple[int, int]


def adjoint(x: Tensor, weight: Tensor, stride: Pair = 1, padding: Pair = 0) -> Tensor:
    """A*(x): the correlation of an image with every atom (Eq. 7).

    The paper prints A* as a transposed convolution because it stores atoms flipped; with
    `weight[c]` being atom c as it appears in the image, the adjoint is an ordinary `conv2d`.

    Args:
        x: images, (N, M, H, W).
        weight: dictionary, (C, M, k, k).
        stride: distance between neighbouring code positions, in pixels; one number, or height and width.
        padding: zeros around the image, in pixels; one number, or height and width.

    Returns:
        (N, C, H', W') with H' = (H + 2 * padding - k) // stride + 1.
    """
    return F.conv2d(x, weight, stride=stride, padding=padding)


def reconstruct(z: Tensor, weight: Tensor, output_size: tuple[int, int], stride: Pair = 1, padding: Pair = 0) -> Tensor:
    """A(z): the image that the codes describe, a sum of shifted atoms (Eq. 3).

    The exact adjoint of `adjoint` at every stride, padding and odd or even size.

    Args:
        z: codes, (N, C, H', W').
        weight: dictionary, (C, M, k, k).
        output_size: (H, W) of the image; several sizes share one code size when stride > 1.
        stride: as in `adjoint`.
        padding: as in `adjoint`.

    Returns:
        images, (N, M, H, W).

    Raises:
        ValueError: if no image of `output_size` has codes of the size of z.
    """
    extra = _output_padding(output_size, z.shape[-2:], weight, stride, padding)
    return F.conv_transpose2d(z, weight, stride=stride, padding=padding, output_padding=extra)


def adjoint_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: Pair, padding: Pair, output_mask: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients with respect to x and the dictionary, given that with respect to A*(x).

    None where `output_mask` says that one is not needed.
    """
    return _convolution_backward(gradient, x, weight, pair(stride), pair(padding), False, (0, 0), output_mask)


def reconstruct_backward(
    gradient: Tensor, z: Tensor, weight: Tensor, stride: Pair, padding: Pair, output_mask: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients with respect to z and the dictionary, given that with respect to A(z); None as above."""
    extra = _output_padding(gradient.shape[-2:], z.shape[-2:], weight, stride, padding)
    return _convolution_backward(gradient, z, weight, pair(stride), pair(padding), True, extra, output_mask)


def _convolution_backward(gradient, signal, weight, stride, padding, transposed, output_padding, output_mask):
    geometry = stride, padding, (1, 1), transposed, output_padding, 1
    return torch.ops.aten.convolution_backward(gradient, signal, weight, None, *geometry, (*output_mask, False))[:2]


def _output_padding(
    image_size: tuple[int, int], code_size: tuple[int, int], weight: Tensor, stride: Pair, padding: Pair
) -> tuple[int, ...]:
    """By how much the image is larger than the smallest one with codes of this size.

    Raises:
        ValueError: if no image of that size has codes of this size.
    """
    extra = tuple(
        size - ((code - 1) * s - 2 * p + kernel)
        for size, code, kernel, s, p in zip(
            image_size, code_size, weight.shape[-2:], pair(stride), pair(padding), strict=True
        )
    )
    if not all(0 <= rest < s for rest, s in zip(extra, pair(stride), strict=True)):
        raise ValueError(
            f"reconstruct: codes of size {tuple(code_size)} do not describe an image of size "
            f"{tuple(image_size)} at kernel {tuple(weight.shape[-2:])}, stride {stride}, padding {padding}; "
            f"pass the (height, width) of the image that was coded"
        )
    return extra


def without_autocast(device: torch.device) -> AbstractContextManager:
    """Computes in the precision of its tensors; there is no autocast on the device "meta"."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def pair(value: Pair) -> tuple[int, int]:
    """The same number for height and width, or the two that are given.

    Raises:
        ValueError: if it is neither.
    """
    if isinstance(value, Integral):
        return int(value), int(value)
    if not (isinstance(value, tuple | list) and len(value) == 2):
        raise ValueError(f"{value!r} is no size in pixels; give one whole number, or two for height and width")
    return tuple(value)
