"""Intervals are those of the references, and cover what they should."""

import numpy as np
import pytest
from scipy import stats

from sdnet.robustness.statistics import adaptive_difference, mcnemar_p_value, paired_difference, split_half


def two_models(n, rng, difference=0.05):
    """Predictions that share most of their fate: the first is right `difference` more often."""
    uniform = rng.random(n)
    first = uniform < 0.7
    second = np.where(rng.random(n) < 0.1, rng.random(n) < 0.7 - 10 * difference, first)
    return first, second


def test_the_paired_interval_covers_a_planted_difference_and_is_narrower_than_the_unpaired_one():
    rng = np.random.default_rng(0)
    covered, widths, unpaired = [], [], []
    for trial in range(1000):
        first, second = two_models(400, rng)
        interval = paired_difference(first, second, seed=trial, resamples=500)
        covered.append(interval.low <= 0.05 <= interval.high)
        widths.append(interval.high - interval.low)
        unpaired.append(2 * 1.96 * np.sqrt((first.var() + second.var()) / 400))
    assert 0.93 <= np.mean(covered) <= 0.97
    assert np.mean(widths) < 0.7 * np.mean(unpaired)


def test_the_multinomial_shortcut_is_the_bootstrap_over_images():
    """Against scipy's bootstrap, which draws images; both have a standard error of about 1% of the width."""
    rng = np.random.default_rng(1)
    first, second = rng.random((3, 300)) < 0.7, rng.random((3, 300)) < 0.6
    ours = paired_difference(first, second, seed=0, resamples=20_000)
    per_image = (first.astype(int) - second).mean(axis=0)
    scipys = stats.bootstrap(
        (per_image,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    width = scipys.high - scipys.low
    assert ours.estimate == pytest.approx(per_image.mean())
    assert (ours.low, ours.high) == pytest.approx(tuple(scipys), abs=0.03 * width)


def test_cells_that_share_their_images_are_not_independent():
    """Five copies of one comparison carry no more information than one."""
    first, second = two_models(400, np.random.default_rng(3))
    one = paired_difference(first, second, seed=0)
    five = paired_difference(np.tile(first, (5, 1)), np.tile(second, (5, 1)), seed=0)
    assert five == pytest.approx(one)


def test_images_that_all_agree_bound_how_many_others_may_differ():
    """A bootstrap of no differences would say exactly 0. scipy's exact interval of 0 of 100 says otherwise."""
    first, _ = two_models(100, np.random.default_rng(4))
    interval = paired_difference(first, first, seed=0)
    exact = stats.binomtest(0, 100).proportion_ci(0.95, method="exact")
    assert (interval.estimate, interval.low, interval.high) == pytest.approx((0, -exact.high, exact.high))
    assert interval.high == pytest.approx(0.036, abs=0.001)
    assert mcnemar_p_value(first, first) == 1
    cells = np.stack([first, first])
    cells[0, 0] = ~cells[1, 0]  # what one image gains under one noise it loses under another
    cancelling = paired_difference(cells, cells[::-1], seed=0)
    assert (cancelling.estimate, cancelling.low, cancelling.high) == pytest.approx((0, -exact.high, exact.high))


@pytest.mark.parametrize("cells", [1, 3])
def test_images_that_all_differ_alike_bound_how_many_others_may_not(cells):
    """As many images as were seen, 20, may be 83% of all: of the others each may differ the other way."""
    ones = np.ones((cells, 20), dtype=bool)
    exact = stats.binomtest(20, 20).proportion_ci(0.95, method="exact")
    for estimate, interval in (
        (1, paired_difference(ones, ~ones)),
        (-1, paired_difference(~ones, ones)),
        (1, adaptive_difference(ones[:, None].repeat(2, axis=1), [0, 1], [0] * cells, np.zeros((50, cells)), ~ones)),
    ):
        assert interval.estimate == pytest.approx(estimate)
        assert sorted(abs(end) for end in interval[1:]) == pytest.approx([2 * exact.low - 1, 1])
        assert interval.low < interval.high


def test_mcnemar_is_a_sign_test_of_the_discordant_images():
    first = np.array([1] * 8 + [0] * 1 + [1] * 50, dtype=bool)
    second = np.array([0] * 8 + [1] * 1 + [1] * 50, dtype=bool)
    assert mcnemar_p_value(first, second) == pytest.approx(2 * (1 + 9) / 2**9)  # 0 or 1 of 9, both sides


def test_predictions_of_different_images_are_refused():
    with pytest.raises(ValueError, match=r"shapes \(3,\) and \(4,\).*the same images in the same order"):
        paired_difference(np.ones(3, dtype=bool), np.ones(4, dtype=bool), seed=0)


@pytest.mark.parametrize("compare", [paired_difference, mcnemar_p_value])
def test_classes_are_not_taken_for_hits(compare):
    with pytest.raises(ValueError, match="takes hits, bool, such as predictions == labels; given int64"):
        compare(np.array([3, 1, 2]), np.array([True, False, True]))


def test_split_half_takes_out_the_bias_of_the_best_lambda():
    """Where no lambda is better than another, the best of 15 looks better than the first; split-half does not."""
    rng = np.random.default_rng(5)
    naive, honest = [], []
    for _ in range(300):
        correct = rng.random((15, 200)) < 0.5
        chosen, _ = split_half(correct, np.arange(15))
        naive.append(correct.mean(axis=1).max() - correct[0].mean())
        honest.append(chosen.mean() - correct[0].mean())
    assert np.mean(naive) > 0.04
    assert abs(np.mean(honest)) < 3 * np.std(honest) / np.sqrt(300)


def test_split_half_uses_for_each_half_what_the_other_chose():
    correct = np.array([[1, 0, 1, 0, 1], [0, 1, 0, 1, 0]], dtype=bool)  # row 0 suits even numbers, row 1 odd ones
    chosen, lambdas = split_half(correct, [0.1, 0.5])
    assert lambdas == (0.1, 0.5)
    assert not chosen.any()


def curves(n, seed=0):
    """(2 cells, 3 lambdas, n): accuracies 0.5, 0.7, 0.6 in both cells."""
    return np.random.default_rng(seed).random((2, 1, n)) < np.array([0.5, 0.7, 0.6])[:, None]


def test_an_exactly_known_lambda_gives_the_paired_interval():
    correct = curves(500)
    known = np.full((2000, 2), 0.4)
    adaptive = adaptive_difference(correct, [0.1, 0.4, 0.8], [0.4, 0.4], known, correct[:, 0])
    paired = paired_difference(correct[:, 1], correct[:, 0], seed=1)
    assert adaptive.estimate == pytest.approx(paired.estimate)
    # 2,000 samples: the ends of the interval have a standard error of about 2% of its width
    assert (adaptive.low, adaptive.high) == pytest.approx(
        (paired.low, paired.high), abs=0.08 * (paired.high - paired.low)
    )


def test_an_uncertain_lambda_widens_the_interval():
    correct = curves(500)
    unknown = np.random.default_rng(1).uniform(0.1, 0.8, (500, 2))
    uncertain, certain = (
        adaptive_difference(correct, [0.1, 0.4, 0.8], [0.4, 0.4], draws, correct[:, 0])
        for draws in (unknown, np.full((500, 2), 0.4))
    )
    assert uncertain.estimate == certain.estimate
    assert uncertain.high - uncertain.low > 1.5 * (certain.high - certain.low)


def test_between_the_lambdas_that_were_tried_accuracy_is_interpolated():
    correct, halfway = curves(500), [0.25, 0.6]
    found = adaptive_difference(correct, [0.1, 0.4, 0.8], halfway, np.full((500, 2), halfway), correct[:, 0])
    (first, best, _), (second, other, last) = correct.mean(axis=2)
    expected = ((first + best) / 2 + (other + last) / 2 - first - second) / 2
    assert found.estimate == pytest.approx(expected, abs=1e-6)
    assert (found.low + found.high) / 2 == pytest.approx(expected, abs=0.005)


def test_where_no_image_differs_at_the_chosen_lambda_the_bound_is_that_of_the_paired_difference():
    """An interval without width would make a claim surely broken by images that say nothing."""
    correct = np.zeros((2, 3, 100), dtype=bool)
    correct[:, 2, :7] = True  # they differ at a lambda that is not chosen
    found = adaptive_difference(correct, [0.1, 0.4, 0.8], [0.4, 0.4], np.full((200, 2), 0.4), correct[:, 0])
    assert found == paired_difference(correct[:, 1], correct[:, 0])
    assert found.low < 0 < found.high
