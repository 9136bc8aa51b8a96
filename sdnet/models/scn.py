"""Supervised deep sparse coding networks: the patch-based sparse coding layer, SCN, and SCN-18.

Source: X. Sun, N. Nasrabadi, T. Tran, "Supervised deep sparse coding networks", ICIP 2018, arXiv 1701.08349, and
its authors' code for the settings the text leaves out. SCN-18 exists in the SDNet paper alone (Table 1).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdnet.models.resnet import ResNet, resnet18
from sdnet.models.sparse_code import sparse_code

# One patch in 17 is checked for convergence; the prime lets every row and column of an image have its turn.
_CHECKED = 17
_CONVERGED = 1e-3  # optimality that 50 float32 iterations reach on the SCN's own shapes


class SparseCoding2d(nn.Module):
    """Patch-based sparse coding: each k x k x C_in patch y of the input becomes N non-negative coefficients,

        argmin over z >= 0 of 1/2 ||y - A z||^2 + lambda1 sum(z) + lambda2/2 ||z||^2.

    A drop-in for a bias-free `nn.Conv2d` with padding k // 2. lambda1 is one learned scalar per layer. Works in
    float32 also inside an autocast region, for the active set is sensitive to rounding. After each optimiser step
    the training loop calls `project_`.

    Args:
        in_channels: channels of the input, C_in.
        out_channels: number of atoms N.
        kernel_size: side k of a patch, in pixels.
        stride: distance between neighbouring patches, in pixels.
        lambda1: initial weight of the l1 norm.
        lambda2: weight of the squared l2 norm, fixed.
        unit_norm: atoms start at unit norm and `project_` restores it; else they are free.
        n_iter: iterations of the solver.
        n_backward: conjugate gradient steps of the backward solve.

    Raises:
        ValueError: if lambda1 or lambda2 is negative, or both are 0 and there are more atoms than numbers in a
            patch, so that the codes are not unique.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        *,
        lambda1: float = 0.0,
        lambda2: float = 0.0,
        unit_norm: bool = False,
        n_iter: int = 50,
        n_backward: int = 20,
    ):
        super().__init__()
        patch = in_channels * kernel_size**2
        if min(lambda1, lambda2) < 0:
            raise ValueError(f"SparseCoding2d: lambda1 = {lambda1} and lambda2 = {lambda2} must not be negative")
        if out_channels > patch and lambda1 == lambda2 == 0:
            raise ValueError(
                f"SparseCoding2d: {out_channels} atoms for patches of {patch} numbers have no unique code with "
                f"lambda1 = lambda2 = 0; use at most {patch} atoms or give a positive lambda2, e.g. 0.1"
            )
        self.stride, self.lambda2, self.unit_norm = stride, lambda2, unit_norm
        self.n_iter, self.n_backward = n_iter, n_backward
        # N(0, 1) entries divided by 9 C_in, as in the authors' code.
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size) / patch)
        self.lambda1 = nn.Parameter(torch.tensor(float(lambda1)))
        self.register_buffer("_checks", torch.zeros(4), persistent=False)
        self.project_()

    def forward(self, x: Tensor) -> Tensor:
        """Codes (B, N, H', W') of x (B, C_in, H, W), float32 for an input of lower precision."""
        n_atoms, kernel_size = self.weight.shape[0], self.weight.shape[-1]
        with torch.autocast(x.device.type, enabled=False):
            # lambda1 enters as the bias of a convolution with the atoms: no patch matrix is formed.
            q = F.conv2d(
                x.to(self.weight.dtype), self.weight, -self.lambda1.expand(n_atoms), self.stride, kernel_size // 2
            ).permute(0, 2, 3, 1)
            gram, rows = self._gram(), q.reshape(-1, n_atoms)
            z = sparse_code(gram, rows, lambda2=self.lambda2, n_iter=self.n_iter, n_backward=self.n_backward)
            self._check(gram.detach(), rows.detach()[::_CHECKED], z.detach()[::_CHECKED])
        return z.view(q.shape).permute(0, 3, 1, 2)

    def _gram(self) -> Tensor:
        atoms = self.weight.flatten(1)
        return atoms @ atoms.T + self.lambda2 * torch.eye(len(atoms), dtype=atoms.dtype, device=atoms.device)

    @torch.no_grad()
    def project_(self) -> None:
        """Clamp lambda1 at 0 and, for `unit_norm`, scale the atoms to norm 1."""
        self.lambda1.clamp_(min=0)
        if self.unit_norm:
            self.weight.copy_(F.normalize(self.weight.flatten(1)).view_as(self.weight))

    def _check(self, gram: Tensor, q: Tensor, z: Tensor) -> None:
        slope = q - z @ gram
        residual = torch.where(z > 0, slope.abs(), slope.relu()).amax(1)
        residual = residual / q.abs().amax(1).clamp(min=torch.finfo(q.dtype).tiny)
        checks = (torch.ones_like(residual), residual > _CONVERGED, residual, (z > 0).to(z.dtype).mean(1))
        self._checks += torch.stack([check.sum() for check in checks])

    def solver_report(self) -> dict[str, float]:
        """State of the layer, averaged over the patches checked since the last call; waits for the device.

        `residual` is the violation of the optimality conditions relative to the patch's largest abs(q),
        `unconverged` the share of patches where it exceeds 1e-3, `active` the share of coefficients that are not 0; all
        nan if no patch was coded. `lambda1` and `condition` (of A^T A + lambda2 I) are those of the present weights.
        """
        means = (self._checks[1:] / self._checks[0]).tolist()
        self._checks.zero_()
        eigenvalues = torch.linalg.eigvalsh(self._gram().detach().double())
        return dict(zip(("unconverged", "residual", "active"), means, strict=True)) | {
            "lambda1": self.lambda1.item(),
            "condition": (eigenvalues[-1] / eigenvalues[0].clamp(min=torch.finfo(torch.double).tiny)).item(),
        }

    def extra_repr(self) -> str:
        """The settings, for `print(model)`."""
        n, c, k, _ = self.weight.shape
        return f"{c}, {n}, kernel_size={k}, stride={self.stride}, lambda2={self.lambda2}, n_iter={self.n_iter}"


