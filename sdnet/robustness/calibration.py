"""Algorithm 1 behind its best lambdas: lambda as a function of the residual.

Notation: C noise levels, L values of lambda, n calibration images.

    correct     (C, L, n) bool: is image i, under the noise of level c, classified correctly at lambda?
    residuals   (C, n): its residual at lambda_0, averaged over the CSC layers that ran (`image_residuals`)

The noisy copy of an image is the same for every lambda, so that differences between lambdas are paired.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sdnet.robustness.peaks import best_lambdas, check_grid
from sdnet.robustness.statistics import bootstrap_counts

RESAMPLES = 200  # of the calibration images, for 95% intervals: each repeats the whole fit


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
        ValueError: if there is not one residual and one best lambda for each level, one of them is not finite, or fewer
            than two residuals differ.
    """
    residuals, best, grid = np.asarray(residuals, dtype=float), np.asarray(best, dtype=float), check_grid(lambdas)
    if not (residuals.size and residuals.shape == best.shape and np.isfinite([residuals, best]).all()):
        raise ValueError(
            f"the residuals are {residuals.tolist()} and the best lambdas {best.tolist()}; "
            "give each noise level one finite number of both"
        )
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
