"""The ladder of attacks: from the paper's own protocol to attackers who know the defence (section 4.3).

a    the paper's: crafted at the lambda of training, then used against every lambda
a'   the same in weaker settings: which of them leaves what the paper prints?
b    crafted at each lambda
c    twice the steps, several restarts, two losses
d    AutoAttack
e    aware of the threshold: losses summed over lambdas, softer gradients, starts from other images
f    against Algorithm 1, which chooses lambda anew for the attacked images
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from sdnet.csc import use_lambda
from sdnet.robustness.adaptive_attacks import AlgorithmOne, softer_backward
from sdnet.robustness.autoattack import STANDARD, autoattack
from sdnet.robustness.calibration import Calibration
from sdnet.robustness.outcome import Outcome
from sdnet.robustness.pgd import PGD, STEP_SIZE, attack

LEVELS_A_STEP = 2 / 255  # the usual step for 8/255 in the L-inf norm
RENEWED_EVERY = 10  # steps that the attacker of Algorithm 1 takes at one lambda
AT_LAMBDA0 = "images against the lambda of training"
SOFTNESS = (0.25, 0)  # shares of lambda at which the threshold is differentiated; 0 is straight-through


@dataclass(frozen=True)
class Attempt:
    """One attack of the ladder.

    Attributes:
        step: of the ladder, "a" to "f".
        pgd: the attack; of AutoAttack its norm, radius and seed.
        lmbd: sparsity weight of the attacked network; None leaves a network without one as it is.
        ascend: ascend the sum of the losses at these lambdas.
        softness: differentiate at this share of lambda, see `softer_backward`.
        start: which adversarial images to start from, AT_LAMBDA0 say; "" for random starts.
        autoattack: run these attacks of AutoAttack in place of PGD.
        algorithm1: the network is defended by Algorithm 1.
        note: what else is special about it.
    """

    step: str
    pgd: PGD
    lmbd: float | None
    ascend: tuple[float, ...] = ()
    softness: float | None = None
    start: str = ""
    autoattack: tuple[str, ...] = ()
    algorithm1: bool = False
    note: str = ""

    @property
    def title(self) -> str:
        """The attack in words; with `lmbd` no other of its ladder is called so."""
        if self.autoattack:
            return "AutoAttack" if self.autoattack == STANDARD else " + ".join(self.autoattack).upper()
        words = [
            f"PGD-{self.pgd.steps}",
            f"step {self.pgd.step_size:.3g}",
            f"{self.pgd.restarts} restarts" if self.pgd.restarts > 1 else "",
            self.pgd.loss,
            "summed over lambdas" if self.ascend else "",
            "" if self.softness is None else f"gradient at {self.softness:g} lambda",
            f"from {self.start}" if self.start else "",
            "against Algorithm 1" if self.algorithm1 else "",
            self.note,
        ]
        return ", ".join(filter(None, words))


def paper_attempt(norm: str, eps: float, lambda0: float | None) -> Attempt:
    """Step a: one random start, of which the last iterate counts, as usual in libraries.

    ASSUME: 20 steps of eps / 4 on the cross-entropy; the paper names PGD and the radius alone.
    """
    return Attempt("a", PGD(norm, eps, 20, eps / 4, success="last"), lambda0)


def weaker_attempts(paper: Attempt, std: float) -> list[Attempt]:
    """Step a': fewer steps, steps made for the other norm, one step, a radius in normalised units.

    Args:
        paper: step a.
        std: by which the network divides pixels, mean over its channels: a radius in units of the normalised image
            is so much shorter in pixels.
    """
    pgd, eps = paper.pgd, paper.pgd.eps
    settings = {
        "": [(10, 0.4 * eps), (10, LEVELS_A_STEP), (20, LEVELS_A_STEP), (7, LEVELS_A_STEP), (1, eps)],
        "radius in normalised units": [(pgd.steps, std * pgd.step_size)],
    }
    return [
        replace(paper, step="a'", note=note, pgd=replace(pgd, eps=std * eps if note else eps, steps=n, step_size=size))
        for note, pairs in settings.items()
        for n, size in pairs
        if (n, size) != (pgd.steps, pgd.step_size)
    ]


def adaptive_attempts(
    paper: Attempt,
    *,
    tuned: float | None,
    lambdas: Sequence[float],
    steps: int,
    restarts: int,
    attacks: Sequence[str],
    reference: str,
) -> list[Attempt]:
    """Steps b to f, of which e and f need a network with a lambda.

    Args:
        paper: step a.
        tuned: the lambda that is best against step a; None for a network without one.
        lambdas: where to craft in step b, besides the lambda of training and the tuned one.
        steps: of gradient descent in step b; twice as many in steps c, e and f.
        restarts: of step c.
        attacks: of AutoAttack; none leaves step d out.
        reference: what step e calls the images against an undefended network, to start from; "" for none.

    Raises:
        ValueError: if steps or restarts is below 1.
    """
    if steps < 1:
        raise ValueError(f"the ladder of attacks: steps is {steps}; give at least 1")
    eps, lambda0 = paper.pgd.eps, paper.lmbd
    once = replace(paper.pgd, success="any", steps=steps, step_size=STEP_SIZE * eps / steps)
    strong = replace(once, steps=2 * steps, step_size=STEP_SIZE * eps / (2 * steps))
    if tuned is None:
        defended, crafted = [None], [None]
    else:
        defended, crafted = sorted({lambda0, tuned}), sorted({*lambdas, lambda0, tuned})
    ladder = [
        *(Attempt("b", once, lmbd) for lmbd in crafted),
        *(
            Attempt("c", replace(strong, restarts=restarts, loss=loss), lmbd)
            for lmbd in defended
            for loss in ("cross-entropy", "margin")
        ),
        *(Attempt("d", once, lmbd, autoattack=tuple(attacks)) for lmbd in defended if attacks),
    ]
    if tuned is not None:
        below = tuple(lmbd for lmbd in crafted if lmbd <= tuned)
        starts = [*([] if tuned == lambda0 else [AT_LAMBDA0]), *([reference] if reference else [])]
        aware = Attempt("e", strong, tuned)
        ladder += [
            replace(aware, ascend=below),
            *(replace(aware, softness=share) for share in SOFTNESS),
            *(replace(aware, start=start) for start in starts),
            Attempt("f", strong, lambda0, algorithm1=True),
        ]
    return ladder


def craft(
    attempt: Attempt,
    model: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    indices: np.ndarray,
    start: np.ndarray | None = None,
    calibration: Calibration | None = None,
) -> Outcome:
    """Run one attack on one batch of clean images.

    Args:
        attempt: which one.
        model: as `pgd.attack` takes it.
        images: as `evaluate_at` takes them.
        labels: (N,).
        indices: position of each image in its data set.
        start: the images (N, channels, H, W) that `attempt.start` names.
        calibration: of the network, for `attempt.algorithm1`.
    """
    batch, pgd = [(images, labels)], attempt.pgd
    with ExitStack() as stack:
        if attempt.lmbd is not None:
            stack.enter_context(use_lambda(model, attempt.lmbd))
        if attempt.softness is not None:
            stack.enter_context(softer_backward(model, attempt.softness))
        if attempt.autoattack:
            options = {"attacks": attempt.autoattack, "seed": pgd.seed, "batch_size": len(labels)}
            return autoattack(model, batch, pgd.norm, pgd.eps, indices=indices, **options)
        target = AlgorithmOne(model, calibration, RENEWED_EVERY) if attempt.algorithm1 else model
        return attack(target, batch, pgd, lambdas=attempt.ascend or None, starts=start, indices=indices)
