"""Input normalisation inside the network, so that images stay in [0, 1] everywhere else."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """(x - mean) / std per channel, for images (N, M, H, W) in [0, 1].

    Args:
        mean: of the pixels in [0, 1], one number for each of the M channels.
        std: as mean.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        for name, values in {"mean": mean, "std": std}.items():  # numpy's would be float64, and so all that follows
            self.register_buffer(name, torch.as_tensor(values, dtype=torch.get_default_dtype()).clone().view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Standardised images, of the same shape."""
        return (x - self.mean) / self.std

    def inverse(self, x: Tensor) -> Tensor:
        """Images in [0, 1] of standardised ones."""
        return x * self.std + self.mean
