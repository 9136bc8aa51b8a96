"""Is an attack good? Checks in the manner of Athalye et al. (2018), Carlini et al. (2019) and Tramer et al. (2020).

Each check attacks a network as it stands (see `use_lambda`) and returns rows to print beside the robust accuracy that
it speaks for. A check that fails stops nothing: that robust accuracy is then an upper bound that is not tight.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from sdnet.robustness.autoattack import autoattack
from sdnet.robustness.batches import Batches, as_input
from sdnet.robustness.outcome import Outcome, checked_batch, frozen_in_float32
from sdnet.robustness.pgd import LOSSES, PGD, STEP_SIZE, attack, direction

EPS = {"linf": tuple(levels / 255 for levels in (0, 1, 2, 4, 8, 16, 32, 64)), "l2": (0, 0.1, 0.25, 0.5, 1, 2, 4)}
BATCH = 250
DIFFERENCE = 1e-6  # of central differences: half the distance of the two points, in pixels of [0, 1]
TINY = 1e-6  # points: two shares of the same images differ by rounding alone, or by far more
CONTROL_POINTS = {"linf": 0.5, "l2": 2.0}  # left to an undefended ResNet-18 at 8/255 and at 0.5


@dataclass(frozen=True)
class Check:
    """One row. Values are percentage points of accuracy unless `what` says otherwise."""

    check: str  # D1 to D11
    what: str
    value: float
    threshold: str  # in words; "" for a value that is only reported
    accepted: bool | None  # None where there is no threshold


def control(outcome: Outcome, norm: str) -> list[Check]:
    """D1: the attack breaks a network that has no defence; `outcome` is of such a network."""
    left, limit = _points(outcome), CONTROL_POINTS[norm]
    return [_check("D1", "robust accuracy of an undefended network", left, f"at most {limit}", left <= limit + TINY)]


def more_steps(model: nn.Module, batches: Batches, settings: PGD, steps: Sequence[int]) -> list[Check]:
    """D2: more steps break no fewer images, and in the end no more."""
    if len(steps) < 2:
        raise ValueError(f"more_steps: given {len(steps)} number of steps; a change takes at least 2")
    batches = list(batches)
    left = [
        _points(attack(model, batches, replace(settings, steps=n, step_size=STEP_SIZE * settings.eps / n)))
        for n in steps
    ]
    rise, change, image = max(np.diff(left)), abs(left[-1] - left[-2]), _one_image(batches)
    few, point = max(0.5, image), max(1, image)
    return [
        *(_check("D2", f"robust accuracy, {n} steps", v) for n, v in zip(steps, left, strict=True)),
        _check("D2", "largest rise with more steps", rise, f"at most {few:g}", rise <= few + TINY),
        _check(
            "D2", f"change from {steps[-2]} to {steps[-1]} steps", change, f"at most {point:g}", change <= point + TINY
        ),
    ]


def loss_curve(losses: np.ndarray) -> list[Check]:
    """D3: the mean loss (N, steps + 1) of `Attacked.losses` rises, then is flat."""
    curve = losses.mean(axis=0)
    rise = curve[-1] - curve[0]
    late = (curve[-1] - curve[-1 - max(1, len(curve) // 4)]) / rise if rise > 0 else float("nan")
    # ASSUME: flat is when the last quarter of the steps adds less than a tenth of the rise.
    return [
        _check("D3", "rise of the mean loss, in its units", rise, "above 0", rise > 0),
        _check("D3", "share of the rise in the last quarter of the steps", late, "below 0.1", late < 0.1),
    ]


def radius_curve(model: nn.Module, batches: Batches, settings: PGD) -> list[Check]:
    """D4: a larger ball breaks no fewer images, and a very large one all of them."""
    batches, radii = list(batches), EPS[settings.norm]
    left = [
        _points(attack(model, batches, replace(settings, eps=eps, step_size=STEP_SIZE * eps / settings.steps)))
        for eps in radii
    ]
    rise, few = max(np.diff(left)), max(0.5, _one_image(batches))
    return [
        *(_check("D4", f"robust accuracy, eps {eps:.4g}", v) for eps, v in zip(radii, left, strict=True)),
        # ASSUME: a rise of up to 0.5, as in D2, is no rise.
        _check("D4", "largest rise with eps", rise, f"at most {few:g}", rise <= few + TINY),
        _check("D4", f"robust accuracy at eps {radii[-1]:.4g}", left[-1], "at most 0.5", left[-1] <= 0.5 + TINY),
    ]


def single_step(model: nn.Module, batches: Batches, settings: PGD, outcome: Outcome) -> list[Check]:
    """D5: one step of length eps (Goodfellow et al., 2015) breaks fewer images than the attack under test did."""
    batches = list(batches)
    clean = torch.cat([as_input(images, model) for images, _ in batches])
    once = replace(settings, steps=1, step_size=settings.eps, restarts=1, success="last")
    left = _points(outcome)
    gain = _points(attack(model, batches, once, starts=clean)) - left
    what, threshold = "accuracy left by a single step, above the attack's", "above 0, if the attack leaves any"
    return [_check("D5", what, gain, threshold, gain > TINY or left < TINY)]


def black_box(model: nn.Module, outcome: Outcome, batches: Batches, norm: str, eps: float) -> list[Check]:
    """D6: the Square attack, which needs no gradient, breaks no image that withstood the gradient attacks.

    Raises:
        ModuleNotFoundError: if pyautoattack is not installed.
    """
    left, lost, seen = ~outcome.broken, 0, 0
    for images, labels in batches:
        rows = np.flatnonzero(left[seen : seen + len(labels)])
        seen += len(labels)
        if len(rows):
            kept = [(images[rows], labels[rows])]
            lost += autoattack(model, kept, norm, eps, attacks=("square",)).broken.sum()
    share = 100 * float(lost) / len(left)
    return [_check("D6", "accuracy that a black-box attack takes away", share, "below 0.2", share < 0.2)]


def transfer(model: nn.Module, outcome: Outcome, foreign: dict[str, np.ndarray]) -> list[Check]:
    """D7: images crafted elsewhere, (N, channels, H, W) by what they are called, break no more than those of here."""
    rows = []
    for origin, images in foreign.items():
        right = outcome.clean_pred == outcome.label
        with frozen_in_float32(model):
            for part in np.array_split(np.arange(len(images)), -(-len(images) // BATCH)):
                _, y, logits = checked_batch(model, images[part], outcome.label[part])
                right[part] &= (logits.argmax(dim=1) == y).cpu().numpy()
        gain = 100 * float(right.mean()) - _points(outcome)
        what = f"accuracy left by {origin}, above the attack's"
        # ASSUME: a gain of 0 passes, since both may break all images.
        rows.append(_check("D7", what, gain, "at least 0", gain >= -TINY))
    return rows


def random_noise(model: nn.Module, batches: Batches, settings: PGD, outcome: Outcome, draws: int) -> list[Check]:
    """D8: the best of many random corners of the ball (L-inf), or points of its sphere (L2), breaks far fewer."""
    survived, generator = [], torch.Generator().manual_seed(settings.seed)
    with frozen_in_float32(model):
        for images, labels in batches:
            x, y, clean = checked_batch(model, images, labels)
            right = clean.argmax(dim=1) == y
            for _ in range(draws):
                towards = direction(torch.randn(x.shape, generator=generator, device="cpu").to(x), settings.norm)
                with torch.no_grad():
                    logits = model((x + settings.eps * towards).clamp(0, 1))
                right &= logits.argmax(dim=1) == y
            survived.append(right.cpu().numpy())
    clean_right = outcome.clean_pred == outcome.label
    by_noise = 100 * float((clean_right & ~np.concatenate(survived)).mean())
    by_attack = 100 * float((clean_right & outcome.broken).mean())
    share = by_noise / by_attack if by_attack else float("nan")
    # ASSUME: far fewer is at most half as many.
    return [
        _check("D8", "accuracy left by random noise", 100 * float(np.concatenate(survived).mean())),
        _check("D8", "images that noise breaks, as a share of the attack's", share, "at most 0.5", share <= 0.5),
    ]


def zero_gradients(model: nn.Module, batches: Batches) -> list[Check]:
    """D9: no clean image has a gradient that is zero everywhere."""
    images, pixels = [], []
    with frozen_in_float32(model):
        for x, y in batches:
            x, y, _ = checked_batch(model, x, y)
            zero = (_gradient(model, x, y, "cross-entropy") == 0).flatten(1)
            images.append(zero.all(dim=1).cpu().numpy())
            pixels.append(zero.double().mean(dim=1).cpu().numpy())
    share = float(np.concatenate(images).mean())
    return [
        _check("D9", "share of images with an all-zero gradient", share, "0", share == 0),
        _check("D9", "share of pixels with a zero gradient", float(np.concatenate(pixels).mean())),
    ]


def gradient_accuracy(model: nn.Module, batches: Batches) -> list[Check]:
    """D10: directional derivatives of the margin agree with central differences, in float64.

    The margin, since a confident network's cross-entropy is too flat for a difference of two of its values.

    Args:
        model: copied, and left alone.
        batches: 20 images are enough; each gets a random direction of unit norm.
    """
    model, generator, errors = copy.deepcopy(model).double(), torch.Generator().manual_seed(0), []
    with frozen_in_float32(model):
        for images, labels in batches:
            x, y, _ = checked_batch(model, images, labels)
            towards = torch.randn(x.shape, generator=generator, dtype=torch.float64, device="cpu").to(x)
            towards = direction(towards, "l2")
            slope = (_gradient(model, x, y, "margin") * towards).flatten(1).sum(dim=1)
            with torch.no_grad():
                ahead, behind = (LOSSES["margin"](model(x + h * towards), y) for h in (DIFFERENCE, -DIFFERENCE))
            difference = (ahead - behind) / (2 * DIFFERENCE)
            scale = torch.maximum(slope.abs(), difference.abs()).clamp_min(1e-300)
            errors.append(((slope - difference).abs() / scale).cpu().numpy())
    errors = np.concatenate(errors)
    median, kinks = float(np.median(errors)), float((errors > 1e-4).mean())
    return [
        _check("D10", "median relative error of directional derivatives", median, "below 1e-4", median < 1e-4),
        _check("D10", "share of images with an error above 1e-4", kinks, "at most 0.1", kinks <= 0.1),
    ]


def other_step_sizes(model: nn.Module, batches: Batches, settings: PGD, outcome: Outcome) -> list[Check]:
    """D11: half and twice the step size leave the same robust accuracy."""
    batches, rows = list(batches), []
    point = max(1, _one_image(batches))
    for factor in (0.5, 2):
        other = _points(attack(model, batches, replace(settings, step_size=factor * settings.step_size)))
        change = other - _points(outcome)
        rows.append(
            _check(
                "D11",
                f"change with {factor:g} times the step size",
                change,
                f"within {point:g}",
                abs(change) <= point + TINY,
            )
        )
    return rows


def _check(check: str, what: str, value: float, threshold: str = "", accepted: bool | None = None) -> Check:
    return Check(check, what, float(value), threshold, None if accepted is None else bool(accepted))


def _points(outcome: Outcome) -> float:
    return 100 * outcome.robust_accuracy


def _one_image(batches: Sequence) -> float:
    """ASSUME: of few images, one more or less is no change; the points that it makes, with room for rounding."""
    return 100 / sum(len(labels) for _, labels in batches) + 1e-9


def _gradient(model: nn.Module, x: Tensor, y: Tensor, loss: str) -> Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(LOSSES[loss](model(x), y).sum(), x)[0]
