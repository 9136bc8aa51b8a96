"""Multiscale deep equilibrium model (MDEQ).

Source: S. Bai, V. Koltun, J. Z. Kolter, "Multiscale deep equilibrium models", NeurIPS 2020, arXiv 2006.08656, with
the settings of its first released code (CIFAR-10, "large"): the paper's own appendix departs from them.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm
from torchdeq import get_deq

PRETRAIN = 20_000 / (220 * 391)  # the first release: 20,000 of the steps of 220 epochs of CIFAR at batch size 128
UNROLLED_STEPS = 10  # applications of f from 0 in the pretraining phase


class Branch(nn.Module):
    """One resolution's residual block inside f."""

    def __init__(self, channels: int, expansion: int, groups: int):
        super().__init__()
        inner = expansion * channels
        self.conv1 = weight_norm(_conv3x3(channels, inner))
        self.norm1 = nn.GroupNorm(groups, inner)
        self.conv2 = weight_norm(_conv3x3(inner, channels))
        self.norm2 = nn.GroupNorm(groups, channels)
        self.norm3 = nn.GroupNorm(groups, channels)

    def forward(self, z: Tensor, injection: Tensor | None, mask: Tensor | None) -> Tensor:
        """State (N, c, H, W) after the block, before the fusion; None stands for a zero injection, a mask of 1."""
        out = self.conv2(self.norm1(self.conv1(z)).relu())
        if mask is not None:
            out = out * mask
        if injection is not None:
            out = out + injection
        return self.norm3((self.norm2(out) + z).relu())


