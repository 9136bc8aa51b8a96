"""Other lines through the points of Algorithm 1, on points and accuracies whose best line is known."""

import numpy as np
import pandas as pd
import pytest

from sdnet.experiments.tables import fits
from sdnet.experiments.tables.fits import FITS

LAMBDAS = np.arange(1, 16) / 10
RUN = {"dataset": "cifar10", "system": "sdnet18", "seed": 0, "noise": "shot", "variant": "paper"}


@pytest.fixture
def one_outlier(monkeypatch):
    """lambda = 0.1 r + 0.1, but for the last level's, which is uncertain; accuracy falls off from that line."""
    residuals = np.arange(1.0, 8.0)
    best = 0.1 * residuals + 0.1
    best[-1] = 0.1
    peaks = pd.DataFrame({"residual": residuals, "lambda": best, "lambda_std": [0.001] * 6 + [2.0]}).assign(**RUN)
    severities = ["0", "1", "2", "3", "4", "5", "mean"]
    adaptive = pd.DataFrame({"severity": severities, "residual": [1.0, 2, 3, 4, 5, 6, None]}).assign(**RUN)
    sweep = pd.DataFrame(
        {"severity": severity, "lambda": lmbd, "correct": 1000 - 500 * abs(lmbd - 0.1 * (severity + 2)), "total": 1000}
        for severity in range(1, 6)
        for lmbd in LAMBDAS
    ).assign(data_source="official", **RUN)
    frames = {"peaks": peaks, "adaptive": adaptive, "sweep": sweep}
    monkeypatch.setattr(fits, "read_runs", lambda folder, target, kind: frames[kind])
    return peaks


def test_a_weighted_fit_follows_the_certain_levels_and_theil_sen_ignores_an_outlier(one_outlier):
    points = one_outlier
    slopes = {name: fit(points.residual, points["lambda"], points.lambda_std)[0] for name, fit in FITS.items()}
    assert slopes["least squares"] < 0.05
    assert slopes["weighted"] == pytest.approx(0.1, rel=0.01)
    assert slopes["Theil-Sen"] == pytest.approx(0.1, rel=0.01)


def test_a_level_weighs_as_the_inverse_of_its_variance_to_which_that_of_a_fifth_of_the_grid_s_step_is_added():
    """Lambda 0, 1, 1 at the residuals 0, 0, 1: the slope is 1 minus the mean of the first two."""
    std = np.array([0.0, 0.0, 0.1])
    for doubtful, share in {0.0: 1 / 2, 0.02: 1 / 3, 0.04: 1 / 6}.items():  # variances 4 and 4, 8, 20 ten-thousandths
        std[1] = doubtful
        slope, intercept = FITS["weighted"](np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0]), std)
        assert (slope, intercept) == pytest.approx((1 - share, share))


def test_what_each_line_loses_is_read_off_the_sweep(one_outlier):
    table = fits.other_fits(None).set_index("fit")
    slope, intercept = np.polyfit(one_outlier.residual, one_outlier["lambda"], 1)
    away = np.abs(slope * np.arange(2, 7) + intercept - 0.1 * np.arange(3, 8))
    assert table.lost["least squares"] == pytest.approx(50 * away.mean(), abs=0.5)
    assert table.lost["Theil-Sen"] == pytest.approx(0, abs=1e-6)
    assert table["shift"]["least squares"] == 0
    assert table["shift"]["Theil-Sen"] == pytest.approx(away.max(), abs=1e-6)


def test_of_several_seeds_the_mean_loss_counts_and_the_largest_shift(one_outlier, monkeypatch):
    """A second seed, without the outlier, loses nothing by any line."""
    read, first = fits.read_runs, fits.other_fits(None).set_index("fit")

    def two_seeds(folder, target, kind):
        frame = read(folder, target, kind)
        second = frame.assign(seed=1)
        if kind == "peaks":
            second["lambda"] = 0.1 * second.residual + 0.1
        return pd.concat([frame, second])

    monkeypatch.setattr(fits, "read_runs", two_seeds)
    table = fits.other_fits(None).set_index("fit")
    assert table.lost.to_numpy() == pytest.approx(first.lost.to_numpy() / 2, abs=1e-6)
    assert table["shift"].to_numpy() == pytest.approx(first["shift"].to_numpy(), abs=1e-6)
    assert table.lost["least squares"] > 1


def test_that_the_fit_matters_is_said(one_outlier):
    table = fits.other_fits(None)
    words = fits.fits_in_words(table)
    assert words.startswith(
        "Another line gives a λ further than 0.1 from that of least squares in 2 of 2 cases, at most"
    )
    assert "(SDNet-18, shot noise, " in words
    two = pd.concat([table.assign(lost=[1, 2, 3]), table.assign(lost=[3, 2, 6])], ignore_index=True)
    assert "mean over all: least squares 2.00, weighted 2.00, Theil-Sen 4.50 percentage points." in fits.fits_in_words(
        two
    )
    assert fits.fits_in_words(table.assign(shift=0.05)).startswith("No other line")
    assert "in 1 of 2 cases" in fits.fits_in_words(table.assign(shift=table["shift"].where(table.fit != "weighted", 0)))
    (row,) = fits.fits_layout(table).to_dict("records")
    assert (row["Network"], row["Noise"], row["Theil-Sen"][:3]) == ("SDNet-18", "shot", "0.0")


def test_a_line_that_leaves_the_lambdas_tried_gives_their_nearer_end(one_outlier, monkeypatch):
    read = fits.read_runs

    def far_noisier(folder, target, kind):
        frame = read(folder, target, kind)
        return frame.assign(residual=100.0) if kind == "adaptive" else frame

    monkeypatch.setattr(fits, "read_runs", far_noisier)
    assert (fits.other_fits(None)["shift"] == 0).all(), "all of them give 1.5"
