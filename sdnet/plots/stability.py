"""How far noise moves what the first layer makes of an image."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from sdnet.experiments.labels import dataset_label, system_label
from sdnet.plots.layout import PAGE_WIDTH, log_scale, note_below

CONVOLUTION = 0.5  # where the convolution with the same atoms stands among numbers of iterations
PANELS = [  # place, against what, title
    ("layer", "lambda", "the first layer's output"),
    ("behind", "lambda", "what reaches the next layer"),
    ("layer", "n_iter", "its output, by iterations"),
]


def stability_curves(stability: pd.DataFrame, note: str) -> Figure:
    """Noise to signal of the first layer's output, and of what reaches the next layer, over that of the images.

    A row of panels per data set and a curve per network: against lambda, and against the iterations of the layer, its
    dictionary unchanged, at the lambda of training (thick) and two larger ones (thin); squares are the convolution
    with the same atoms. A network without CSC layers is a dashed line. All are geometric means over the severities;
    bands are the standard deviation over seeds. Dots: as trained.

    Args:
        stability: rows of stability.csv.
        note: printed below: the images, the noise and the scale.
    """
    iterated = stability[stability.n_iter != stability.n_iter0].dropna(subset="n_iter").severity.unique()
    gains = {"lambda": _noise_gains(stability), "n_iter": _noise_gains(stability[stability.severity.isin(iterated)])}
    datasets, systems = stability.dataset.unique(), stability.system.unique()
    size = (PAGE_WIDTH, 2.3 * len(datasets) + 0.6)
    figure, axes = plt.subplots(len(datasets), len(PANELS), figsize=size, squeeze=False, layout="constrained")
    colors = dict(zip(systems, sns.color_palette("colorblind", len(systems)), strict=True))
    for line, dataset in zip(axes, datasets, strict=True):
        for axis, (place, against, title) in zip(line, PANELS, strict=True):
            places = [place, "atoms"] if against == "n_iter" else [place]
            here = gains[against][(gains[against].dataset == dataset) & gains[against].place.isin(places)]
            for system, of_system in here.groupby("system", sort=False):
                _draw(axis, of_system, against, {"color": colors[system]}, system_label(system))
            axis.axhline(1, color="0.7", linewidth=0.6, zorder=0)
            log_scale(axis)
            axis.set_title(title, loc="left", fontsize="small")
            if against == "n_iter":
                axis.set_xscale("log", base=2)
                axis.xaxis.set_major_locator(FixedLocator([CONVOLUTION, *sorted(here.n_iter.dropna().unique())]))
                axis.xaxis.set_major_formatter(lambda x, _: "A*x" if x == CONVOLUTION else f"{x:g}")
            axis.set_xlabel("λ" if against == "lambda" else "FISTA iterations", fontsize="small")
            sns.despine(ax=axis)
        line[0].set_ylabel(f"{dataset_label(dataset)}\nnoise to signal,\nover the images'", fontsize="small")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False, fontsize="x-small")
    note_below(figure, note)
    return figure


def _noise_gains(stability: pd.DataFrame) -> pd.DataFrame:
    """Noise to signal over that of the images, geometric mean over severities: of each run, place and condition."""
    keys = ["dataset", "system", "seed", "place", "lambda", "lambda0", "n_iter", "n_iter0"]
    logs = np.log(stability.noise_to_signal / stability.image_noise_to_signal)
    means = logs.groupby([stability[key] for key in keys], sort=False, dropna=False).mean()
    return np.exp(means).rename("gain").reset_index()


def _draw(axis: plt.Axes, rows: pd.DataFrame, against: str, look: dict, label: str) -> None:
    if rows.lambda0.isna().all():
        low, mean, high = _band(rows.gain.agg(["mean", "std"]))
        axis.axhline(mean, linestyle="--", linewidth=1.2, label=label, **look)
        axis.axhspan(low, high, alpha=0.12, linewidth=0, **look)
        return
    code = rows[rows.place != "atoms"]
    shown = code[code.n_iter == code.n_iter0 if against == "lambda" else np.isclose(code["lambda"], code.lambda0)]
    low, mean, high = _band(shown.groupby(against).gain.agg(["mean", "std"]))
    axis.plot(mean.index, mean, linewidth=1.2, label=label, **look)
    axis.fill_between(mean.index, low, high, alpha=0.15, linewidth=0, **look)
    trained = np.abs(mean.index - code[f"{against}0"].iloc[0]).argmin()
    axis.plot(mean.index[trained], mean.iloc[trained], "o", markersize=3.5, **look)
    if against == "n_iter":
        axis.plot(CONVOLUTION, rows[rows.place == "atoms"].gain.mean(), "s", markersize=3.5, **look)
        tried = code.groupby("lambda").filter(lambda of_lambda: of_lambda.n_iter.nunique() > 1)
        for _, larger in tried.drop(shown.index).groupby("lambda"):
            axis.plot(larger.groupby("n_iter").gain.mean(), linewidth=0.6, **look)


def _band(summary: pd.DataFrame | pd.Series) -> tuple:
    """Mean, and a standard deviation over seeds below and above; of one seed no band."""
    spread = np.nan_to_num(summary["std"])
    return summary["mean"] - spread, summary["mean"], summary["mean"] + spread
