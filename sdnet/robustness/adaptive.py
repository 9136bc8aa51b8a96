"""Attackers who know the defence: that lambda is changed, that codes are thresholded, that Algorithm 1 is run.

The paper crafts adversarial images at one lambda and predicts at another (section 4.3), which says nothing of an
attacker who knows the second. Each of the following is attacked by `pgd.attack`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from sdnet.csc import CSCConv2d, csc_layers, fista, use_lambda
from sdnet.robustness.calibration import Calibration, check_grid, image_residuals
from sdnet.robustness.outcome import Batches, frozen
from sdnet.robustness.pgd import PGD, Attacked, attack
from sdnet.robustness.sweep import Sweep, evaluate_at, logits_and_residuals


@dataclass(frozen=True)
class LambdaMatrix:
    """Images crafted at each of A lambdas and predicted at each of E."""

    attack_lambdas: np.ndarray  # (A,)
    clean: Sweep  # of the clean images: `lambdas` (E,), `correct` (E, N), `residuals` (CSC layers, N)
    transferred: tuple[Sweep, ...]  # of the images crafted at each attack lambda
    attacks: tuple[Attacked, ...]

    @property
    def robust(self) -> np.ndarray:
        """(A, E, N) bool: both the clean and the adversarial image are classified correctly."""
        return np.stack([sweep.correct for sweep in self.transferred]) & self.clean.correct

    @property
    def worst_case(self) -> np.ndarray:
        """(E, N) bool: the image withstands the images crafted at every attack lambda."""
        return self.robust.all(axis=0)


def lambda_matrix(
    model: nn.Module,
    batches: Batches,
    settings: PGD,
    attack_lambdas: Sequence[float],
    lambdas: Sequence[float],
    lambda0: float = 0.1,
    *,
    indices: Sequence[int] | None = None,
    progress: str | None = None,
) -> LambdaMatrix:
    """Craft at each of `attack_lambdas`, predict at each of `lambdas`.

    With [0.1] for `attack_lambdas` this is the paper's protocol, a transfer from the network at lambda 0.1; the
    diagonal is the attack by one who knows lambda.

    Args:
        model: a network with CSC layers.
        batches: as `attack` takes them; kept in memory.
        settings: the attack.
        attack_lambdas: where to craft, ascending.
        lambdas: where to predict, ascending.
        lambda0: at which residuals are recorded: the lambda of training.
        indices: see `attack`.
        progress: see `attack`.

    Raises:
        ValueError: as `attack`, or if the network has no CSC layer or lambdas are not ascending.
    """
    batches = list(batches)
    attacks, transferred = [], []
    with frozen(model):
        clean = evaluate_at(model, batches, lambdas, lambda0)
        for lmbd in check_grid(attack_lambdas):
            label = f"{progress}, lambda {lmbd:g}" if progress else None
            with use_lambda(model, lmbd):
                crafted = attack(model, batches, settings, indices=indices, progress=label)
            attacks.append(crafted)
            sizes = np.cumsum([len(labels) for _, labels in batches])[:-1]
            again = zip(np.split(crafted.images, sizes), np.split(crafted.label, sizes), strict=True)
            transferred.append(evaluate_at(model, again, lambdas, lambda0))
    return LambdaMatrix(check_grid(attack_lambdas), clean, tuple(transferred), tuple(attacks))


@contextmanager
def softer_backward(model: nn.Module, factor: float) -> Iterator[None]:
    """Codes at lambda, but gradients as if they had been computed at factor * lambda.

    A high threshold hides the gradient of all codes that it sets to zero. With a factor of 0 no code is
    thresholded on the way back, of either sign: the straight-through gradient (Athalye et al., 2018).

    Raises:
        ValueError: if factor is not in [0, 1], or the network has no CSC layer.
    """
    if not 0 <= factor <= 1:
        raise ValueError(f"softer_backward: factor is {factor}; give the share of lambda to differentiate at, 0 to 1")
    if not (layers := csc_layers(model)):
        raise ValueError(f"softer_backward: {type(model).__name__} has no CSC layer, so no threshold to soften")

    def soften(layer: CSCConv2d, args: tuple[Tensor], z: Tensor) -> Tensor | None:
        if not z.requires_grad:
            return None
        soft = fista(
            args[0],
            layer.weight,
            lmbd=factor * layer.lmbd,
            step_size=layer.step_size,
            n_iter=layer.n_iter,
            stride=layer.stride,
            padding=layer.padding,
            nonnegative=layer.nonnegative and factor > 0,
        )
        return z.detach() + (soft - soft.detach())  # z exactly, since the bracket is zero

    handles = [layer.register_forward_hook(soften) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class AlgorithmOne(nn.Module):
    """A network with Algorithm 1 in front of it, as one classifier: the defence that `attack` is to break.

    A batch is classified at the lambda that its mean residual asks for. The logits have no gradient through that
    choice, whose effect on one image is small: it is common to the batch.

    Args:
        model: the network that was calibrated.
        calibration: its fitted line.
        every: passes with gradients keep the lambda of the first of so many; those without always renew it.
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
