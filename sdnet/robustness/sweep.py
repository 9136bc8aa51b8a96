"""Accuracy against lambda and residuals of the CSC layers that ran, on one set of images (section 4.2, Figure 2)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from sdnet.csc import csc_layers, evaluation_mode, record_residuals, training_lambda, use_lambda
from sdnet.robustness.batches import Batches, as_input, labelled
from sdnet.robustness.peaks import check_grid


@dataclass(frozen=True)
class Sweep:
    """Each image's fate at each lambda.

    A model without CSC layers has no lambda: `lambdas` is (nan,), its single row of `correct` is the plain
    evaluation, and `residuals` has no row.
    """

    lambdas: np.ndarray  # (L,)
    correct: np.ndarray  # (L, N) bool
    residuals: np.ndarray  # (CSC layers that ran, N): ||x - A(z)||_2 at lambda_0, in the units of the layer's input


@torch.no_grad()
def evaluate_at(
    model: nn.Module,
    batches: Batches,
    lambdas: Sequence[float],
    lambda0: float | None = None,
    *,
    progress: str | None = None,
) -> Sweep:
    """Evaluate a network on the same images at several lambdas, and record its residuals at lambda_0.

    Every batch is asked for once and used for all lambdas, so that noise drawn while reading is common to
    them. The network is evaluated in evaluation mode, on the device it is on, and left as it was found.

    Args:
        model: takes images in [0, 1], (N, channels, H, W), and gives logits.
        batches: of images and labels. Images are uint8, (N, H, W, channels), or float in [0, 1],
            (N, channels, H, W), as arrays or tensors.
        lambdas: the values to try, ascending.
        lambda0: the lambda of training; None for that of the CSC layers. Ignored without any, as lambdas are.
        progress: what a progress bar is to say; no bar unless given, and none where no terminal is.

    Raises:
        ValueError: if lambdas are not ascending, there is no batch, an image has not one label, that of a class, or
            lambda0 is None and the CSC layers have different lambdas.
    """
    has_lambda = bool(csc_layers(model))
    lambdas = check_grid(lambdas) if has_lambda else np.array([np.nan])
    lambda0 = training_lambda(model) if lambda0 is None else lambda0
    correct, residuals = [], []
    with evaluation_mode(model):
        for batch in tqdm(batches, desc=progress, unit="batch", disable=None if progress else True):
            images, labels = labelled(batch, "evaluate_at")
            x = as_input(images, model)
            y = torch.as_tensor(labels, device=x.device)
            if y.shape != (len(x),):
                raise ValueError(
                    f"evaluate_at: {len(x)} images have labels of shape {tuple(y.shape)}; give each image the number "
                    "of its class"
                )
            logits0, norms = logits_and_residuals(model, x, lambda0)
            if len(y) and not (y.min() >= 0 and y.max() < logits0.shape[1]):
                raise ValueError(
                    f"evaluate_at: labels reach from {y.min()} to {y.max()}; the network's {logits0.shape[1]} classes "
                    "are numbered from 0"
                )
            hits = []
            for lmbd in lambdas:
                logits = logits0
                if has_lambda and lmbd != lambda0:
                    with use_lambda(model, lmbd):
                        logits = model(x)
                hits.append(logits.argmax(dim=1) == y)
            correct.append(torch.stack(hits).cpu().numpy())
            residuals.append(norms.cpu().numpy())
    if not correct:
        raise ValueError("evaluate_at: there is no batch; give images, and no iterator that is used up already")
    return Sweep(lambdas, np.concatenate(correct, axis=1), np.concatenate(residuals, axis=1))


def logits_and_residuals(model: nn.Module, x: Tensor, lmbd: float) -> tuple[Tensor, Tensor]:
    """Logits (N, classes) and residual norms (layers, N) of one batch (N, channels, H, W) at one lambda.

    The layers are the CSC layers that ran: one in a head that is for training alone does not run in evaluation.

    Raises:
        ValueError: if the network runs none of its CSC layers, or one more than once.
    """
    if not csc_layers(model):
        return model(x), x.new_empty(0, len(x))
    with use_lambda(model, lmbd), record_residuals(model) as norms:
        logits = model(x)
    ran = [of_layer for of_layer in norms if len(of_layer) or not len(x)]
    if not ran or any(len(of_layer) != len(x) for of_layer in ran):
        raise ValueError(
            f"{type(model).__name__} runs a CSC layer more than once, or none at all; a residual needs one run"
        )
    return logits, torch.stack(ran)
