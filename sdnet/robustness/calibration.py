"""The numbers of Algorithm 1: from accuracy against lambda to lambda as a function of the residual.

Notation: C noise levels, L values of lambda, n calibration images.

    correct     (C, L, n) bool: is image i, under the noise of level c, classified correctly at lambda?
    residuals   (C, n): its residual at lambda_0, averaged over the CSC layers that ran (`image_residuals`)

The noisy copy of an image is the same for every lambda, so that differences between lambdas are paired.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sdnet.robustness.statistics import bootstrap_counts

RESAMPLES = 200  # of the calibration images, for 95% intervals: each repeats the whole fit
PEAK_RESAMPLES = 1000  # for a standard deviation of lambda_c to 2%
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


def image_residuals(norms: np.ndarray, definition: str = "norm") -> np.ndarray:
    """One residual per image, (n,), from the norms ||x - A(z)||_2 of each CSC layer, (layers, n).

    "norm" is the mean over the layers of the norm (the paper's "averaged residual from all CSC-layers"; ASSUME: not
    squared, as Eq. 4 has it); "squared", of its square, as in the authors' released code. The mean of the result over
    images is the r_c or r_test of Algorithm 1.
    """
    if definition not in ("norm", "squared"):
        raise ValueError(f"residual {definition!r} is unknown; choose 'norm' or 'squared'")
    norms = np.asarray(norms, dtype=float)
    return np.mean(norms if definition == "norm" else norms**2, axis=0)


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
    samples = np.stack([correct @ weights for weights in bootstrap_counts(correct.shape[-1], PEAK_RESAMPLES)])
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


@dataclass(frozen=True)
class LambdaEstimate:
    """What a fitted relation gives for one residual."""

    lmbd: float
    residual: float
    clamped: bool  # the line left the range of the lambdas that were tried; lmbd is its nearer end
    extrapolated: bool  # the residual lies outside those that the line was fitted to


@dataclass(frozen=True)
class Calibration:
    """The relation lambda(r) = slope * r + intercept of one network and one type of noise (Algorithm 1)."""

    slope: float
    intercept: float
    r_squared: float
    lambda_min: float
    lambda_max: float
    residual_min: float
    residual_max: float
    lambda0: float  # at which residuals are measured: the lambda of training
    definition: str  # of the residual, see `image_residuals`

    def lambda_for(self, residual: float) -> LambdaEstimate:
        """lambda(residual), clamped to the range of the lambdas that were tried (the output: lambda(r_test))."""
        line = self.slope * residual + self.intercept
        lmbd = min(max(line, self.lambda_min), self.lambda_max)
        inside = self.residual_min <= residual <= self.residual_max
        return LambdaEstimate(float(lmbd), float(residual), clamped=bool(lmbd != line), extrapolated=not inside)


def best_lambdas(accuracy: np.ndarray, lambdas: Sequence[float], estimator: str = "argmax") -> np.ndarray:
    """lambda_c of each noise level, (C,), from accuracy (C, L): steps 7 to 10 of Algorithm 1.

    Args:
        accuracy: of each level at each lambda, up to a common factor.
        lambdas: the L values of lambda, ascending.
        estimator: "argmax" (the paper's) or "parabola".

    Raises:
        ValueError: for an unknown estimator, or lambdas that are not ascending.
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator {estimator!r} is unknown; choose one of {', '.join(ESTIMATORS)}")
    return ESTIMATORS[estimator](accuracy, check_grid(lambdas))


def fit_calibration(
    residuals: Sequence[float],
    best: Sequence[float],
    lambdas: Sequence[float],
    *,
    lambda0: float,
    definition: str = "norm",
) -> Calibration:
    """The least-squares line through the points (r_c, lambda_c) (step 12 of Algorithm 1).

    Args:
        residuals: r_c, one per noise level.
        best: lambda_c, one per noise level, from `best_lambdas`.
        lambdas: the values of lambda that were tried; predictions stay in their range.
        lambda0: the lambda at which the residuals were measured.
        definition: of the residuals, see `image_residuals`.

    Raises:
        ValueError: if fewer than two residuals differ.
    """
    residuals, best, grid = np.asarray(residuals, dtype=float), np.asarray(best, dtype=float), check_grid(lambdas)
    slope, intercept = _fit_line(residuals, best)
    errors, spread = best - (slope * residuals + intercept), best - best.mean()
    flat = np.ptp(best) == 0  # by this, since rounding leaves equal values a spread about their mean
    return Calibration(
        slope=float(slope),
        intercept=float(intercept),
        r_squared=float("nan") if flat else float(1 - np.sum(errors**2) / np.sum(spread**2)),
        lambda_min=float(grid[0]),
        lambda_max=float(grid[-1]),
        residual_min=float(residuals.min()),
        residual_max=float(residuals.max()),
        lambda0=float(lambda0),
        definition=definition,
    )


def bootstrap_lambdas(
    correct: np.ndarray,
    residuals: np.ndarray,
    lambdas: Sequence[float],
    test_residuals: Sequence[float],
    estimator: str = "argmax",
) -> np.ndarray:
    """What lambda(r) could have been with other calibration images: (RESAMPLES, T) for T test residuals.

    Each sample draws the images anew, the same ones for all levels, and repeats the search for the best
    lambdas, the fit and the prediction. Percentiles over the first axis are an interval.

    Args:
        correct: (C, L, n) bool.
        residuals: (C, n), one per image, at lambda_0.
        lambdas: the L values of lambda, ascending.
        test_residuals: r_test of each test set.
        estimator: see `best_lambdas`.
    """
    correct, residuals, lambdas = np.asarray(correct), np.asarray(residuals), check_grid(lambdas)
    test_residuals = np.asarray(test_residuals, dtype=float)
    n = correct.shape[-1]
    draws = []
    for weights in bootstrap_counts(n, RESAMPLES):
        slope, intercept = _fit_line(residuals @ weights / n, best_lambdas(correct @ weights, lambdas, estimator))
        draws.append(np.clip(slope * test_residuals + intercept, lambdas[0], lambdas[-1]))
    return np.array(draws)


def released_residuals(residuals: np.ndarray, accuracy: np.ndarray) -> np.ndarray:
    """The r_c that the authors' released code fits: not that of Algorithm 1.

    It keeps one running mean over all lambdas tried so far, and all levels before, and notes its value at
    the best lambda of each level.

    Args:
        residuals: (C, L), the mean (squared) residual of level c measured at each lambda.
        accuracy: (C, L).

    Returns:
        (C,), one residual per level.
    """
    running = np.cumsum(residuals) / np.arange(1, np.size(residuals) + 1)
    best = np.argmax(accuracy, axis=-1)
    return running.reshape(np.shape(residuals))[np.arange(len(best)), best]


def _fit_line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    if np.ptp(x) == 0:
        raise ValueError(
            f"all {x.size} noise levels have the residual {x[0]:g}, so no line can be fitted; "
            "calibrate with at least two levels, one of them strong"
        )
    if np.ptp(y) == 0:
        return 0.0, float(y[0])  # by polyfit it would slope by rounding, one way or the other
    return tuple(np.polyfit(x, y, 1))
