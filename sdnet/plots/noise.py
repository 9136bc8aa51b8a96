"""Accuracy under noise: Figures 2 and 3."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sdnet.experiments.labels import dataset_label, system_label
from sdnet.plots.layout import PAGE_WIDTH, accuracy_by, note_below


def lambda_curves(sweep: pd.DataFrame, note: str) -> Figure:
    """Figure 2: accuracy against lambda, one panel per noise and one curve per severity.

    A dot marks each curve's maximum, the dotted line the lambda of training; bands are the standard deviation
    over seeds, or, of a single one, the 95% Wilson interval over the images.

    Args:
        sweep: rows of sweep-<noise>.csv.
        note: printed below: the images and the scale.
    """
    return _noise_grid(sweep, note, "accuracy (%)", "λ", _draw_lambda_curves)


def _draw_lambda_curves(axis: plt.Axes, rows: pd.DataFrame) -> None:
    colours = sns.color_palette("viridis", 5)
    for severity, curve in rows.groupby("severity"):
        by_lambda = accuracy_by(curve["lambda"], curve.correct, curve.total)
        colour = colours[severity - 1]
        axis.plot(by_lambda.index, by_lambda["mean"], color=colour, linewidth=1, label=f"level {severity - 1}")
        axis.fill_between(by_lambda.index, by_lambda.low, by_lambda.high, color=colour, alpha=0.15, linewidth=0)
        axis.plot(by_lambda["mean"].idxmax(), by_lambda["mean"].max(), "o", color=colour, markersize=3.5)
    axis.axvline(rows.lambda0.iloc[0], color="0.5", linestyle=":", linewidth=1)


def fitted_lines(peaks: pd.DataFrame, lines: pd.DataFrame, note: str) -> Figure:
    """Figure 3: the best lambda against the residual, a cross per noise level, with the fitted line; a colour per seed.

    Bars are the bootstrap standard deviation of the best lambda.

    Args:
        peaks: rows of peaks-<noise>.csv, of Algorithm 1 as printed.
        lines: rows of lines-<noise>.csv, of the same variant.
        note: printed below: the images and the scale.
    """

    def draw(axis: plt.Axes, rows: pd.DataFrame) -> None:
        qualities = []
        for color, (key, points) in zip(colors, rows.groupby(keys), strict=False):
            line = fits.loc[key]
            ends = np.array([points.residual.min(), points.residual.max()])
            axis.plot(ends, line.slope * ends + line.intercept, color=color, linewidth=1)
            bars = {"fmt": "x", "markersize": 5, "linewidth": 0.6, "capsize": 0}
            axis.errorbar(points.residual, points["lambda"], points.lambda_std, color=color, **bars)
            qualities.append("none (flat)" if np.isnan(line.r_squared) else f"{line.r_squared:.2f}")
        words = "R² = " + ", ".join(qualities)
        axis.text(0.04, 0.98, words, transform=axis.transAxes, verticalalignment="top", fontsize="xx-small")
        low, high = axis.get_ylim()
        axis.set_ylim(low, high + 0.12 * (high - low))  # room for these words

    keys = ["dataset", "system", "seed", "noise"]
    fits, colors = lines.set_index(keys), sns.color_palette("flare", peaks.seed.nunique())
    return _noise_grid(peaks, note, "best λ", "residual ‖x − A(z)‖", draw)


def _noise_grid(rows: pd.DataFrame, note: str, ylabel: str, xlabel: str, draw) -> Figure:
    """A panel per noise, from left to right, and a row of panels per data set and network."""
    noises = list(rows.noise.unique())
    systems = list(rows.groupby(["dataset", "system"], sort=False))
    size = (PAGE_WIDTH * (len(noises) + 1) / 5, 1.75 * len(systems) + 0.25)  # a fifth for labels and legend
    figure, axes = plt.subplots(len(systems), len(noises), figsize=size, squeeze=False, layout="constrained")
    for line, ((dataset, system), of_system) in zip(axes, systems, strict=True):
        for axis, noise in zip(line, noises, strict=True):
            if (panel := of_system[of_system.noise == noise]).empty:  # a noise that this data set has not
                axis.set_axis_off()
                continue
            draw(axis, panel)
            sns.despine(ax=axis)
        _shown(line)[0].set_ylabel(f"{system_label(system)}\n{dataset_label(dataset)}\n{ylabel}", fontsize="small")
    for column, noise in zip(axes.T, noises, strict=True):
        column[0].set_title(noise.capitalize(), loc="left", fontsize="small")
        _shown(column)[-1].set_xlabel(xlabel, fontsize="small")
    handles, labels = _shown(axes.flat)[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize="xx-small", handlelength=1.2)
    note_below(figure, note)
    return figure


def _shown(axes) -> list[plt.Axes]:
    return [axis for axis in axes if axis.axison]
