"""Non-negative sparse codes of patches, the solver of an SCN layer, and the gradient of its solution."""

from collections.abc import Iterator

import torch
from torch import Tensor

from sdnet.csc.fista import momentum_weights

# The solvers work on a slice of the patches at a time, with half a dozen buffers of so many numbers: on a CPU they
# stay in the core's cache; on a GPU the slice only bounds the memory, at 16 MB a buffer.
_CPU_SLICE, _GPU_SLICE = 2**16, 2**22


def sparse_code(gram: Tensor, q: Tensor, *, lambda2: float, n_iter: int, n_backward: int) -> Tensor:
    """Non-negative sparse codes of many patches that share one dictionary A, by accelerated proximal gradient.

    Each row of the result minimises 1/2 ||y - A z||^2 + lambda1 sum(z) + lambda2/2 ||z||^2 over z >= 0, which
    depends on the patch y through q = A^T y - lambda1 alone. FISTA from z = 0 with step 1/L; lambda2 > 0 makes the
    problem strongly convex and the momentum constant, which saves more than half of the iterations.

    The gradient is that of the minimiser, not of the iterations (Mairal, Bach, Ponce 2012): with g the gradient of
    z and S the active set, q receives beta_S = G_SS^-1 g_S, zero off S, and G receives -1/2 (beta z^T + z beta^T).
    A patch whose backward solve breaks down contributes nothing.

    Args:
        gram: G = A^T A + lambda2 I, (N, N).
        q: A^T y - lambda1, a patch a row, (P, N).
        lambda2: weight of the squared norm, as contained in `gram`.
        n_iter: iterations of the solver.
        n_backward: conjugate gradient steps of the backward solve.

    Returns:
        codes, (P, N), non-negative.
    """
    return _SparseCode.apply(gram, q, lambda2, n_iter, n_backward)


class _SparseCode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gram, q, lambda2, n_iter, n_backward):
        lipschitz = largest_eigenvalue(gram)
        weights = _extrapolation(n_iter, lambda2, lipschitz)
        step = torch.eye(len(gram), dtype=gram.dtype, device=gram.device) - gram / lipschitz
        z = torch.empty_like(q)
        for rows in _slices(q):
            z[rows] = _fista(step, q[rows] / lipschitz, weights)
        ctx.save_for_backward(gram, z, lipschitz)
        ctx.n_backward = n_backward
        return z

    @staticmethod
    def backward(ctx, grad):
        if torch.is_grad_enabled():
            raise RuntimeError("sparse_code: create_graph=True asks for a second derivative; there is the first alone")
        gram, z, lipschitz = ctx.saved_tensors
        # Dependent atoms make G_SS singular. A ridge keeps the solution finite; relative to the scale of G and to
        # the precision, in float32 it is about the 1e-6 of the authors' code.
        ridge = 10 * torch.finfo(gram.dtype).eps * lipschitz
        ridged = gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        beta = torch.empty_like(z)
        outer = torch.zeros_like(gram)
        for rows in _slices(z):
            active = (z[rows] > 0).to(z.dtype)
            beta[rows] = _masked_conjugate_gradients(ridged, grad[rows], active, ridge, ctx.n_backward)
            outer.addmm_(beta[rows].T, z[rows])
        return -0.5 * (outer + outer.T), beta, None, None, None


def largest_eigenvalue(gram: Tensor) -> Tensor:
    """Upper bound, a 0-dimensional tensor, of the largest eigenvalue of a positive semidefinite (N, N) matrix.

    The Frobenius norm of the matrix's 128th power, to the power 1/128: at most N^(1/256) times the eigenvalue, 2%
    too large for N = 256. Unlike an eigenvalue routine it never makes the host wait for the GPU.
    """
    tiny = torch.finfo(gram.dtype).tiny
    norm = bound = gram.norm().clamp(min=tiny)
    for squarings in range(1, 8):
        gram = gram / norm
        gram = gram @ gram
        norm = gram.norm().clamp(min=tiny)
        bound = bound * norm ** (0.5**squarings)
    return bound.clamp(min=tiny)  # of a dictionary of zeros


def _slices(rows: Tensor) -> Iterator[slice]:
    numbers = _GPU_SLICE if rows.is_cuda else _CPU_SLICE * torch.get_num_threads()
    length = max(1, numbers // rows.shape[1])
    return (slice(start, start + length) for start in range(0, len(rows), length))


def _extrapolation(n_iter: int, lambda2: float, lipschitz: Tensor) -> list:
    """Weights w of v = z_old + w (z - z_old), the point from which each iteration but the first starts."""
    if lambda2 > 0:
        return [2 / (1 + (lambda2 / lipschitz).sqrt())] * (n_iter - 1)
    return [1 + weight for weight in momentum_weights(n_iter - 1)]


def _fista(step: Tensor, b: Tensor, weights: list) -> Tensor:
    """Rows z after 1 + len(weights) iterations z = max(0, v step + b) from z = 0."""
    z, z_old, v = b.relu(), torch.zeros_like(b), torch.empty_like(b)
    for weight in weights:
        torch.lerp(z_old, z, weight, out=v)
        torch.addmm(b, v, step, out=z_old).relu_()
        z, z_old = z_old, z
    return z


def _masked_conjugate_gradients(gram: Tensor, g: Tensor, active: Tensor, ridge: Tensor, n_steps: int) -> Tensor:
    """Rows beta with G_SS beta_S = g_S and zero off S, the active set of each row, given as a 0-1 mask."""
    tiny = torch.finfo(g.dtype).tiny
    residual = g * active
    direction = residual.clone()
    beta, image, product = torch.zeros_like(g), torch.empty_like(g), torch.empty_like(g)
    first = squared = _squared_norms(residual)
    for _ in range(n_steps):
        torch.mm(direction, gram, out=image).mul_(active)
        curvature = torch.mul(direction, image, out=product).sum(1, keepdim=True)
        # In exact arithmetic the curvature is at least ridge * squared.
        length = squared / curvature.clamp_(min=tiny).maximum(ridge * squared)
        beta.addcmul_(length, direction)
        residual.addcmul_(length, image, value=-1)
        previous, squared = squared, _squared_norms(residual)
        torch.addcmul(residual, squared / previous.clamp(min=tiny), direction, out=direction)
    return torch.where(squared <= first, beta, 0)


def _squared_norms(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=1, keepdim=True).square_()
