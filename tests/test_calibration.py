"""The numbers of Algorithm 1 on problems whose answer is known."""

import numpy as np
import pytest

from sdnet.robustness.calibration import bootstrap_lambdas, fit_calibration, image_residuals, released_residuals
from sdnet.robustness.peaks import argmax, best_lambdas, find_peaks, parabola, plateau

GRID = np.arange(1, 16) / 10  # 0.1 to 1.5, section 4.2


def planted(best, n=2000, seed=0, rows=1):
    """(L, n): image i is correct where a uniform number lies below 0.9 - (lambda - best)^2.

    The number is the image's own, or, with as many rows as there are lambdas, another one for each.
    """
    uniform = np.random.default_rng(seed).random((rows, n))
    return uniform < (0.9 - (GRID - best) ** 2)[:, None]


def fit(residuals, best):
    return fit_calibration(residuals, best, GRID, lambda0=0.1)


def test_both_estimators_find_a_planted_maximum():
    (peak,) = find_peaks(planted(0.33)[None], GRID)
    assert peak.argmax == 0.3
    assert peak.parabola == pytest.approx(0.33, abs=0.03)
    assert not peak.at_grid_end
    assert 0 < peak.parabola_std < 0.05


@pytest.mark.parametrize(("end", "value"), [(0, 0.1), (-1, 1.5)])
def test_a_maximum_at_an_end_of_the_grid_is_said_to_be_there(end, value):
    correct = np.zeros((1, 15, 50), bool)
    correct[0, end] = True
    (peak,) = find_peaks(correct, GRID)
    assert (peak.argmax, peak.at_grid_end) == (pytest.approx(value), True)


@pytest.mark.parametrize("value", [0, 1])
def test_where_lambda_changes_nothing_the_smallest_is_taken_and_none_is_worse(value):
    (peak,) = find_peaks(np.full((1, 15, 50), bool(value)), GRID)
    assert (peak.argmax, peak.parabola, peak.plateau, peak.at_grid_end) == (0.1, 0.1, tuple(GRID), True)
    assert max(peak.argmax_std, peak.parabola_std) < 1e-15  # of equal numbers


def test_a_parabola_through_exact_accuracies_has_their_vertex():
    vertices = np.array([0.2, 0.72, 1.31])
    accuracy = 0.8 - 0.3 * (GRID - vertices[:, None]) ** 2
    np.testing.assert_allclose(parabola(accuracy, GRID), vertices, atol=1e-9)
    assert parabola(accuracy[1], GRID) == pytest.approx(0.72, abs=1e-9)


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [
        (GRID, 1.5),  # no curvature
        (GRID**2, 1.5),  # opens upwards
        (-((GRID - 2) ** 2), 1.5),  # the vertex lies beyond the grid
        (-((GRID + 1) ** 2), 0.1),
    ],
)
def test_a_parabola_without_a_vertex_in_the_grid_gives_the_nearest_end(accuracy, expected):
    assert parabola(accuracy, GRID) == pytest.approx(expected)


def test_the_vertex_of_a_flat_parabola_stays_where_it_was_fitted():
    accuracy = np.where(GRID < 0.85, 0.01 * GRID, 0)
    accuracy[4] += 0.0032  # chance makes 0.5 the best one; the vertex of the seven points from 0.2 to 0.8 is at 0.83
    assert parabola(accuracy, GRID) == pytest.approx(0.8)


def test_a_grid_too_short_for_a_parabola_gives_the_best_lambda():
    assert parabola(np.array([0.1, 0.5]), np.array([0.1, 0.3])) == 0.3


def test_ties_go_to_the_smaller_lambda():
    assert argmax(np.array([0.2, 0.7, 0.7]), GRID[:3]) == 0.2


def test_the_plateau_holds_what_is_within_one_paired_standard_error():
    best, one_lost, two_lost_one_won = np.zeros((3, 100), dtype=bool)
    best[:50], one_lost[1:50], two_lost_one_won[2:51] = True, True, True
    # One image worse on balance. Without any other change that is more than sqrt(1 - 1/100) images;
    # with two more images that changed it is less than sqrt(3 - 1/100).
    assert plateau(np.array([best, one_lost, two_lost_one_won])).tolist() == [True, False, True]


def test_the_bootstrap_standard_deviation_is_that_of_new_images():
    """Estimated from one sample of 500 images, against 300 samples really drawn anew."""
    (peak,) = find_peaks(planted(0.65, n=500, rows=15)[None], GRID)
    drawn = [parabola(planted(0.65, n=500, seed=1 + s, rows=15).mean(axis=1), GRID) for s in range(300)]
    assert peak.parabola_std == pytest.approx(np.std(drawn), rel=0.35)  # one sample knows it this well


def test_an_exact_line_is_recovered():
    residuals = np.array([0.05, 0.1, 0.25, 0.5])
    calibration = fit(residuals, 2 * residuals + 0.1)
    assert calibration.slope == pytest.approx(2, abs=1e-8)
    assert calibration.intercept == pytest.approx(0.1, abs=1e-8)
    assert calibration.r_squared == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("count", range(2, 12))
def test_where_every_noise_level_has_the_same_best_lambda_there_is_no_r_squared(count):
    """0.1 has no exact binary form: the mean of six of them is not 0.1."""
    assert np.isnan(fit(np.linspace(6, 8, count), np.full(count, 0.1)).r_squared)


