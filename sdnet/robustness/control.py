"""A control for Algorithm 1: what any network gains from the noisy images, by its batch norms.

These take their statistics from the test images in place of the training images (Schneider et al. 2020, Improving
robustness against common corruptions by covariate shift adaptation). Like Algorithm 1 this sees all noisy test images
at once, and no label; unlike it, it is fitted to no noisy training images and need not know the kind of noise. The
paper has no such control.
"""

import copy
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sdnet.csc import use_lambda
from sdnet.robustness.batches import Batches, as_input, labelled
from sdnet.robustness.sweep import evaluate_at


def renormalised_correct(model: nn.Module, batches: Callable[[], Batches], lmbd: float | None) -> int:
    """How many images a network classifies correctly with its batch norms' statistics of these images.

    Args:
        model: as for `sweep.evaluate_at`; left as it was.
        batches: gives the same images and labels at each call.
        lmbd: the sparsity weight of its CSC layers; None for a network without any.
    """
    with nullcontext() if lmbd is None else use_lambda(model, lmbd):
        return int(evaluate_at(renormalised(model, batches()), batches(), [lmbd], lmbd).correct.sum())


@torch.no_grad()
def renormalised(model: nn.Module, batches: Batches) -> nn.Module:
    """A copy of a network in evaluation mode whose batch norms have the statistics of some images.

    Their means and variances are averages over the batches, by their numbers of images, which should be large.

    Args:
        model: takes images in [0, 1], (N, channels, H, W).
        batches: of images and labels, as for `sweep.evaluate_at`; labels are not looked at.

    Raises:
        ValueError: if the network has no batch norm, or there is no image.
    """
    model = copy.deepcopy(model).eval()
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        raise ValueError(f"renormalised: {type(model).__name__} has no batch norm whose statistics could be taken anew")
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
    seen = 0
    for batch in batches:
        images, _ = labelled(batch, "renormalised")
        if not len(images):
            continue
        seen += len(images)
        for norm in norms:
            norm.momentum = len(images) / seen  # an average in which every image counts alike
        model(as_input(images, model))
    if not seen:
        raise ValueError("renormalised: there is no batch; give images, and no iterator that is used up already")
    return model.eval()
