"""Projected gradient descent on the pixels (Madry et al., 2018), with a record of every image (section 4.3).

From a random point of the ball around an image x, with g the gradient of the loss at x_k,

    x_(k+1) = clip(project(x_k + step_size * direction(g)), 0, 1)

where direction(g) is sign(g) in the L-inf norm and g / ||g||_2 in the L2 norm. The ball comes first and the box
second: clipping brings no pixel farther from x, since x is in the box.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from numbers import Integral

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdnet.csc import use_lambda
from sdnet.data.loaders import derive_seed
from sdnet.robustness.adaptive_attacks import AlgorithmOne
from sdnet.robustness.batches import Batches, as_input, labelled
from sdnet.robustness.outcome import Outcome, check_radius, checked_batch, frozen_in_float32, judge, margin


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """The loss of each image, (N,), in nats."""
    return F.cross_entropy(logits, y, reduction="none")


STEP_SIZE = 2.5  # eps / steps: from anywhere in the ball its other side can be reached
LOSSES = {"cross-entropy": cross_entropy, "margin": margin}


@dataclass(frozen=True)
class PGD:
    """An attack. Distances are in pixels of [0, 1], in which 8 grey levels are 8/255.

    Attributes:
        norm: "linf" or "l2".
        eps: radius of the ball.
        steps: number of gradient steps.
        step_size: length of a step, in the same norm.
        loss: what is ascended, "cross-entropy" or "margin".
        restarts: how often to start anew; from the second on, only for images that are not broken yet.
        success: an image is broken if "any" iterate is misclassified, or only if the "last" one is.
        seed: with the restart and the position of the image, that of the random start.

    Raises:
        ValueError: if the norm, loss or success is unknown, or a number is out of its range.
    """

    norm: str
    eps: float
    steps: int
    step_size: float
    loss: str = "cross-entropy"
    restarts: int = 1
    success: str = "any"
    seed: int = 0

    def __post_init__(self):
        for field, allowed in {"norm": ("linf", "l2"), "loss": tuple(LOSSES), "success": ("any", "last")}.items():
            if (given := getattr(self, field)) not in allowed:
                raise ValueError(f"PGD: {field} {given!r} is unknown; choose {' or '.join(map(repr, allowed))}")
        check_radius("PGD", self.eps, self.norm)
        counts = {"steps": (self.steps, 1), "restarts": (self.restarts, 1), "seed": (self.seed, 0)}
        for field, (given, least) in counts.items():
            if not isinstance(given, Integral) or given < least:
                raise ValueError(f"PGD: {field} is {given}; give a whole number of at least {least}")
        if not (0 < self.step_size < math.inf or self.eps == self.step_size == 0):
            raise ValueError(f"PGD: step_size is {self.step_size}; give a positive length, such as 2.5 * eps / steps")


@dataclass(frozen=True)
class Attacked(Outcome):
    """With the course of the attack; where there were several restarts, of the one that `images` are from."""

    first_broken_step: np.ndarray  # 0: the start already was misclassified; -1: no iterate was
    losses: np.ndarray  # (N, steps + 1), that of the start first

    @property
    def loss_start(self) -> np.ndarray:
        """The loss of each image at its random start, (N,)."""
        return self.losses[:, 0]

    @property
    def loss_end(self) -> np.ndarray:
        """The loss of each image at the last iterate, (N,)."""
        return self.losses[:, -1]


def attack(
    model: nn.Module,
    batches: Batches,
    settings: PGD,
    *,
    lambdas: Sequence[float] | None = None,
    starts: np.ndarray | Tensor | None = None,
    indices: Sequence[int] | None = None,
) -> Attacked:
    """Attack a network as it stands: at the lambda that it has, or has within `use_lambda`.

    The network is attacked in evaluation mode and float32, without autocast or TF32, and left as it was found.
    Of each image the candidate with the largest margin is returned, the candidates being every iterate, or the
    last one of every restart (`PGD.success`). Its errors are counted again at the end.

    Args:
        model: takes images in [0, 1], (N, channels, H, W), normalises them itself, and gives logits.
        batches: of images and labels, as `evaluate_at` takes them; read once.
        settings: the attack.
        lambdas: ascend the sum of the losses at these sparsity weights; success is judged at the network's own.
        starts: images (N, channels, H, W), all batches together, to start from the first time; projected.
        indices: position of each image in its data set, if not 0, 1, ...; random starts depend on nothing else
            of a batch.

    Raises:
        ValueError: if there is no batch, lambdas are given for `AlgorithmOne`, there are fewer starts or indices than
            images, these are not in [0, 1], labels are no classes of the network, its logits are not finite or do not
            depend on the image, or eps exceeds the diameter of all images.
    """
    if lambdas is not None and isinstance(model, AlgorithmOne):
        raise ValueError("attack: lambdas goes with a network at a lambda of its own; AlgorithmOne chooses another")
    if lambdas is not None and not len(lambdas):
        raise ValueError("attack: lambdas is empty; give one value at least, or None for the network's own lambda")
    parts, seen = [], 0
    with frozen_in_float32(model):
        for batch in batches:
            images, labels = labelled(batch, "attack")
            x, y, clean = checked_batch(model, images, labels)
            if settings.eps > math.sqrt(x[0].numel()):
                raise ValueError(
                    f"PGD: eps is {settings.eps}, more than lies between any two images of {x[0].numel()} values in "
                    "[0, 1]; is it in grey levels?"
                )
            rows = np.arange(seen, seen + len(x))
            seen += len(x)
            for name, given in {"indices": indices, "starts": starts}.items():
                if given is not None and len(given) < seen:
                    raise ValueError(
                        f"attack: there are {len(given)} {name} for {seen} images or more; give one for each"
                    )
            positions = rows if indices is None else np.asarray(indices)[rows]
            start = None if starts is None else as_input(starts[rows], model).detach()
            if start is not None and start.shape != x.shape:
                raise ValueError(f"attack: starts of shape {tuple(start.shape)} for images of {tuple(x.shape)}")
            run = _best_of_restarts(model, x, y, positions, settings, lambdas, start)
            judged = judge(model, x, y, clean, run.pop("images"), settings.norm, settings.eps)
            course = {name: run[name].cpu().numpy() for name in ("first_broken_step", "losses")}
            parts.append(Attacked(index=positions, **judged, **course))
    if not parts:
        raise ValueError("attack: there is no batch; give images, and no iterator that is used up already")
    return Attacked(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Attacked)})


def project(delta: Tensor, norm: str, eps: float) -> Tensor:
    """The nearest perturbations (N, channels, H, W) of norm at most eps."""
    if norm == "linf":
        return delta.clamp(-eps, eps)
    return delta * (eps / _l2(delta).clamp_min(1e-12)).clamp_max(1)


def direction(gradient: Tensor, norm: str) -> Tensor:
    """The steepest ascent of unit length in the norm, image by image; zero where the gradient is."""
    if norm == "linf":
        return gradient.sign()
    tiny = torch.finfo(gradient.dtype).tiny
    scaled = gradient / gradient.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(tiny)  # its squares do not underflow
    return scaled / _l2(scaled).clamp_min(tiny)


def random_start(shape: Sequence[int], settings: PGD, restart: int, index: int) -> Tensor:
    """A perturbation drawn uniformly from the ball, for one image, on the CPU."""
    seed = derive_seed(settings.seed, zlib.crc32(b"pgd"), restart, int(index))
    generator = torch.Generator().manual_seed(seed)
    if settings.norm == "linf":
        return settings.eps * (2 * torch.rand(shape, generator=generator, device="cpu") - 1)
    towards = torch.randn(shape, generator=generator, device="cpu")
    radius = settings.eps * torch.rand((), generator=generator, device="cpu") ** (1 / towards.numel())
    return radius * towards / towards.norm()


def _best_of_restarts(model, x, y, positions, settings, lambdas, start) -> dict[str, Tensor]:
    rows = torch.arange(len(x), device=x.device)
    for restart in range(settings.restarts):
        if restart or start is None:
            draws = [random_start(x.shape[1:], settings, restart, positions[i]) for i in rows.tolist()]
            delta = torch.stack(draws).to(x)
        else:
            delta = project(start - x, settings.norm, settings.eps)
        run = _ascend(model, x[rows], y[rows], delta, settings, lambdas)
        if restart == 0:
            best = run
        else:
            better = run["margin"] > best["margin"][rows]
            for name, values in run.items():
                best[name][rows[better]] = values[better]
        rows = (best["margin"] <= 0).nonzero().squeeze(1)
        if not len(rows):
            break
    return best


def _ascend(model, x, y, delta, settings, lambdas) -> dict[str, Tensor]:
    """One run of PGD; "images" and "margin" are those of the best candidate."""
    adversarial = (x + delta).clamp(0, 1)
    best, best_margin, losses = x, x.new_full(y.shape, -math.inf), []
    first, finite = torch.full_like(y, -1), torch.ones((), dtype=torch.bool, device=x.device)
    for step in range(settings.steps + 1):
        last = step == settings.steps
        with torch.set_grad_enabled(not last):
            loss, logits = _losses(model, adversarial.requires_grad_(not last), y, settings.loss, lambdas)
        losses.append(loss.detach())
        reached = margin(logits.detach(), y)
        first = torch.where((first < 0) & (logits.argmax(dim=1) != y), step, first)
        if last or settings.success == "any":
            best = torch.where((reached > best_margin).view(-1, 1, 1, 1), adversarial.detach(), best)
            best_margin = torch.maximum(reached, best_margin)
        if not last:
            if not loss.requires_grad:
                raise ValueError(f"attack: the logits of {type(model).__name__} have no gradient in the image")
            (gradient,) = torch.autograd.grad(loss, adversarial, torch.ones_like(loss))
            finite &= torch.isfinite(gradient).all()  # the sign of NaN is 0
            moved = adversarial.detach() + settings.step_size * direction(gradient, settings.norm)
            adversarial = (x + project(moved - x, settings.norm, settings.eps)).clamp(0, 1)
    losses = torch.stack(losses, dim=1)
    if not (finite and torch.isfinite(losses).all()):
        raise ValueError("attack: the loss or its gradient is not finite; is the network for images in [0, 1]?")
    return {"images": best, "margin": best_margin, "first_broken_step": first, "losses": losses}


def _losses(model, x, y, name, lambdas) -> tuple[Tensor, Tensor]:
    """The loss of each image, (N,), and the logits by which success is judged."""
    if lambdas is None:
        logits = model(x)
        return LOSSES[name](logits, y), logits
    total = 0
    for lmbd in lambdas:
        with use_lambda(model, lmbd):
            total = total + LOSSES[name](model(x), y)
    with torch.no_grad():
        return total, model(x)


def _l2(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
