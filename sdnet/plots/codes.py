"""What the first layer learned and what its codes look like: Figures 5 and 6."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sdnet.experiments.labels import dataset_label, system_label
from sdnet.experiments.tables.codes import zero_shares
from sdnet.plots.layout import panels_of, patch

LINES = (0.78, 0.86, 0.94)  # a light blue that no grey atom runs into


def dictionaries(entries: pd.DataFrame, note: str) -> Figure:
    """Figure 5: the first CSC layer's atoms as image patches, one panel for each data set and network.

    Zero is mid-grey and each atom is stretched to its own largest entry, so that its pattern shows.

    Args:
        entries: rows of dictionary.csv; of several seeds the first is drawn.
        note: printed below: the images and the scale.
    """
    entries = entries[entries.seed == entries.seed.iloc[0]]
    panels = list(entries.groupby(["dataset", "system"], sort=False))
    figure, axes = panels_of(len(panels), note, aspect=1.08)
    for axis, ((dataset, system), rows) in zip(axes, panels, strict=True):
        axis.imshow(_mosaic(_atoms(rows)), interpolation="nearest")
        axis.set_title(f"{system_label(system)}\n{dataset_label(dataset)}", fontsize="small")
        axis.set_axis_off()
    return figure


def code_histograms(codes: pd.DataFrame, note: str) -> Figure:
    """Figure 6: how often each value occurs in the first CSC layer's code, with the share of exact zeros.

    Args:
        codes: rows of codes.csv; seeds are drawn over each other, and the share is their mean.
        note: printed below: the images and the scale.
    """
    first_layers = codes.groupby(["dataset", "system", "seed"]).layer.transform("first")
    panels = list(codes[codes.layer == first_layers].groupby(["dataset", "system"], sort=False))
    figure, axes = panels_of(len(panels), note, aspect=0.75)
    for axis, ((dataset, system), rows) in zip(axes, panels, strict=True):
        zeros = rows.bin_low == rows.bin_high
        totals = rows.groupby("seed")["count"].sum()
        shares = zero_shares(rows).zero_percent
        for seed, bins in rows[~zeros & np.isfinite(rows.bin_low) & np.isfinite(rows.bin_high)].groupby("seed"):
            edges = [*bins.bin_low, bins.bin_high.iloc[-1]]
            axis.stairs(100 * bins["count"] / totals[seed], edges, fill=len(totals) == 1, alpha=0.8, color="C0")
        axis.plot([0, 0], [axis.get_ylim()[0], shares.mean()], color="C3", linewidth=2)
        spread = f" ± {shares.std():.1f}" if len(shares) > 1 else ""
        label = f"exactly zero: {shares.mean():.1f}{spread}%"
        axis.text(0.5, 1.02, label, transform=axis.transAxes, color="C3", ha="center", va="bottom", fontsize="small")
        axis.set_yscale("log")
        axis.locator_params(axis="x", nbins=4)  # as many labels as have room
        axis.set_xlabel("code entry", fontsize="small")
        axis.set_ylabel("share of entries (%)", fontsize="small")
        axis.set_title(f"{system_label(system)}\n{dataset_label(dataset)}", fontsize="small", pad=14)
        sns.despine(ax=axis)
    return figure


def _atoms(rows: pd.DataFrame) -> np.ndarray:
    """The rows of a dictionary.csv as an array of atoms (C, M, k, k)."""
    shape = rows[["atom", "channel", "row", "column"]].max() + 1
    return rows.sort_values(["atom", "channel", "row", "column"]).value.to_numpy().reshape(shape)


def _mosaic(atoms: np.ndarray) -> np.ndarray:
    """Atoms (C, M, k, k) in a square grid, as an RGB image with lines between them."""
    # Enlarged, so that the lines can be thinner than an entry.
    patches = [patch(atom).repeat(8, axis=0).repeat(8, axis=1) for atom in atoms]
    height, width = patches[0].shape[:2]
    side, gap = int(np.ceil(np.sqrt(len(atoms)))), height // 8
    image = np.tile(LINES, (side * (height + gap) + gap, side * (width + gap) + gap, 1))
    for i, enlarged in enumerate(patches):
        top, left = gap + (i // side) * (height + gap), gap + (i % side) * (width + gap)
        image[top : top + height, left : left + width] = enlarged
    return image
