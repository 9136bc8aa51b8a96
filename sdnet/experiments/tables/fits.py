"""Other lines through the points of Algorithm 1, whose own is least squares (step 12): would they choose lambda better?

Nothing is tested for it: accuracy at a lambda is read off the sweep, on a straight line between the lambdas tried.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from sdnet.experiments.labels import dataset_label, system_label
from sdnet.experiments.shown import read_runs
from sdnet.experiments.tables.layout import laid_out

# ASSUME: no level's lambda counts as known better than a fifth of the grid's usual step of 0.1; or one level whose
# bootstrap happens to have no variance would decide the line.
STD_FLOOR = 0.02
FITS = {
    "least squares": lambda r, lmbd, std: np.polyfit(r, lmbd, 1),
    "weighted": lambda r, lmbd, std: np.polyfit(r, lmbd, 1, w=1 / np.hypot(std, STD_FLOOR)),
    "Theil-Sen": lambda r, lmbd, std: stats.theilslopes(lmbd, r, method="joint")[:2],
}
NOTABLE = 0.1  # of lambda


def other_fits(folder: Path) -> pd.DataFrame:
    """How lambda is chosen by each of `FITS` in the runs of Figure 3, one row for each noise, network and fit.

    Columns: data, system, noise, fit; `lost`, accuracy below that at the best lambda of each severity, percentage
    points, mean over severities and seeds; `shift`, the largest distance of a lambda from that of least squares.
    """
    peaks, adaptive, sweep = (read_runs(folder, "figure3", kind) for kind in ("peaks", "adaptive", "sweep"))
    sweep = sweep.assign(percent=100 * sweep.correct / sweep.total, severity=sweep.severity.astype(str))
    keys = ["dataset", "system", "seed", "noise"]
    tested = adaptive[(adaptive.variant == "paper") & ~adaptive.severity.isin(["0", "mean"])].groupby(keys)
    curves = dict(list(sweep.groupby([*keys, "severity"])))
    rows = []
    for key, points in peaks[peaks.variant == "paper"].groupby(keys, sort=False):
        of_run = [(one.residual, curves[*key, one.severity]) for one in tested.get_group(key).itertuples()]
        usual = None
        for name, fit in FITS.items():
            slope, intercept = fit(points.residual, points["lambda"], points.lambda_std)
            chosen = np.array([slope * residual + intercept for residual, _ in of_run])
            chosen = chosen.clip(sweep["lambda"].min(), sweep["lambda"].max())
            usual = chosen if usual is None else usual
            lost = [
                curve.percent.max() - np.interp(lmbd, curve["lambda"], curve.percent)
                for lmbd, (_, curve) in zip(chosen, of_run, strict=True)
            ]
            about = {"data": dataset_label(key[0], of_run[0][1].data_source.iloc[0]), "system": key[1], "noise": key[3]}
            rows.append(about | {"fit": name, "lost": np.mean(lost), "shift": np.abs(chosen - usual).max()})
    by_fit = pd.DataFrame(rows).groupby(["data", "system", "noise", "fit"], sort=False)
    return by_fit.agg({"lost": "mean", "shift": "max"}).reset_index()


def fits_layout(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each network and noise, a column for each fit: the points lost, and how far its lambdas are shifted."""
    cells = table.assign(
        text=[f"{row.lost:.1f}" + (f" (λ by {row.shift:.2f})" if row.shift else "") for row in table.itertuples()],
        system=table.system.map(system_label),
    )
    rows = {"data": "Data set", "system": "Network", "noise": "Noise"}
    return laid_out(cells, rows, "fit", {name: name for name in FITS})


def fits_in_words(table: pd.DataFrame) -> str:
    """Whether the fit matters, in a sentence: where another one gives a lambda that is further away than `NOTABLE`."""
    far = table[table["shift"] > NOTABLE]
    if far.empty:
        return f"No other line gives a λ further than {NOTABLE} from that of least squares."
    farthest = far.loc[far["shift"].idxmax()]
    lost = table.groupby("fit", sort=False).lost.mean()
    others = (table.fit != "least squares").sum()
    return (
        f"Another line gives a λ further than {NOTABLE} from that of least squares in {len(far)} of "
        f"{others} cases, at most by {farthest['shift']:.2f} ({system_label(farthest.system)}, "
        f"{farthest.noise} noise, {farthest.fit}). Lost to the best λ, mean over all: "
        + ", ".join(f"{name} {value:.2f}" for name, value in lost.items())
        + " percentage points."
    )
