"""FISTA, the solver of the layer's Lasso problem (Eqs. 4, 6 and 8)."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from sdnet.csc.operators import (
    Pair,
    adjoint,
    adjoint_backward,
    pair,
    reconstruct,
    reconstruct_backward,
    without_autocast,
)

# Multiplications for one number of a residual, C k^2, from which on it is kept rather than computed again. In an
# SDNet-18-All of full width these are the layers of the last stage: a quarter of the work, and 4% of the memory.
COSTLY = 4096
SMALL = 4  # a residual at least so many times smaller than the code is kept, too, as in a first layer


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
    convolution, since A(0) = 0. Differentiable once, by x and by the dictionary.

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
        ValueError: if x and the dictionary disagree on the number of channels M, n_iter < 1, lmbd is negative or not
            a number, or lmbd or step_size asks for a gradient.
    """
    if x.dim() != 4 or x.shape[1] != weight.shape[1]:
        raise ValueError(
            f"fista: x has shape {tuple(x.shape)}, the dictionary codes images of shape "
            f"(N, {weight.shape[1]}, H, W); is x in NHWC order or without its batch dimension?"
        )
    if n_iter < 1:
        raise ValueError(f"fista: n_iter is {n_iter}; at least 1 iteration is needed")
    for name, value in {"lmbd": lmbd, "step_size": step_size}.items():
        if isinstance(value, Tensor) and value.requires_grad:
            raise ValueError(f"fista: {name} asks for a gradient, and codes have none by it; give {name}.detach()")
    if not lmbd >= 0:
        raise ValueError(f"fista: lmbd is {lmbd}; it must be a number of at least 0")
    # Autocast leaves float64 alone, and knows no device "meta".
    if not x.is_meta and torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
    if not isinstance(step_size, Tensor):
        step_size = x.new_tensor(step_size)
    needs_backward = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    return _Fista.apply(
        x, weight, step_size, float(lmbd), n_iter, pair(stride), pair(padding), nonnegative, needs_backward
    )


class _Fista(torch.autograd.Function):
    """The iteration, and its exact gradients with respect to x and the dictionary.

    Kept for the backward pass: x and the iterates. Residuals are computed again, but for the costliest and the
    smallest. Of the codes before shrinkage only the zero pattern is needed, and the iterates have it.

    The iterates are those of Eq. 6 divided by the step size, s = z / t, so that shrinkage is by lambda, a number that
    the host knows, and t is multiplied into the dictionary, which is small:

        s_1 = T(A*(x)),    s_l = T(y_l + A*(r_l))    with    r_l = x - (t A)(y_l)

    Gradients with respect to s, y and the argument of T are smaller by the factor t, too; it is multiplied back into
    the dictionary's gradient at the end.
    """

    @staticmethod
    def forward(ctx, x, weight, step_size, lmbd, n_iter, stride, padding, nonnegative, needs_backward) -> Tensor:
        ctx.geometry, ctx.n_iter = (stride, padding), n_iter
        ctx.shrinks = lmbd > 0 or nonnegative
        residuals = []
        with without_autocast(x.device):
            iterates = [soft_threshold(adjoint(x, weight, *ctx.geometry), lmbd, nonnegative)]
            for momentum in momentum_weights(n_iter - 1):
                y = _extrapolate(iterates, momentum)
                residual = _residual(x, y, weight * step_size, ctx.geometry)
                iterates.append(soft_threshold(adjoint(residual, weight, *ctx.geometry).add_(y), lmbd, nonnegative))
                if not needs_backward:
                    del iterates[:-2]
                elif weight[:, 0].numel() >= COSTLY or residual.numel() * SMALL <= y.numel():
                    residuals.append(residual)
            z = iterates.pop() * step_size  # not in place: compiled by torch 2.11, the code would have no gradient
        if needs_backward:
            ctx.save_for_backward(x, weight, step_size, *iterates, z, *residuals)
        return z

    @staticmethod
    def backward(ctx, grad_z: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # torch's once_differentiable would let torch.autograd.grad take it for zero
            raise RuntimeError("fista: create_graph=True asks for a second derivative; codes have the first alone")
        x, weight, step_size, *kept = ctx.saved_tensors
        iterates, residuals = kept[: ctx.n_iter], kept[ctx.n_iter :]
        needs_x, needs_weight, *_ = ctx.needs_input_grad
        scaled, mask = weight * step_size, (True, needs_weight)
        grad_iterate, grad_previous, grad_x, grad_weight = grad_z, None, None, None
        with without_autocast(x.device):
            for i, momentum in reversed([*enumerate(momentum_weights(ctx.n_iter - 1), start=1)]):
                grad_shrunk = _where_nonzero(grad_iterate, iterates[i]) if ctx.shrinks else grad_iterate
                y, residual = iterates[0], x  # of the right shape, which is enough for the gradient of the signal
                if needs_weight:
                    y = _extrapolate(iterates[:i], momentum)
                    residual = residuals[i - 1] if residuals else _residual(x, y, scaled, ctx.geometry)
                grad_residual, first = adjoint_backward(grad_shrunk, residual, scaled, *ctx.geometry, mask)
                minus, second = reconstruct_backward(grad_residual, y, weight, *ctx.geometry, mask)
                grad_y = minus.neg_().add_(grad_shrunk)
                grad_iterate = (1 + momentum) * grad_y if momentum else grad_y
                if grad_previous is not None:
                    grad_iterate = grad_iterate + grad_previous
                grad_previous = -momentum * grad_y if momentum else None
                grad_x = _plus(grad_x, grad_residual)
                if needs_weight:
                    grad_weight = _plus(grad_weight, first - second)
            grad_shrunk = _where_nonzero(grad_iterate, iterates[0]) if ctx.shrinks else grad_iterate
            grad_first, first = adjoint_backward(grad_shrunk, x, scaled, *ctx.geometry, (needs_x, needs_weight))
        grad_x = _plus(grad_x, grad_first) if needs_x else None
        grad_weight = _plus(grad_weight, first).mul_(step_size) if needs_weight else None
        return grad_x, grad_weight, *(None,) * 7


def _extrapolate(iterates: list[Tensor], momentum: float) -> Tensor:
    """The point y of Eq. 6 that the next iteration starts from."""
    return torch.lerp(iterates[-2], iterates[-1], 1 + momentum) if momentum else iterates[-1]


def _residual(x: Tensor, y: Tensor, weight: Tensor, geometry: tuple[Pair, Pair]) -> Tensor:
    """x - A(y)."""
    return reconstruct(y, -weight, x.shape[-2:], *geometry).add_(x)


def _where_nonzero(gradient: Tensor, code: Tensor) -> Tensor:
    """The gradient with respect to what was shrunk to `code`, in one pass; of codes of both signs or of one."""
    return torch.ops.aten.softshrink_backward(gradient, code, 0.0)


def _plus(total: Tensor | None, part: Tensor) -> Tensor:
    """The sum, in place, of a total that may be nothing yet."""
    return part if total is None else total.add_(part)


def momentum_weights(n: int) -> Iterator[float]:
    """(m_l - 1) / m_(l+1) for l = 1 to n, with m_1 = 1 (Eq. 6); the first weight is 0."""
    m = 1.0
    for _ in range(n):
        m_next = (1 + math.sqrt(1 + 4 * m * m)) / 2
        yield (m - 1) / m_next
        m = m_next