class Equilibrium(nn.Module):
    """The function f(z, u) whose fixed point is the network's hidden state: branches, fusion, post-fusion."""

    def __init__(self, channels: Sequence[int], expansion: int, groups: int):
        super().__init__()
        self.branches = nn.ModuleList(Branch(c, expansion, groups) for c in channels)
        self.fusion = nn.ModuleList(
            nn.ModuleList(_resample(channels, j, i, groups) for j in range(len(channels))) for i in range(len(channels))
        )
        self.post = nn.ModuleList(
            nn.Sequential(nn.ReLU(), weight_norm(_conv1x1(c, c)), nn.GroupNorm(groups // 2, c)) for c in channels
        )

    def forward(self, z: Sequence[Tensor], u: Tensor, masks: Sequence[Tensor | None]) -> list[Tensor]:
        """f(z, u): the branches' states (N, c_i, H / 2^i, W / 2^i); u enters the finest branch only."""
        injections = [u] + [None] * (len(z) - 1)
        h = [branch(*inputs) for branch, *inputs in zip(self.branches, z, injections, masks, strict=True)]
        return [
            post(sum(resample(h_j) for resample, h_j in zip(fusion, h, strict=True)))
            for post, fusion in zip(self.post, self.fusion, strict=True)
        ]

    def weights(self) -> list[Tensor]:
        """The normalised weights g v / ||v|| of the branches' and the post-fusion convolutions."""
        return [module.weight for module in self.modules() if parametrize.is_parametrized(module)]


class Bottleneck(nn.Module):
    """Residual block of the head, c -> 4h channels."""

    def __init__(self, in_channels: int, hidden: int):
        super().__init__()
        out_channels = 4 * hidden
        self.body = nn.Sequential(
            *(_conv1x1(in_channels, hidden), nn.BatchNorm2d(hidden, affine=False), nn.ReLU()),
            *(_conv3x3(hidden, hidden), nn.BatchNorm2d(hidden, affine=False), nn.ReLU()),
            *(_conv1x1(hidden, out_channels), nn.BatchNorm2d(out_channels, affine=False)),
        )
        self.shortcut = nn.Sequential(_conv1x1(in_channels, out_channels), nn.BatchNorm2d(out_channels))

    def forward(self, z: Tensor) -> Tensor:
        """Features (N, 4h, H, W) of one branch's state (N, c, H, W)."""
        return (self.body(z) + self.shortcut(z)).relu()


class MDEQ(nn.Module):
    """MDEQ: logits from the fixed point z = f(z, u) of one multiscale block, u the stem's features of the image.

    The fixed point is sought by Broyden's method from 0 and differentiated implicitly, both by torchdeq, in float32
    also inside an autocast region. In the first part of a training, `pretrain`, if it calls `set_progress`
    before each step, ten unrolled applications of f take the solver's place; evaluation always uses the solver.

    Args:
        num_classes: size of the output.
        channels: of the branches, each at half the resolution of the one before.
        head_channels: hidden channels of each branch's head block.
        final_channels: features before the classifier.
        in_channels: channels of the images.
        expansion: of the channels inside a branch.
        groups: of the group norms, an even number; half as many after the fusion.
        dropout: share of the channels dropped, the same ones in every application of f in a training step.
        pretrain: share of the training, 0 to 1, that unrolls f.
        f_max_iter: Broyden steps, forward and backward.
        f_tol: root mean square of f(z) - z per image at which the forward solve stops.
        b_tol: the same of the backward solve; the default is the first release's and never reached.

    Raises:
        ValueError: if the groups are not even, or a branch's channels are no multiple of them.
    """

    waits_for_gpu = True  # for whether the solver has converged

    def __init__(
        self,
        num_classes: int,
        channels: Sequence[int],
        head_channels: Sequence[int],
        final_channels: int,
        *,
        in_channels: int = 3,
        expansion: int = 5,
        groups: int = 8,
        dropout: float = 0.3,
        pretrain: float = PRETRAIN,
        f_max_iter: int = 18,
        f_tol: float = 1e-5,
        b_tol: float = 2e-10,
    ):
        super().__init__()
        if groups < 2 or groups % 2:
            raise ValueError(f"MDEQ: groups must be 2, 4, ..., since half as many follow the fusion, not {groups}")
        if any(c % groups for c in channels):
            raise ValueError(f"MDEQ: every branch's channels must be a multiple of {groups}, not {tuple(channels)}")
        self.channels, self.dropout = tuple(channels), dropout
        self.f_max_iter, self.f_tol, self.b_tol = f_max_iter, f_tol, b_tol
        self.pretrain, self.unrolled = pretrain, False
        finest = channels[0]
        self.stem = nn.Sequential(
            *(_conv3x3(in_channels, finest), nn.BatchNorm2d(finest), nn.ReLU()),
            *(_conv3x3(finest, finest), nn.BatchNorm2d(finest), nn.ReLU()),
        )
        if len(channels) > 2:
            self.stem.extend((_conv1x1(finest, finest), nn.BatchNorm2d(finest), nn.ReLU()))
        self.f = Equilibrium(channels, expansion, groups)
        self.bottlenecks = nn.ModuleList(Bottleneck(c, h) for c, h in zip(channels, head_channels, strict=True))
        self.downsample = nn.ModuleList(
            nn.Sequential(nn.Conv2d(4 * fine, 4 * coarse, 3, 2, 1), nn.BatchNorm2d(4 * coarse), nn.ReLU())
            for fine, coarse in pairwise(head_channels)
        )
        self.final = nn.Sequential(
            nn.Conv2d(4 * head_channels[-1], final_channels, 1), nn.BatchNorm2d(final_channels), nn.ReLU()
        )
        self.classifier = nn.Linear(final_channels, num_classes)
        for module in self.modules():
            # Weight-normed convolutions keep PyTorch's initialisation: the released code writes 0.01 to a derived
            # tensor that is then recomputed.
            if isinstance(module, nn.Conv2d) and not parametrize.is_parametrized(module):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.normal_(module.bias, std=0.01)
        self.register_buffer("_forward_stats", torch.zeros(4), persistent=False)
        self.register_buffer("_backward_stats", torch.zeros(2), persistent=False)

    def set_progress(self, progress: float) -> None:
        """Tell the network which share of the training, 0 to 1, is done: it leaves the unrolled phase at `pretrain`."""
        self.unrolled = progress < self.pretrain

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes) of images (N, in_channels, H, W).

        Raises:
            ValueError: if a side of the images cannot be halved once for each branch but the first.
        """
        scale = 2 ** (len(self.channels) - 1)
        if x.shape[2] % scale or x.shape[3] % scale:
            raise ValueError(
                f"MDEQ: images of {x.shape[2]} x {x.shape[3]} pixels do not halve evenly to its "
                f"{len(self.channels)} branches; both sides must be multiples of {scale}"
            )
        u = self.stem(x)
        with torch.autocast(x.device.type, enabled=False):
            z = self.equilibrium(u.to(self.classifier.weight.dtype))
        y = self.bottlenecks[0](z[0])
        for downsample, bottleneck, z_i in zip(self.downsample, self.bottlenecks[1:], z[1:], strict=True):
            y = bottleneck(z_i) + downsample(y)
        return self.classifier(self.final(y).mean((2, 3)))

    def equilibrium(self, u: Tensor) -> list[Tensor]:
        """The fixed point, one state (N, c_i, H / 2^i, W / 2^i) per branch, of the injection u (N, c_0, H, W)."""
        n, _, height, width = u.shape
        z = [u.new_zeros(n, c, height >> i, width >> i) for i, c in enumerate(self.channels)]
        masks = [self._mask(u, c) for c in self.channels]
        with parametrize.cached():
            # One normalisation of the weights serves all applications of f. It has to happen here: the solver's
            # run without gradients, and would cache weights that pass none on.
            self.f.weights()
            if self.training and self.unrolled:
                for _ in range(UNROLLED_STEPS):
                    z = self.f(z, u, masks)
                return z
            return self._solve(z, u, masks)

    def _mask(self, u: Tensor, channels: int) -> Tensor | None:
        if not (self.training and self.dropout):
            return None
        keep = 1 - self.dropout
        return u.new_empty(len(u), channels, 1, 1).bernoulli_(keep) / keep

    def _solve(self, z: list[Tensor], u: Tensor, masks: list[Tensor | None]) -> list[Tensor]:
        numbers = math.sqrt(sum(z_i[0].numel() for z_i in z))
        # Built anew for each call: the tolerance is one on the norm and depends on the size of the images.
        # ASSUME: the solver stays in its training mode, which ends in one more application of f and attaches the
        # implicit gradient. So evaluation, training and an attack's gradients all see the same network.
        deq = get_deq(
            f_solver="broyden",
            b_solver="broyden",
            f_max_iter=self.f_max_iter,
            b_max_iter=self.f_max_iter,
            f_tol=self.f_tol * numbers,
            b_tol=self.b_tol * numbers,
            ift=True,
        )
        states, info = deq(
            lambda *z: self.f(z, u, masks),
            z,
            backward_writer=lambda info: self._backward_stats.add_(_sums(info["rel_lowest"])),
        )
        unconverged = info["abs_lowest"] > deq.f_tol
        self._forward_stats += _sums(info["rel_lowest"], unconverged, info["nstep"])
        return states[-1]

    def solver_report(self) -> dict[str, float]:
        """State of the solvers, averaged over the images since the last call; waits for the device.

        `unconverged` is the share of images above the tolerance, `residual` ||f(z) - z|| / ||f(z)||, `solver_steps`
        the step of the best iterate, `backward_residual` the residual of the implicit gradient; nan if none was sought.
        """
        keys = ("residual", "unconverged", "solver_steps", "backward_residual")
        report = dict(zip(keys, (*_means(self._forward_stats), *_means(self._backward_stats)), strict=True))
        self._forward_stats.zero_()
        self._backward_stats.zero_()
        return report


def _sums(*stats: Tensor) -> Tensor:
    """The number of images, and the sum over them of each statistic."""
    return torch.stack([torch.ones_like(stats[0]), *stats]).sum(1)


def _means(sums: Tensor) -> list[float]:
    return (sums[1:] / sums[0]).tolist()


def _conv1x1(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 1, bias=False)


def _conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)


def _resample(channels: Sequence[int], j: int, i: int, groups: int) -> nn.Module:
    """From branch j to branch i: upsampling of a coarser one, strided convolutions of a finer one."""
    if j == i:
        return nn.Identity()
    if j > i:
        return nn.Sequential(
            _conv1x1(channels[j], channels[i]),
            nn.GroupNorm(groups, channels[i]),
            nn.Upsample(scale_factor=2 ** (j - i)),
        )
    layers = []
    for _ in range(i - j - 1):
        layers += [_conv3x3(channels[j], channels[j], stride=2), nn.GroupNorm(groups, channels[j]), nn.ReLU()]
    layers += [_conv3x3(channels[j], channels[i], stride=2), nn.GroupNorm(groups, channels[i])]
    return nn.Sequential(*layers)


def mdeq(num_classes: int, *, width: int = 64, small_input: bool = True, in_channels: int = 3) -> MDEQ:
    """MDEQ of four branches, "large" at width 64 (11.1M parameters); all channel numbers scale with the width.

    Raises:
        ValueError: if width is not a multiple of 16, or small_input is False: the MDEQ for large images is another
            network, not built here.
    """
    if not small_input:
        raise ValueError("mdeq is built for small images only; take a ResNet or an SDNet for larger ones")
    if width % 16:
        raise ValueError(f"mdeq: width {width} is not a multiple of 16, as its group norms need")
    channels = [width // 2 * 2**i for i in range(4)]
    return MDEQ(
        num_classes,
        channels,
        head_channels=[7 * c // 16 for c in channels],
        final_channels=105 * width // 4,
        in_channels=in_channels,
    )
