"""FISTA, the solver of the layer's Lasso problem (Eqs. 4, 6 and 8)."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from sdnet.csc.operators import Pair, adjoint, reconstruct


def soft_threshold(x: Tensor, threshold: float, nonnegative: bool = False) -> Tensor:
    """Shrinkage of both signs, max(|x| - threshold, 0) * sgn(x) (Eq. 8).

    With `nonnegative`, max(x - threshold, 0): the shrinkage under the constraint z >= 0,
    which the authors' released code uses in place of Eq. 8.
    """
    return (x - threshold).relu() if nonnegative else F.softshrink(x, threshold)


def fista(
    x: Tensor,
    weight: Tensor,
    *,
    lmbd: float,
    step_size: float | Tensor,
    n_iter: int,
    stride: Pair = 1,
    padding: Pair = 0,
    nonnegative: bool = False,
) -> Tensor:
    """Sparse codes of x under the dictionary `weight`, by FISTA from z = 0 (Eq. 6).

    Approximates, for each image, the Lasso problem of Eq. 4,

        z* = argmin_z  lmbd * ||z||_1  +  1/2 * ||x - A(z)||_2^2

    The gradient is taken at the extrapolated point y, not at the last iterate. The first momentum
    weight is zero, so that up to two iterations are plain ISTA. The first iteration costs a single
    convolution, since A(0) = 0.

    Args:
        x: images, (N, M, H, W).
        weight: dictionary, (C, M, k, k), one unit-norm atom per code channel.
        lmbd: sparsity weight, in the units of x.
        step_size: t; the iteration converges if t < 1 / ||A||_2^2, see `power_iteration`.
        n_iter: number of iterations, at least 1.
        stride: distance between neighbouring code positions, in pixels; one number, or height and width.
        padding: zeros around the image, in pixels; one number, or height and width.
        nonnegative: solve under the constraint z >= 0.

    Returns:
        codes, (N, C, H', W') with H' = (H + 2 * padding - k) // stride + 1.

    Raises:
        ValueError: if x and the dictionary disagree on the number of channels M, or n_iter < 1.
    """
    if x.dim() != 4 or x.shape[1] != weight.shape[1]:
        raise ValueError(
            f"fista: x has shape {tuple(x.shape)}, the dictionary codes images of shape "
            f"(N, {weight.shape[1]}, H, W); is x in NHWC order or without its batch dimension?"
        )
    if n_iter < 1:
        raise ValueError(f"fista: n_iter is {n_iter}; at least 1 iteration is needed")
    size = x.shape[-2:]
    # In units of the step size, z = t u: its threshold is lmbd, a plain number, where that of z is t lmbd, a number on
    # the device.
    last = u = soft_threshold(adjoint(x, weight, stride, padding), lmbd, nonnegative)
    for momentum in momentum_weights(n_iter - 1):
        y = torch.lerp(last, u, 1 + momentum) if momentum else u
        residual = x - step_size * reconstruct(y, weight, size, stride, padding)
        last = u
        u = soft_threshold(y + adjoint(residual, weight, stride, padding), lmbd, nonnegative)
    return step_size * u


def momentum_weights(n: int) -> Iterator[float]:
    """(m_l - 1) / m_(l+1) for l = 1 to n, with m_1 = 1 (Eq. 6); the first weight is 0."""
    m = 1.0
    for _ in range(n):
        m_next = (1 + math.sqrt(1 + 4 * m * m)) / 2
        yield (m - 1) / m_next
        m = m_next
