"""The dominant eigenvalue of A*A, which bounds the step size of FISTA (Eqs. 9 and 10)."""

import math

import torch
from torch import Tensor

from sdnet.csc.operators import Pair, adjoint, reconstruct, without_autocast

TOLERANCE = math.sqrt(1e-5)  # section A
MAX_ITERATIONS = 50  # section A


@torch.no_grad()
def power_iteration(
    weight: Tensor,
    start: Tensor,
    stride: Pair = 1,
    padding: Pair = 0,
    *,
    n_iter: int = MAX_ITERATIONS,
    tolerance: float | None = TOLERANCE,
) -> tuple[Tensor, Tensor]:
    """Dominant eigenvalue of A*A by power iteration, in the precision of `weight`.

    It iterates on images, v <- A(A*(v)) / ||A(A*(v))||, where the paper iterates on codes (Eq. 9):
    AA* and A*A have the same non-zero eigenvalues, and an image is the smaller of the two.

    Args:
        weight: dictionary, (C, M, k, k).
        start: first v, an image (1, M, H, W), not zero; the eigenvalue depends, weakly, on its size.
        stride: as in `adjoint`.
        padding: as in `adjoint`.
        n_iter: the largest number of iterations.
        tolerance: stop once v moves by less than this (l2 norm). None never stops early, and
            so never makes the host wait for the device.

    Returns:
        the eigenvalue, a tensor without dimensions on the device of `weight`, and the next v.

    Raises:
        ValueError: if n_iter < 1, or start is zero where it may be asked, with a tolerance.
    """
    if n_iter < 1:
        raise ValueError(f"power_iteration: n_iter is {n_iter}; at least 1 iteration is needed")
    if tolerance is not None and not start.any():
        raise ValueError("power_iteration: start is zero everywhere; give any other image, such as noise")
    size = start.shape[-2:]
    v = start / start.norm()
    with without_autocast(weight.device):
        for _ in range(n_iter):
            last, codes = v, adjoint(v, weight, stride, padding)
            eigenvalue = codes.square().sum()  # <v, AA*(v)>, Eq. 10
            v = reconstruct(codes, weight, size, stride, padding)
            v = v / v.norm().clamp_min(torch.finfo(v.dtype).tiny)
            if tolerance is not None and (v - last).norm() < tolerance:
                break
        return eigenvalue, v
