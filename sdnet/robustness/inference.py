"""Robust inference by Algorithm 1, for any network with CSC layers and any noise.

noise = torch.Generator().manual_seed(0)
calibration = calibrate(
    model,
    training_batches,
    lambda x, std: (x + std * torch.randn(x.shape, generator=noise)).clamp(0, 1),
    levels=[0, 0.05, 0.1, 0.2],
    lambdas=[0.1, 0.2, 0.4, 0.8],
)
classes = predict(model, noisy_images, calibration).classes
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sdnet.csc import evaluation_mode, training_lambda, use_lambda
from sdnet.csc.network import required_csc_layers
from sdnet.robustness.batches import as_input, labelled
from sdnet.robustness.calibration import Calibration, LambdaEstimate, fit_calibration, image_residuals
from sdnet.robustness.peaks import best_lambdas
from sdnet.robustness.sweep import evaluate_at, logits_and_residuals


def calibrate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    corrupt: Callable[[Tensor, Any], Tensor],
    levels: Sequence[Any],
    lambdas: Sequence[float],
    lambda0: float | None = None,
) -> Calibration:
    """Fit lambda(r) for one type of noise, on clean images with labels (steps 4 to 12 of Algorithm 1).

    Args:
        model: a trained network with CSC layers; takes images in [0, 1], (N, channels, H, W).
        batches: clean training images and their labels, as `evaluate_at` takes them; read once. Leave it to the network
            to normalise them: a `corrupt` that clamps to [0, 1] spoils images that a loader has normalised.
        corrupt: adds noise, `corrupt(images, level)`; called once for each batch and level, on a copy of the images as
            they are in `batches`.
        levels: the noise levels C, of any type that `corrupt` understands; two at least.
        lambdas: the values of lambda to try, ascending.
        lambda0: the lambda of training, at which residuals are measured; None for that of the CSC layers.

    Raises:
        ValueError: if the network has no CSC layer, or layers of different lambdas and lambda0 is None; if lambdas are
            not ascending, there is no image or a single level, or the residuals are not finite or do not differ
            between the levels.
    """
    required_csc_layers(model, "calibrate")
    lambda0 = training_lambda(model) if lambda0 is None else lambda0
    if len(levels) < 2:
        raise ValueError(f"calibrate: given {len(levels)} noise levels; a line takes at least 2")
    sweeps = [
        [evaluate_at(model, [(corrupt(copy.deepcopy(x), level), y)], lambdas, lambda0) for level in levels]
        for x, y in (_clean(batch, model) for batch in batches)
    ]
    if not sum(batch[0].correct.shape[-1] for batch in sweeps):
        raise ValueError("calibrate: there is no image; give batches of images and labels")
    correct = np.concatenate([[sweep.correct for sweep in batch] for batch in sweeps], axis=-1)
    residuals = np.concatenate([[image_residuals(sweep.residuals) for sweep in batch] for batch in sweeps], axis=-1)
    if not np.isfinite(residuals).all():
        raise ValueError("calibrate: the residual of an image is not finite; does corrupt give images in [0, 1]?")
    best = best_lambdas(correct.mean(axis=-1), lambdas)
    return fit_calibration(residuals.mean(axis=-1), best, lambdas, lambda0=lambda0)


@dataclass(frozen=True)
class Prediction:
    """Logits of all images, and the lambda that they were computed with."""

    logits: Tensor  # (N, classes)
    estimates: tuple[LambdaEstimate, ...]  # one for the data set, or one per batch

    @property
    def classes(self) -> Tensor:
        """The predicted class of each image, (N,)."""
        return self.logits.argmax(dim=1)


@torch.no_grad()
def predict(
    model: nn.Module, batches: Tensor | Iterable, calibration: Calibration, mode: str = "dataset"
) -> Prediction:
    """Classify noisy images at the lambda which their residual asks for (step 14 and the output of Algorithm 1).

    Args:
        model: the network that was calibrated.
        batches: a tensor of images, or batches of images, or of tuples that begin with them, as a DataLoader that
            does not shuffle gives them; images as `evaluate_at` takes them.
        calibration: for the type of noise that the images have.
        mode: "dataset", one lambda from the mean residual of all images, which are read twice (the paper's);
            or "batch", one lambda for each batch, from its own residual.

    Raises:
        ValueError: for an unknown mode, a network without CSC layers, no image, one whose residual is not finite, or an
            iterator, which cannot be read twice, in mode "dataset".
    """
    required_csc_layers(model, "predict")
    if not isinstance(calibration, Calibration):
        raise ValueError(f"predict: calibration is {calibration!r}; give what `calibrate` returns")
    if mode not in ("dataset", "batch"):
        raise ValueError(f"mode {mode!r} is unknown; choose 'dataset' or 'batch'")
    batches = [batches] if isinstance(batches, Tensor | np.ndarray) else batches
    if mode == "batch":
        parts = [predict(model, [batch], calibration) for batch in batches]
        if not parts:
            raise ValueError("predict: there is no batch of images")
        return Prediction(torch.cat([p.logits for p in parts]), sum((p.estimates for p in parts), ()))
    if iter(batches) is batches:
        raise ValueError(
            "predict: an iterator can be read only once; give a list, a DataLoader that does not shuffle, or "
            "mode='batch'"
        )
    with evaluation_mode(model):
        residuals = []
        for batch in batches:
            _, norms = logits_and_residuals(model, _images(batch, model), calibration.lambda0)
            residuals.append(image_residuals(norms.cpu().numpy(), calibration.definition))
        if not sum(map(len, residuals)):
            raise ValueError("predict: there is no batch of images")
        residuals = np.concatenate(residuals)
        if wrong := np.flatnonzero(~np.isfinite(residuals)).tolist():
            raise ValueError(f"predict: the residual of image {wrong[0]} is not finite; are its pixels in [0, 1]?")
        estimate = calibration.lambda_for(residuals.mean())
        with use_lambda(model, estimate.lmbd):
            logits = torch.cat([model(_images(batch, model)) for batch in batches])
    return Prediction(logits, (estimate,))


def _images(batch: Tensor | Sequence, model: nn.Module) -> Tensor:
    return as_input(batch[0] if isinstance(batch, tuple | list) else batch, model)


def _clean(batch: Sequence, model: nn.Module) -> tuple:
    """A batch of clean images and labels, once it is seen to be one; noise could hide what is wrong with the images."""
    pair = labelled(batch, "calibrate")
    _images(pair, model)
    return pair
