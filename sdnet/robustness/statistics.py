"""How sure an accuracy, or a difference of accuracies on the same images, is.

All of it covers the choice of the images. The variance between trained models is another matter: it takes
several seeds.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

RESAMPLES = 10_000  # for the ends of a 95% interval to a hundredth of its width
ROUNDING = 1e-6  # of a mean over images, in float32


class Interval(NamedTuple):
    """An estimate and the ends of its confidence interval."""

    estimate: float
    low: float
    high: float


def mcnemar_p_value(first: np.ndarray, second: np.ndarray) -> float:
    """Exact two-sided p of McNemar's test that two models err equally often on the same images; hits, bool, (N,)."""
    first, second = _paired(first, second)
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(stats.binomtest(only_first, only_first + only_second).pvalue)


def paired_difference(first: np.ndarray, second: np.ndarray, *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Accuracy of `first` minus that of `second` on the same images, with its 95% interval by the paired bootstrap.

    Where all images differ alike, or none does, the bootstrap sees no variance. Then the ends are by the exact bound
    (Clopper-Pearson) of a share of which 0 of N were seen: among 100 images that agree, 3.6% of all may still differ,
    either way.

    Args:
        first: bool, (N,), or (cells, N) for several conditions, such as severities, that share the images:
            then the difference is the mean over the cells, and each bootstrap sample draws the same images
            for all of them.
        second: bool, as `first`.
        seed: of the bootstrap.
        resamples: number of bootstrap samples.

    Raises:
        ValueError: if the two do not have the same shape, or are not bool.
    """
    first, second = _paired(first, second)
    # Summed over the cells, an image's difference is one of a few whole numbers, so that a bootstrap sample
    # of the images is a multinomial draw of how often each number occurs.
    cells, images = np.atleast_2d(first).shape
    differences = (np.atleast_2d(first).astype(int) - np.atleast_2d(second)).sum(axis=0)
    values, counts = np.unique(differences, return_counts=True)
    if len(values) == 1:
        return _all_alike(values[0] / cells, images)
    draws = np.random.default_rng(seed).multinomial(images, counts / images, size=resamples)
    return _percentiles(values @ counts / (cells * images), draws @ values / (cells * images))


def adaptive_difference(
    correct: np.ndarray,
    lambdas: Sequence[float],
    lambda_hat: Sequence[float],
    lambda_draws: np.ndarray,
    baseline: np.ndarray,
) -> Interval:
    """Accuracy at a fitted lambda minus a baseline, its 95% (percentile) interval covering the fit and the test images.

    The fitted lambda is not known exactly, since another calibration set would have given another one. Each
    bootstrap sample takes one of `lambda_draws` and draws the test images anew, the same for all cells.
    Between the lambdas that were tried, accuracy is interpolated linearly. Where all images differ alike, the ends are
    those of `paired_difference`.

    Args:
        correct: bool, (cells, L, N): is test image i classified correctly at each lambda?
        lambdas: the L values of lambda, ascending.
        lambda_hat: the fitted lambda of each cell, (cells,).
        lambda_draws: (resamples, cells), from `calibration.bootstrap_lambdas`.
        baseline: bool, (cells, N), for instance `correct` at lambda_0.
    """
    correct, baseline = np.asarray(correct), np.asarray(baseline)
    gain = correct.astype(np.float32) - baseline[:, None]
    images = correct.shape[-1]

    def mean_gains(chosen: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Of lambdas (draws, cells) and of how often each image counts, (draws, N)."""
        curves = gain @ counts.T / images  # (cells, L, draws)
        where = np.interp(chosen, lambdas, np.arange(len(lambdas))).T
        below = np.minimum(where.astype(int), len(lambdas) - 2)
        lower, upper = (np.take_along_axis(curves, k[:, None], axis=1)[:, 0] for k in (below, below + 1))
        return (lower + (where - below) * (upper - lower)).mean(axis=0)

    samples = bootstrap_counts(images, len(lambda_draws))
    blocks = [lambda_draws[k : k + 50] for k in range(0, len(lambda_draws), 50)]
    draws = np.concatenate([mean_gains(block, np.stack([next(samples) for _ in block])) for block in blocks])
    (estimate,) = mean_gains(np.array([lambda_hat]), np.ones((1, images), np.float32))
    return _all_alike(estimate, images) if np.ptp(draws) < ROUNDING else _percentiles(estimate, draws)


def split_half(correct: np.ndarray, lambdas: Sequence[float]) -> tuple[np.ndarray, tuple[float, float]]:
    """What the best lambda gives, without the bias of choosing and measuring it on the same images.

    The best lambda of the even-numbered images is used for the odd-numbered ones, and the other way round.

    Args:
        correct: bool, (L, N).
        lambdas: the L values of lambda, ascending.

    Returns:
        bool, (N,): is image i classified correctly at the lambda that the other half chose? And the two
        lambdas, as chosen by the even-numbered and by the odd-numbered images.
    """
    correct = np.asarray(correct)
    by_even, by_odd = (int(np.argmax(correct[:, half::2].mean(axis=1))) for half in (0, 1))
    return held_out(correct, by_even, by_odd), (float(lambdas[by_even]), float(lambdas[by_odd]))


def held_out(correct: np.ndarray, by_even: int, by_odd: int) -> np.ndarray:
    """Of (L, N), each image (N,) at the lambda that the other half chose: at `by_odd` if its number is even."""
    chosen = np.empty(correct.shape[-1], dtype=bool)
    chosen[0::2], chosen[1::2] = correct[by_odd, 0::2], correct[by_even, 1::2]
    return chosen


def bootstrap_counts(n: int, resamples: int) -> Iterator[np.ndarray]:
    """How often each of n images is drawn, (n,) float32, in each of `resamples` bootstrap samples."""
    generator = np.random.default_rng(0)
    for _ in range(resamples):
        yield np.bincount(generator.integers(n, size=n), minlength=n).astype(np.float32)


def _all_alike(difference: float, images: int) -> Interval:
    """The interval where every image has this same difference.

    Of images not seen a share (Clopper-Pearson) may have any other, from -1 to 1.
    """
    unseen = float(stats.binomtest(0, images).proportion_ci().high)
    seen = (1 - unseen) * float(difference)
    return Interval(float(difference), seen - unseen, seen + unseen)


def _percentiles(estimate: float, draws: Sequence[float]) -> Interval:
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(float(estimate), float(low), float(high))


def _paired(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.asarray(first), np.asarray(second)
    if wrong := {str(one.dtype) for one in (first, second)} - {"bool"}:
        raise ValueError(
            f"a paired comparison takes hits, bool, such as predictions == labels; given {', '.join(sorted(wrong))}"
        )
    if first.shape != second.shape:
        raise ValueError(
            f"the two sets of predictions have shapes {first.shape} and {second.shape}; "
            "a paired comparison needs the same images in the same order"
        )
    return first, second