class SCN(nn.Module):
    """The SCN for CIFAR: seven bottlenecks of a slim and a wide sparse coding layer, and a linear classifier.

    The slim dictionaries have width/4, width/2 and width atoms in the three stages, the wide ones four times as
    many. Every layer is preceded by a batch norm without parameters; there is no ReLU and no shortcut.

    Args:
        num_classes: size of the output.
        width: atoms of the last stage's slim dictionaries, a multiple of 4, at most 36 times the channels of the
            images; 64 in the paper (0.7M parameters).
        in_channels: channels of the images.

    Raises:
        ValueError: if the width is not such a number.
    """

    def __init__(self, num_classes: int, *, width: int = 64, in_channels: int = 3):
        super().__init__()
        largest = 36 * in_channels  # a first patch has 9 numbers a channel, and no more atoms: a quarter of the width
        if width % 4 or width > largest:
            raise ValueError(
                f"SCN: given width {width}; {in_channels}-channel images need a multiple of 4, at most {largest}"
            )
        layers, channels = [], in_channels
        for slim, modules, first_stride in ((width // 4, 3, 1), (width // 2, 2, 2), (width, 2, 2)):
            for module in range(modules):
                for atoms, stride in ((slim, 1 if module else first_stride), (4 * slim, 1)):
                    layers += [_batch_norm(channels), SparseCoding2d(channels, atoms, stride=stride)]
                    channels = atoms
        self.features = nn.Sequential(*layers, _batch_norm(channels))
        self.classifier = nn.Linear(channels, num_classes)
        nn.init.normal_(self.classifier.weight, std=1 / channels)  # both as in the authors' code
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, in_channels, H, W)."""
        return self.classifier(self.features(x).mean((2, 3)))


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    # The authors' code averages the biased standard deviation, not the variance: a detail we leave out.
    return nn.BatchNorm2d(channels, eps=1e-4, affine=False)


def scn(num_classes: int, *, width: int = 64, small_input: bool = True, in_channels: int = 3) -> SCN:
    """SCN; options as in `SCN`.

    Raises:
        ValueError: if small_input is False: the SCN for large images is another network, not built here.
    """
    if not small_input:
        raise ValueError("scn is built for small images only; take scn18 for larger ones")
    return SCN(num_classes, width=width, in_channels=in_channels)


def scn18(num_classes: int, **options) -> ResNet:
    """SCN-18: ResNet-18 whose first convolution is a sparse coding layer; options as in `ResNet`.

    64 atoms in 27 dimensions are overcomplete, so that the SCN's own setting lambda1 = lambda2 = 0 has no unique
    code and no usable gradient.
    """
    model = resnet18(num_classes, **options)
    conv = model.conv1
    # ASSUME: unit-norm atoms as in SDNet, lambda1 learned from SDNet's 0.1, lambda2 = 0.1 (well-conditioned active
    # sets), no batch norm before the layer and no ReLU behind its codes >= 0 and their batch norm; the paper says only
    # that the layer is SCN's.
    model.conv1 = SparseCoding2d(
        conv.in_channels,
        conv.out_channels,
        *(conv.kernel_size[0], conv.stride[0]),
        lambda1=0.1,
        lambda2=0.1,
        unit_norm=True,
        n_backward=30,
    )
    model.relu = nn.Identity()
    return model
