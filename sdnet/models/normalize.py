"""Input normalisation inside the network, so that images stay in [0, 1] everywhere else."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """(x - mean) / std per channel, for images (N, M, H, W) in [0, 1]."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Standardised images, of the same shape."""
        return (x - self.mean) / self.std

    def inverse(self, x: Tensor) -> Tensor:
        """Images in [0, 1] of standardised ones."""
        return x * self.std + self.mean
