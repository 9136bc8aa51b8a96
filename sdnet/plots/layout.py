"""What all figures share: their look, their layout, and how images are shown."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from statsmodels.stats.proportion import proportion_confint

from sdnet.files import whole

COLUMN_WIDTH = 3.3  # inches, of a two-column page

PAGE_WIDTH = 6.9


def style() -> None:
    """One look for all figures: legible at column width, colours that colour-blind readers can tell apart."""
    sns.set_theme(context="paper", style="ticks", palette="colorblind", font_scale=0.9)
    plt.rcParams.update({"figure.dpi": 150, "savefig.bbox": "tight", "savefig.pad_inches": 0.03, "pdf.fonttype": 42})


def save(figure: Figure, path: Path) -> None:
    """Write a figure as .pdf and .png, each whole or not at all; equal figures give equal files."""
    for kind, options in {"pdf": {"metadata": {"CreationDate": None}}, "png": {"dpi": 300}}.items():
        with whole(path.with_suffix(f".{kind}")) as file:
            figure.savefig(file, format=kind, **options)


def note_below(figure: Figure, note: str) -> None:
    """Print on a figure what it was made from."""
    figure.supxlabel(note, fontsize="xx-small", color="0.4", wrap=True)


def accuracy_by(values: pd.Series, correct: pd.Series, total: pd.Series) -> pd.DataFrame:
    """Accuracy in percent by value: `mean`, and `low` and `high`, the ends of its band.

    The band is the standard deviation over seeds, or, of a single one, the 95% Wilson interval over the images.
    """
    by_value = (100 * correct / total).groupby(values).agg(["mean", "std", "count"])
    if by_value["count"].max() > 1:
        low, high = by_value["mean"] - by_value["std"], by_value["mean"] + by_value["std"]
    else:
        counts = pd.DataFrame({"correct": correct, "total": total}).groupby(values).sum()
        low, high = (100 * end for end in proportion_confint(counts.correct, counts.total, method="wilson"))
    return by_value.assign(low=low, high=high)


def panels_of(count: int, note: str, aspect: float):
    """Panels in rows of at most three; a single one is as wide as a page's column."""
    columns = min(count, 3)
    rows = -(-count // columns)
    width = COLUMN_WIDTH * max(columns, 1.4) / 1.4
    figure, axes = plt.subplots(
        rows, columns, figsize=(width, rows * width / columns * aspect), squeeze=False, layout="constrained"
    )
    note_below(figure, note)
    for axis in axes.flat[count:]:
        axis.set_axis_off()
    return figure, axes.flat[:count]


def blocks_of(runs: list, note: str, height: float):
    """A part of the figure for each run, one below the other."""
    figure = plt.figure(figsize=(PAGE_WIDTH, height * len(runs) + 0.25), layout="constrained")
    note_below(figure, note)
    return figure, figure.subfigures(len(runs), 1, squeeze=False)[:, 0]


def log_scale(axis: plt.Axes) -> None:
    """What is drawn gets logarithmic heights: ticks at 1, 2 and 5 of each decade, in equal steps if all is near."""
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    locator = LogLocator(subs=(1, 2, 5)) if high > 5 * low else MaxNLocator(5, steps=[1, 2, 5, 10])
    axis.yaxis.set(major_locator=locator, minor_locator=NullLocator(), major_formatter="{x:g}")


def without_scales(axis: plt.Axes) -> None:
    """Neither ticks nor spines."""
    axis.set(xticks=[], yticks=[])
    sns.despine(ax=axis, left=True, bottom=True)


def patch(values: np.ndarray, reach: float | None = None) -> np.ndarray:
    """Signed values (M, H, W) as an RGB image: zero is mid-grey, +-reach, by default the largest, white and black."""
    reach = np.abs(values).max() if reach is None else reach
    return rgb((0.5 + values / (2 * reach or 1)).transpose(1, 2, 0))


def rgb(image: np.ndarray) -> np.ndarray:
    """An image (H, W, M) of one or three channels with three."""
    return np.broadcast_to(image, (*image.shape[:2], 3))
