"""The best lambda of each noise level: steps 7 to 10 of Algorithm 1.

C noise levels, L values of lambda, n images: correct (C, L, n) bool says whether image i, under the noise of level c,
is classified correctly at lambda.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sdnet.robustness.statistics import bootstrap_counts

RESAMPLES = 1000  # for a standard deviation of lambda_c to 2%
PARABOLA_REACH = 3  # grid points on each side of the best one through which the parabola is laid


def check_grid(lambdas: Sequence[float]) -> np.ndarray:
    """The set Lambda of Algorithm 1 as an array, refused unless it is ascending and not empty."""
    grid = np.asarray(lambdas, dtype=float)
    ascending = grid.ndim == 1 and grid.size and grid[0] >= 0 and np.all(np.diff(grid) > 0)
    if not (ascending and np.all(np.isfinite(grid))):
        raise ValueError(
            f"the lambdas to try are {grid.tolist()}; give at least one, none negative, ascending and each once"
        )
    return grid


def argmax(accuracy: np.ndarray, lambdas: np.ndarray) -> np.ndarray:
    """The first lambda of the highest accuracy (..., L): step 10 of Algorithm 1."""
    return np.asarray(lambdas)[np.argmax(accuracy, axis=-1)]


def parabola(accuracy: np.ndarray, lambdas: np.ndarray) -> np.ndarray:
    """The vertex of a parabola through the accuracies (..., L) around the highest one.

    Least squares over the best lambda and up to `PARABOLA_REACH` grid points on each side. The vertex is
    clamped to these points; where the parabola does not open downwards it is the best lambda itself. Less
    noisy than `argmax`, and not bound to the grid's values (not in the paper).
    """
    accuracy, lambdas = np.asarray(accuracy, dtype=float), np.asarray(lambdas, dtype=float)
    best = np.argmax(accuracy, axis=-1)
    vertex = np.array(argmax(accuracy, lambdas))
    for k in np.unique(best):
        window = slice(max(k - PARABOLA_REACH, 0), k + PARABOLA_REACH + 1)
        if lambdas[window].size < 3:
            continue
        here = best == k
        below_best = accuracy[here][:, window] - accuracy[here][:, k, None]
        curvature, slope, _ = np.polyfit(lambdas[window] - lambdas[k], below_best.T, 2)
        concave = curvature < 0
        offset = np.divide(-slope, 2 * curvature, out=np.zeros_like(slope), where=concave)
        # ASSUME: no vertex beyond the points it was fitted to. On a plateau the curvature is nearly zero, and
        # the vertex would land anywhere in the grid.
        vertex[here] = np.clip(lambdas[k] + offset, lambdas[window][0], lambdas[window][-1])
    return vertex


ESTIMATORS = {"argmax": argmax, "parabola": parabola}


def plateau(correct: np.ndarray) -> np.ndarray:
    """Which lambdas (L,) are no worse than the best one, for one level, correct (L, n).

    No worse: the paired difference is at most one standard error of that difference.
    """
    correct = np.asarray(correct, dtype=bool)
    n = correct.shape[-1]
    best = correct[np.argmax(correct.sum(axis=-1))]
    lost, won = (best & ~correct).sum(axis=-1), (correct & ~best).sum(axis=-1)
    return lost - won <= np.sqrt(lost + won - (lost - won) ** 2 / n)


@dataclass(frozen=True)
class Peak:
    """Where accuracy is highest over lambda, at one noise level: lambda_c, with what is known of it."""

    argmax: float
    parabola: float
    argmax_std: float  # over bootstrap samples of the images
    parabola_std: float
    plateau: tuple[float, ...]  # the lambdas that are no worse, see `plateau`
    at_grid_end: bool  # the highest accuracy is at the first or last lambda: the true maximum may lie outside


def find_peaks(correct: np.ndarray, lambdas: Sequence[float]) -> list[Peak]:
    """The best lambda of each noise level (steps 7 to 10 of Algorithm 1), by both estimators.

    Args:
        correct: (C, L, n) bool.
        lambdas: the L values of lambda, ascending.
    """
    lambdas, correct = check_grid(lambdas), np.asarray(correct)
    accuracy = correct.mean(axis=-1)
    samples = np.stack([correct @ weights for weights in bootstrap_counts(correct.shape[-1], RESAMPLES)])
    return [
        Peak(
            argmax=float(argmax(accuracy[c], lambdas)),
            parabola=float(parabola(accuracy[c], lambdas)),
            argmax_std=float(argmax(samples[:, c], lambdas).std(ddof=1)),
            parabola_std=float(parabola(samples[:, c], lambdas).std(ddof=1)),
            plateau=tuple(lambdas[plateau(correct[c])].tolist()),
            at_grid_end=int(np.argmax(accuracy[c])) in (0, lambdas.size - 1),
        )
        for c in range(len(correct))
    ]


def best_lambdas(accuracy: np.ndarray, lambdas: Sequence[float], estimator: str = "argmax") -> np.ndarray:
    """lambda_c of each noise level, (C,), from accuracy (C, L): steps 7 to 10 of Algorithm 1.

    Args:
        accuracy: of each level at each lambda, up to a common factor.
        lambdas: the L values of lambda, ascending.
        estimator: "argmax" (the paper's) or "parabola".

    Raises:
        ValueError: for an unknown estimator, lambdas that are not ascending, or accuracies that are not finite or not
            of these lambdas.
    """
    accuracy, lambdas = np.asarray(accuracy), check_grid(lambdas)
    if accuracy.shape[-1:] != lambdas.shape or not np.isfinite(accuracy).all():
        raise ValueError(
            f"accuracies of shape {accuracy.shape}; give a finite number for each of the {lambdas.size} lambdas"
        )
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator {estimator!r} is unknown; choose one of {', '.join(ESTIMATORS)}")
    return ESTIMATORS[estimator](accuracy, lambdas)
