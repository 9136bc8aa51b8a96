"""Codes (Figure 6), and images back from them (Figure 4)."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from sdnet.commands.evidence.runs import BOTH, Row, Runs, kendall, normal, point
from sdnet.experiments.tables.codes import zero_shares
from sdnet.robustness.statistics import Interval


def codes(runs: Runs) -> Iterator[Row]:
    """How much of the code is exactly zero."""
    for system in BOTH:
        if seeds := runs.seeds([system], "codes.csv"):
            shares = [zero_shares(runs.read(system, seed, "codes")).zero_percent.iloc[0] for seed in seeds]
            yield runs.row(("zeros", system, "", "clean", ""), [point(share) for share in shares], seeds)


def inversion(runs: Runs) -> Iterator[Row]:
    """How much of an image is left in its reconstruction, by depth."""
    system = "sdnet18-all-plain"
    if not (seeds := runs.seeds([system], "inversion.csv")):
        return
    found = [
        runs.read(system, seed, "inversion").pivot(index="image", columns="depth", values="correlation")
        for seed in seeds
    ]
    for depth in found[0].columns:
        means = [_mean(one[depth]) for one in found]
        yield runs.row(("correlation", system, "", "clean", str(depth)), means, seeds)
    third = max(len(found[0].columns) // 3, 1)
    falls = [_mean(one.iloc[:, :third].mean(axis=1) - one.iloc[:, -third:].mean(axis=1)) for one in found]
    yield runs.row(("correlation", f"{system} shallow", f"{system} deep", "clean", ""), falls, seeds)
    order = [point(kendall(one.mean(), one.columns)) for one in found]
    yield runs.row(("kendall", system, "depth", "clean", ""), order, seeds)


def _mean(values: pd.Series) -> Interval:
    """Mean over images with its normal interval."""
    return normal(values.mean(), values.std() / np.sqrt(len(values)))
