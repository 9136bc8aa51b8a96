"""Accuracy of a network on clean images."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from sdnet.csc import evaluation_mode
from sdnet.data.loaders import Loader
from sdnet.training import distributed
from sdnet.training.precision import autocast


@dataclass(frozen=True)
class Score:
    """Hits and mean cross-entropy (nats) over `total` images."""

    correct: int
    total: int
    loss: float


@torch.inference_mode()
def evaluate(model: nn.Module, loader: Loader, *, device: torch.device, precision: str = "float32") -> Score:
    """Classify every image of a loader, in evaluation mode; the model's mode is restored.

    Processes that share a training (`distributed`) share this, too: each reads its shard, the counts are of all.

    Args:
        model: maps images (N, M, H, W) in [0, 1] to logits (N, classes).
        loader: its epoch 0 is read.
        device: where the model is.
        precision: "float32", or "bfloat16" for autocast.
    """
    counts = torch.zeros(2, dtype=torch.float64, device=device)  # loss and hits
    with evaluation_mode(model), autocast(precision, device):
        for x, y in loader.epoch(0):
            logits = model(x).float()
            counts += torch.stack([F.cross_entropy(logits, y, reduction="sum"), (logits.argmax(1) == y).sum()])
    loss, correct = distributed.total(counts).tolist()
    return Score(int(correct), loader.num_images, loss / loader.num_images)
