"""Figures from hand-made numbers: what is drawn is what was measured."""

import pandas as pd
import pytest

from sdnet import plots


def test_figure_3_shows_each_seed_with_its_own_line_and_r_squared():
    common = {"dataset": "cifar10", "system": "sdnet18", "noise": "gaussian"}
    fits = {0: (0.02, -0.1, 0.98), 1: (0.0, 0.3, float("nan"))}
    peaks = pd.DataFrame(
        common | {"seed": seed, "residual": residual, "lambda": slope * residual + intercept, "lambda_std": 0.01}
        for seed, (slope, intercept, _) in fits.items()
        for residual in (10.0, 20.0, 30.0)
    )
    lines = pd.DataFrame(
        common | {"seed": seed, "slope": slope, "intercept": intercept, "r_squared": r_squared}
        for seed, (slope, intercept, r_squared) in fits.items()
    )
    (axis,) = plots.fitted_lines(peaks, lines, "note").axes
    drawn = [line for line in axis.lines if len(line.get_xdata()) == 2]
    assert [list(line.get_ydata()) for line in drawn] == [pytest.approx([0.1, 0.5]), pytest.approx([0.3, 0.3])]
    assert len({line.get_color() for line in drawn}) == 2
    assert axis.get_title(loc="right") == "R² = 0.98, flat"
