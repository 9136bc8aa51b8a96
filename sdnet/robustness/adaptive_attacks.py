"""What an attacker needs who knows the defence: that codes are thresholded, and that Algorithm 1 is run."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sdnet.csc import CSCConv2d, fista, use_lambda
from sdnet.csc.network import after_each_code, required_csc_layers
from sdnet.robustness.calibration import Calibration, image_residuals
from sdnet.robustness.sweep import logits_and_residuals


@contextmanager
def softer_backward(model: nn.Module, factor: float) -> Iterator[None]:
    """Codes at lambda, but gradients as if they had been computed at factor * lambda.

    A high threshold hides the gradient of all codes that it sets to zero. With a factor of 0 no code is
    thresholded on the way back, of either sign: the straight-through gradient, a case of BPDA (Athalye et al., 2018).

    Raises:
        ValueError: if factor is not in [0, 1], or the network has no CSC layer.
    """
    if not 0 <= factor <= 1:
        raise ValueError(f"softer_backward: factor is {factor}; give the share of lambda to differentiate at, 0 to 1")
    layers = required_csc_layers(model, "softer_backward")

    def soften(_, layer: CSCConv2d, x: Tensor, z: Tensor) -> Tensor | None:
        if not z.requires_grad:
            return None
        soft = fista(
            x,
            layer.weight,
            lmbd=factor * layer.lmbd,
            step_size=layer.step_size,
            n_iter=layer.n_iter,
            stride=layer.stride,
            padding=layer.padding,
            nonnegative=layer.nonnegative and factor > 0,
        )
        return z.detach() + (soft - soft.detach())  # z exactly, since the bracket is zero

    with after_each_code(layers, soften):
        yield


class AlgorithmOne(nn.Module):
    """A network with Algorithm 1 in front of it, as one classifier: the defence that `attack` is to break.

    A batch is classified at the lambda that its mean residual asks for. The logits have no gradient through that
    choice, whose effect on one image is small: it is common to the batch.

    Args:
        model: the network that was calibrated.
        calibration: its fitted line.
        every: lambda is estimated anew at every `every`-th pass with gradients, and at each pass without.
    """

    def __init__(self, model: nn.Module, calibration: Calibration, every: int = 1):
        super().__init__()
        if every < 1:
            raise ValueError(f"AlgorithmOne: every is {every}; give the number of steps per estimate, at least 1")
        self.model, self.calibration, self.every = model, calibration, every
        self.lmbd, self._passes = calibration.lambda0, 0

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, channels, H, W) in [0, 1], at `self.lmbd`, which is renewed if due."""
        ascending = torch.is_grad_enabled()
        due = not ascending or self._passes % self.every == 0
        self._passes = self._passes + 1 if ascending else 0
        if due:
            with torch.no_grad():
                _, norms = logits_and_residuals(self.model, x, self.calibration.lambda0)
            residual = image_residuals(norms.cpu().numpy(), self.calibration.definition).mean()
            self.lmbd = self.calibration.lambda_for(residual).lmbd
        with use_lambda(self.model, self.lmbd):
            return self.model(x)