@pytest.mark.parametrize("seed", range(20))
def test_where_every_noise_level_has_the_same_best_lambda_the_line_is_flat_whatever_rounding_does(seed):
    calibration = fit(np.sort(np.random.default_rng(seed).uniform(5, 10, 7)), np.full(7, 0.1))
    chosen = [calibration.lambda_for(residual) for residual in (4.9, 6.1, 7.3, 11)]
    assert [(one.lmbd, one.clamped) for one in chosen] == [(0.1, False)] * 4


def test_a_prediction_beyond_the_tried_lambdas_is_clamped_and_beyond_the_residuals_extrapolated():
    residuals = np.array([0.05, 0.1, 0.25, 0.5])
    calibration = fit(residuals, 2 * residuals + 0.1)

    def flags(residual):
        estimate = calibration.lambda_for(residual)
        return round(estimate.lmbd, 8), estimate.clamped, estimate.extrapolated

    assert flags(0.2) == (0.5, False, False)
    assert flags(0.6) == (1.3, False, True)
    assert flags(3.0) == (1.5, True, True)
    assert flags(-1.0) == (0.1, True, True)


def test_levels_that_do_not_differ_in_residual_are_refused():
    with pytest.raises(ValueError, match=r"all 2 noise levels have the residual 1.*at least two levels"):
        fit([1.0, 1.0], [0.1, 0.3])


@pytest.mark.parametrize(
    ("residuals", "best"), [([1.0, np.nan], [0.1, 0.2]), ([1.0, 2.0], [0.1, np.inf]), ([1.0, 2.0], [0.1]), ([], [])]
)
def test_what_is_no_point_for_each_level_is_refused(residuals, best):
    with pytest.raises(ValueError, match="give each noise level one finite number of both"):
        fit(residuals, best)


@pytest.mark.parametrize("accuracy", [np.ones((15, 2)), np.ones((2, 16)), np.full((2, 15), np.nan), np.ones(())])
def test_accuracies_that_are_none_of_each_lambda_are_refused(accuracy):
    with pytest.raises(ValueError, match="give a finite number for each of the 15 lambdas"):
        best_lambdas(accuracy, GRID)


def test_unknown_choices_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'mean' is unknown; choose one of argmax, parabola"):
        best_lambdas(np.ones((2, 15)), GRID, "mean")
    with pytest.raises(ValueError, match="'max' is unknown; choose 'norm' or 'squared'"):
        image_residuals(np.ones((1, 2)), "max")


def test_residuals_are_averaged_over_layers_after_squaring():
    norms = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert image_residuals(norms, "norm").tolist() == [2, 3]
    assert image_residuals(norms, "squared").tolist() == [5, 10]


def test_the_bootstrap_interval_of_lambda_covers_the_truth_and_shrinks_with_more_images():
    """Levels with residual r and best lambda 0.2 + r; the test residual 0.5 asks for 0.7."""

    def interval_width_and_cover(n):
        correct = np.array([planted(0.2 + r, n, seed=7) for r in (0.1, 0.3, 0.6, 0.9)])
        residuals = np.array([[0.1], [0.3], [0.6], [0.9]]) + 0.05 * np.random.default_rng(1).standard_normal(n)
        draws = bootstrap_lambdas(correct, residuals, GRID, [0.5, 99.0], estimator="parabola")
        assert draws.shape == (200, 2)
        assert np.all(draws[:, 1] == 1.5)
        low, high = np.quantile(draws[:, 0], [0.025, 0.975])
        return high - low, low <= 0.7 <= high

    narrow, covers = interval_width_and_cover(3200)
    wide, _ = interval_width_and_cover(200)
    assert covers
    assert narrow < 0.5 * wide


def test_the_released_residual_is_a_running_mean_read_at_the_best_lambda():
    residuals = np.array([[1.0, 3.0], [5.0, 7.0]])
    accuracy = np.array([[0.9, 0.8], [0.1, 0.2]])
    assert released_residuals(residuals, accuracy).tolist() == [1.0, 4.0]


@pytest.mark.parametrize("lambdas", [[], [0.3, 0.1], [0.1, 0.1], [-0.1, 0.1], [0.1, float("nan")], 0.1])
def test_a_grid_that_is_not_ascending_is_refused(lambdas):
    with pytest.raises(ValueError, match="give at least one, none negative, ascending and each once"):
        find_peaks(np.ones((1, 2, 3), dtype=bool), lambdas)


def test_r_squared_is_the_square_of_the_correlation():
    residuals, best = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.1, 0.4, 0.3, 0.9])
    assert fit(residuals, best).r_squared == pytest.approx(np.corrcoef(residuals, best)[0, 1] ** 2)


def test_the_bootstrap_draws_the_residuals_with_their_images():
    """The best lambdas are certain, 0.2 and 1.0; the residuals, one apart, are known to 0.1 / sqrt(100)."""
    correct = np.zeros((2, 15, 100), dtype=bool)
    correct[0, 1] = correct[1, 9] = True
    noise = 0.1 * np.random.default_rng(0).standard_normal(100)
    draws = bootstrap_lambdas(correct, np.array([[1.0], [2.0]]) + noise, GRID, [1.5 + noise.mean()])
    assert draws.mean() == pytest.approx(0.6, abs=0.003)
    assert draws.std() == pytest.approx(0.8 * noise.std() / 10, rel=0.2)


def test_the_bootstrap_standard_deviation_of_the_argmax_is_that_of_new_images():
    (peak,) = find_peaks(planted(0.65, n=500, rows=15)[None], GRID)
    drawn = [argmax(planted(0.65, n=500, seed=1 + s, rows=15).mean(axis=1), GRID) for s in range(300)]
    assert peak.argmax_std == pytest.approx(np.std(drawn), rel=0.35)
