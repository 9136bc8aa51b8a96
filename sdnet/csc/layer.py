"""The CSC layer: a convolution's place, taken by a sparse coding problem (sections 3.1 and A)."""

import math

import torch
from torch import Tensor, nn

from sdnet.csc.fista import fista
from sdnet.csc.operators import Pair, adjoint, pair, reconstruct
from sdnet.csc.step_size import power_iteration

STEP_SIZE_FACTOR = 0.9  # t = 0.9 / L, section A
WARM_ITERATIONS = 1  # power iterations per parameter update, from the last update's eigenvector


class CSCConv2d(nn.Module):
    """Convolutional sparse coding layer: x -> z* = argmin lmbd ||z||_1 + 1/2 ||x - A(z)||_2^2 (Eq. 4).

    A drop-in for a bias-free `nn.Conv2d` as to shapes: it has no `bias`, `out_channels` or `reset_parameters`.
    `weight` holds one unit-norm atom per output channel. A training loop calls `update_dictionaries(network)` after
    each optimiser step. Whoever puts a dictionary of their own into `weight` calls `project_` and then
    `update_step_size`. In evaluation the layer is a pure function of its state. `lmbd` may be changed at any time and
    touches no weight.

    The step size is that of the largest images which the layer was trained on. It also serves larger ones. The
    exception: if the training images were hardly larger than an atom (deep layers of a network for small images), FISTA
    may diverge on larger ones, until a forward pass in training mode has shown their size and `update_step_size` was
    called.

    Args:
        in_channels: M, channels of the image.
        out_channels: C, number of atoms.
        kernel_size: k, or (height, width).
        stride: distance between neighbouring code positions, in pixels.
        padding: zeros around the image, in pixels.
        lmbd: sparsity weight, in the units of x (section 4: 0.1).
        n_iter: FISTA iterations (section 4: 2).
        nonnegative: codes are constrained to z >= 0, as in the authors' released code.

    Raises:
        ValueError: if lmbd is negative or not finite, or n_iter < 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        *,
        lmbd: float = 0.1,
        n_iter: int = 2,
        nonnegative: bool = False,
    ):
        super().__init__()
        if n_iter != int(n_iter) or n_iter < 1:
            raise ValueError(f"CSCConv2d: n_iter is {n_iter}; it must be a whole number, at least 1 FISTA iteration")
        sizes = (out_channels, in_channels, *pair(kernel_size))
        if min(sizes) < 1:
            raise ValueError(
                f"CSCConv2d: the dictionary would have {' x '.join(map(str, sizes))} entries; channels and kernel_size "
                "must be at least 1 (of an nn.LazyConv2d they are known once the network has run)"
            )
        self.stride, self.padding = pair(stride), pair(padding)
        self.lmbd, self.n_iter, self.nonnegative = lmbd, int(n_iter), nonnegative
        self.weight = nn.Parameter(torch.empty(sizes))
        # ASSUME: uniform Kaiming, then projected, as in the released code; the paper names no initialisation.
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        # image_size is what `update_step_size` works at: the largest height and width of training passes, 3k before
        # any. _seen is the largest since its last call, which sets it back: torch.compile compiles for its value.
        self.image_size = tuple(3 * k for k in pair(kernel_size))
        self._largest = self._seen = (0, 0)
        self.register_buffer("step_size", torch.empty(()))
        # No buffer, though saved, loaded and moved like one: it comes to be of the images' size, and buffers that are
        # averaged or broadcast (AveragedModel, DistributedDataParallel) have to keep theirs.
        self.eigenvector = torch.empty(1, in_channels, 0, 0)
        self.project_()
        self.update_step_size()

    @property
    def lmbd(self) -> float:
        """The sparsity weight; setting it refuses what is negative or not finite."""
        return self._lmbd

    @lmbd.setter
    def lmbd(self, value: float) -> None:
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"lambda is {value}; it must be a finite number of at least 0")
        self._lmbd = float(value)

    def forward(self, x: Tensor) -> Tensor:
        """Codes (N, C, H', W') of images (N, M, H, W)."""
        if self.training:
            self._seen = tuple(map(max, self._seen, x.shape[-2:]))
        return fista(
            x,
            self.weight,
            lmbd=self.lmbd,
            step_size=self.step_size,
            n_iter=self.n_iter,
            stride=self.stride,
            padding=self.padding,
            nonnegative=self.nonnegative,
        )

    def adjoint(self, x: Tensor) -> Tensor:
        """A*(x), codes (N, C, H', W') of images (N, M, H, W) (Eq. 7)."""
        return adjoint(x, self.weight, self.stride, self.padding)

    def reconstruct(self, z: Tensor, output_size: tuple[int, int]) -> Tensor:
        """A(z), images (N, M, H, W) with (H, W) = output_size of codes (N, C, H', W') (Eq. 3)."""
        return reconstruct(z, self.weight, output_size, self.stride, self.padding)

    @torch.no_grad()
    def project_(self) -> None:
        """Scale every atom to unit norm, in place (the constraint set N of section 3.2).

        Raises:
            ValueError: if the dictionary is parametrised or pruned, so that it is computed from something else.
        """
        if "weight" not in self._parameters:
            raise ValueError(
                "the dictionary of a CSC layer is parametrised or pruned, and its atoms cannot be kept at unit norm; "
                "remove the parametrisation, or make it permanent (torch.nn.utils.prune.remove), first"
            )
        norms = self.weight.flatten(1).norm(dim=1).clamp_min(torch.finfo(self.weight.dtype).tiny)
        self.weight.div_(norms.view(-1, 1, 1, 1))

    @torch.no_grad()
    def update_step_size(self, warm: bool = False) -> None:
        """Set t = 0.9 / L from the present atoms (Eqs. 9 and 10), by a power iteration to its tolerance.

        Args:
            warm: the atoms have changed little since the last call, as by an optimiser step: go on from its
                eigenvector with a fixed small number of iterations, so that no training step waits for a
                number from the device. The paper iterates to a tolerance at every update; while atoms change
                fast, L is underestimated so (by how much: docs/differences.md). A call at another image size
                than the last is never warm.
        """
        if any(self._seen):
            self.image_size = self._largest = tuple(map(max, self._largest, self._seen))
            self._seen = (0, 0)
        if self.weight.is_meta:  # it has no numbers; `load_state_dict`, or a call once it has, sets the step size
            return
        options = {"stride": self.stride, "padding": self.padding}
        if warm and tuple(self.eigenvector.shape[-2:]) == self.image_size:
            start = self.eigenvector
            options |= {"n_iter": WARM_ITERATIONS, "tolerance": None}
        else:
            generator = torch.Generator().manual_seed(0)
            size = (1, self.weight.shape[1], *self.image_size)
            start = torch.randn(size, generator=generator, device="cpu").to(self.weight)
        lipschitz, eigenvector = power_iteration(self.weight, start, **options)
        if eigenvector.shape == self.eigenvector.shape:
            self.eigenvector.copy_(eigenvector)  # in place, as a recorded training step needs it
        else:
            with torch.inference_mode(False):  # a training writes into it later
                self.eigenvector = eigenvector.clone()
        self.step_size.copy_(STEP_SIZE_FACTOR / lipschitz)

    def extra_repr(self) -> str:
        """The settings, for `print(model)`."""
        c, m, *kernel = self.weight.shape
        return (
            f"{m}, {c}, kernel_size={tuple(kernel)}, stride={self.stride}, padding={self.padding}, "
            f"lmbd={self.lmbd:g}, n_iter={self.n_iter}, nonnegative={self.nonnegative}"
        )

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        self.eigenvector = fn(self.eigenvector)
        return self

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "eigenvector"] = self.eigenvector

    def _load_from_state_dict(self, state_dict, prefix, *args):
        weight, eigenvector = state_dict.get(prefix + "weight"), state_dict.pop(prefix + "eigenvector", None)
        super()._load_from_state_dict(state_dict, prefix, *args)
        if weight is not None and weight.shape != self.weight.shape:
            return  # torch says so
        if eigenvector is not None:  # its size is that of the images which the saved layer was trained on
            with torch.inference_mode(False):  # a training writes into it later
                self.eigenvector = eigenvector.to(self.weight, copy=True)  # in the same layout, or other bits follow
            self.image_size = tuple(eigenvector.shape[-2:])
            self._largest = self._seen = (0, 0)
        elif weight is not None:  # a dictionary from elsewhere
            self.update_step_size()
