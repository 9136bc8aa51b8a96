"""Cost as the work grows."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from sdnet.experiments.labels import system_label
from sdnet.plots.layout import PAGE_WIDTH, log_scale, note_below

TITLES = {"lambdas": "number of λ in a sweep", "iterations": "FISTA iterations"}


def growth_curves(measured: pd.DataFrame, note: str) -> Figure:
    """Milliseconds an image of a training step, and in the last panel of a sweep, against what grows.

    Args:
        measured: columns system, varied, value, ms.
        note: printed below: where it was measured, and what was not varied.
    """
    panels = list(measured.groupby("varied", sort=False))
    systems = list(measured.system.unique())
    figure, axes = plt.subplots(1, len(panels), figsize=(PAGE_WIDTH, 1.9), sharey=True, layout="constrained")
    for axis, (varied, rows) in zip(axes, panels, strict=True):
        for number, system in enumerate(systems):
            line = rows[rows.system == system].sort_values("value")
            axis.plot(line.value, line.ms, "o-", color=f"C{number}", markersize=3, linewidth=1)
        axis.set(xscale="log", xticks=sorted(rows.value.unique()))
        axis.set_xticklabels([f"{value:g}" for value in sorted(rows.value.unique())])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_xlabel(TITLES.get(varied, varied), fontsize="small")
        axis.tick_params(labelsize="x-small")
        sns.despine(ax=axis)
    log_scale(axes[0])  # which the others share
    axes[0].set_ylabel("ms an image", fontsize="small")
    handles = [plt.Line2D([], [], marker="o", markersize=3, color=f"C{k}") for k in range(len(systems))]
    labels = [system_label(system) for system in systems]
    figure.legend(handles, labels, loc="outside upper center", ncols=len(systems), frameon=False, fontsize="x-small")
    note_below(figure, note)
    return figure
