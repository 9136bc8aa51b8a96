"""The paper's figures, drawn from result files."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from statsmodels.stats.proportion import proportion_confint

from sdnet.experiments.labels import dataset_label, system_label
from sdnet.files import whole

COLUMN_WIDTH = 3.3  # inches, of a two-column page
PAGE_WIDTH = 6.9
DEPTHS = (1, 2, 3, 5, 9, 13, 17)  # of Figure 4: the first layers, and the last ones of the stages of SDNet-18-All
LINES = (0.78, 0.86, 0.94)  # a light blue that no grey atom runs into


def style() -> None:
    """One look for all figures: legible at column width, colours that colour-blind readers can tell apart."""
    sns.set_theme(context="paper", style="ticks", palette="colorblind", font_scale=0.9)
    plt.rcParams.update({"figure.dpi": 150, "savefig.bbox": "tight", "savefig.pad_inches": 0.03, "pdf.fonttype": 42})


def save(figure: Figure, path: Path) -> None:
    """Write a figure as .pdf and .png, each whole or not at all; equal figures give equal files."""
    for kind, options in {"pdf": {"metadata": {"CreationDate": None}}, "png": {"dpi": 300}}.items():
        with whole(path.with_suffix(f".{kind}")) as file:
            figure.savefig(file, format=kind, **options)


def operator(runs: list[tuple[str, str, dict]], note: str) -> Figure:
    """Figure 1: the operator A. A code's channels, each convolved with its atom, add up to the image.

    The channels that add most are shown, one a row: the code (blue below zero, red above), the atom, what they add
    (zero is mid-grey, all on one scale), and the image up to there; beside them A(z), and the input x.

    Args:
        runs: data set, network and inversion.npz of each.
        note: printed below: the images and the scale.
    """
    figure, blocks = _blocks(runs, note, height=3.8)
    for block, (dataset, system, arrays) in zip(blocks, runs, strict=True):
        count, total = len(arrays["channels"]), len(arrays["sums"])
        names = [[f"{kind}{row}" for kind in ("code", "atom", "term", "sum")] for row in range(count)]
        large = [["A(z)"] * 2 if row < count / 2 else ["x"] * 2 for row in range(count)]
        axes = block.subplot_mosaic([[*left, *right] for left, right in zip(names, large, strict=True)])
        reach, strongest = np.abs(arrays["codes"]).max(), np.abs(arrays["terms"]).max()
        for row, channel in enumerate(arrays["channels"]):
            axes[f"code{row}"].imshow(arrays["codes"][row], cmap="RdBu_r", vmin=-reach, vmax=reach)
            axes[f"atom{row}"].imshow(_patch(arrays["atoms"][row]))
            axes[f"term{row}"].imshow(_patch(arrays["terms"][row], strongest))
            axes[f"sum{row}"].imshow(_rgb(arrays["sums"][row]))
            axes[f"code{row}"].set_ylabel(f"c = {channel}", fontsize="xx-small")
        axes["A(z)"].imshow(_rgb(arrays["sums"][-1]))
        axes["x"].imshow(_rgb(arrays["images"][0]))
        titles = {"code0": "code $\\zeta_c$", "atom0": "atom $\\alpha_c$", "term0": "$\\alpha_c * \\zeta_c$"}
        titles |= {"sum0": "sum so far", "A(z)": f"$A(z)$: the sum of all {total}", "x": "input $x$"}
        for name, axis in axes.items():
            axis.set_title(titles.get(name, ""), fontsize="x-small", pad=3)
            _without_scales(axis)
        block.suptitle(f"{system_label(system)}, {dataset_label(dataset)}", fontsize="small")
    return figure


def reconstructions(runs: list[tuple[str, str, dict]], scores: pd.DataFrame, note: str) -> Figure:
    """Figure 4: test images as the codes of some layers give them back (Eq. 14).

    What differs from the mean over the test images is amplified to the contrast of the image, or nothing of it could
    be seen behind the first layers. Under each picture the PSNR in dB of the reconstruction as it is, not amplified,
    and the correlation of the two differences.

    Args:
        runs: data set, network and inversion.npz of each.
        scores: rows of inversion.csv of these runs.
        note: printed below: the images and the scale.
    """
    shown = len(runs[0][2]["images"])
    note += ". What differs from the mean image is amplified; below: PSNR without that, correlation with the image."
    figure, blocks = _blocks(runs, note, height=0.25 + 0.92 * shown)
    for block, (dataset, system, arrays) in zip(blocks, runs, strict=True):
        of_run = scores[(scores.dataset == dataset) & (scores.system == system) & (scores.seed == scores.seed.min())]
        of_run = of_run.set_index(["depth", "image"])
        depths = [depth for depth in DEPTHS if depth <= len(arrays["pictures"])]
        axes = block.subplots(len(arrays["images"]), 1 + len(depths), squeeze=False)
        for line, original, i in zip(axes, arrays["images"], range(shown), strict=True):
            line[0].imshow(_rgb(original))
            for axis, depth in zip(line[1:], depths, strict=True):
                axis.imshow(_rgb(arrays["pictures"][depth - 1, i]))
                score = of_run.loc[(depth, arrays["indices"][i])]
                axis.set_xlabel(f"{score.psnr_db:.1f} dB, {score.correlation:.2f}", fontsize="xx-small", labelpad=2)
        for axis, title in zip(axes[0], ["image", *(f"layer {depth}" for depth in depths)], strict=True):
            axis.set_title(title, fontsize="x-small", pad=3)
        for axis in axes.flat:
            _without_scales(axis)
        block.suptitle(f"{system_label(system)}, {dataset_label(dataset)}", fontsize="small")
    return figure


def dictionaries(entries: pd.DataFrame, note: str) -> Figure:
    """Figure 5: the first CSC layer's atoms as image patches, one panel for each data set and network.

    Zero is mid-grey and each atom is stretched to its own largest entry, so that its pattern shows.

    Args:
        entries: rows of dictionary.csv; of several seeds the first is drawn.
        note: printed below: the images and the scale.
    """
    entries = entries[entries.seed == entries.seed.min()]
    panels = list(entries.groupby(["dataset", "system"], sort=False))
    figure, axes = _panels(len(panels), note, aspect=1.08)
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
    figure, axes = _panels(len(panels), note, aspect=0.75)
    for axis, ((dataset, system), rows) in zip(axes, panels, strict=True):
        zeros = rows.bin_low == rows.bin_high
        totals = rows.groupby("seed")["count"].sum()
        shares = 100 * rows[zeros].set_index("seed")["count"] / totals
        for seed, bins in rows[~zeros & np.isfinite(rows.bin_low) & np.isfinite(rows.bin_high)].groupby("seed"):
            edges = [*bins.bin_low, bins.bin_high.iloc[-1]]
            axis.stairs(100 * bins["count"] / totals[seed], edges, fill=len(totals) == 1, alpha=0.8, color="C0")
        axis.plot([0, 0], [axis.get_ylim()[0], shares.mean()], color="C3", linewidth=2)
        spread = f" ± {shares.std():.1f}" if len(shares) > 1 else ""
        label = f"exactly zero: {shares.mean():.1f}{spread}%"
        axis.text(0.5, 1.02, label, transform=axis.transAxes, color="C3", ha="center", va="bottom", fontsize="small")
        axis.set_yscale("log")
        axis.set(xlabel="code entry", ylabel="share of entries (%)")
        axis.set_title(f"{system_label(system)}\n{dataset_label(dataset)}", fontsize="small", pad=14)
        sns.despine(ax=axis)
    return figure


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
        percent = 100 * curve.correct / curve.total
        by_lambda = percent.groupby(curve["lambda"]).agg(["mean", "std", "count"])
        if by_lambda["count"].max() > 1:
            low, high = by_lambda["mean"] - by_lambda["std"], by_lambda["mean"] + by_lambda["std"]
        else:
            counts = curve.set_index("lambda")
            low, high = (100 * end for end in proportion_confint(counts.correct, counts.total, method="wilson"))
        colour = colours[severity - 1]
        axis.plot(by_lambda.index, by_lambda["mean"], color=colour, linewidth=1, label=f"level {severity - 1}")
        axis.fill_between(by_lambda.index, low, high, color=colour, alpha=0.15, linewidth=0)
        axis.plot(by_lambda["mean"].idxmax(), by_lambda["mean"].max(), "o", color=colour, markersize=3.5)
    axis.axvline(rows.lambda0.iloc[0], color="0.5", linestyle=":", linewidth=1)


def best_lambdas(sweep: pd.DataFrame) -> pd.DataFrame:
    """The best lambda of each run, noise and severity, and its gain over that of training, in percentage points."""
    keys = ["dataset", "system", "seed", "noise", "severity"]
    sweep = sweep.assign(percent=100 * sweep.correct / sweep.total)
    best = sweep.loc[sweep.groupby(keys, sort=False).percent.idxmax()].set_index(keys)
    trained = sweep[np.isclose(sweep["lambda"], sweep.lambda0)].set_index(keys).percent
    return best[["lambda", "percent"]].assign(gain=best.percent - trained).reset_index()


def fitted_lines(peaks: pd.DataFrame, lines: pd.DataFrame, note: str) -> Figure:
    """Figure 3: the best lambda against the residual, a cross per noise level, with the fitted line.

    Bars are the bootstrap standard deviation of the best lambda. Of several seeds the first is drawn.

    Args:
        peaks: rows of peaks-<noise>.csv, of one variant.
        lines: rows of lines-<noise>.csv, of the same variant.
        note: printed below: the images and the scale.
    """

    def draw(axis: plt.Axes, rows: pd.DataFrame) -> None:
        run = rows.iloc[0]
        same = (lines[["dataset", "system", "seed", "noise"]] == run[["dataset", "system", "seed", "noise"]]).all(
            axis=1
        )
        line = lines[same].iloc[0]
        ends = np.array([rows.residual.min(), rows.residual.max()])
        axis.plot(ends, line.slope * ends + line.intercept, color="0.2", linewidth=1)
        axis.errorbar(
            rows.residual, rows["lambda"], rows.lambda_std, fmt="x", color="C3", markersize=5, linewidth=0.6, capsize=0
        )
        quality = "flat" if np.isnan(line.r_squared) else f"R² = {line.r_squared:.2f}"
        axis.set_title(quality, loc="right", fontsize="xx-small")

    first = peaks[peaks.seed == peaks.groupby(["dataset", "system"]).seed.transform("min")]
    return _noise_grid(first, note, "best λ", "residual ‖x − A(z)‖", draw)


def _noise_grid(rows: pd.DataFrame, note: str, ylabel: str, xlabel: str, draw) -> Figure:
    """A panel per noise, from left to right, and a row of panels per data set and network."""
    noises = list(rows.noise.unique())
    systems = list(rows.groupby(["dataset", "system"], sort=False))
    size = (PAGE_WIDTH * len(noises) / 4, 1.75 * len(systems) + 0.25)
    figure, axes = plt.subplots(len(systems), len(noises), figsize=size, squeeze=False, layout="constrained")
    for line, ((dataset, system), of_system) in zip(axes, systems, strict=True):
        for axis, noise in zip(line, noises, strict=True):
            if (panel := of_system[of_system.noise == noise]).empty:  # a noise that this data set has not
                axis.set_axis_off()
                continue
            draw(axis, panel)
            sns.despine(ax=axis)
        line[0].set_ylabel(f"{system_label(system)}\n{dataset_label(dataset)}\n{ylabel}", fontsize="small")
    for axis, noise in zip(axes[0], noises, strict=True):
        axis.set_title(noise.capitalize(), loc="left", fontsize="small")
    for axis in axes[-1]:
        axis.set_xlabel(xlabel, fontsize="small")
    last = [axis for axis in axes[0] if axis.axison][-1]
    if last.get_legend_handles_labels()[0]:
        last.legend(frameon=False, fontsize="xx-small", handlelength=1.2, loc="best")
    figure.supxlabel(note, fontsize="xx-small", color="0.4", wrap=True)
    return figure


def _blocks(runs: list, note: str, height: float):
    """A part of the figure for each run, one below the other."""
    figure = plt.figure(figsize=(PAGE_WIDTH, height * len(runs) + 0.25), layout="constrained")
    figure.supxlabel(note, fontsize="xx-small", color="0.4", wrap=True)
    return figure, figure.subfigures(len(runs), 1, squeeze=False)[:, 0]


def _without_scales(axis: plt.Axes) -> None:
    axis.set(xticks=[], yticks=[])
    sns.despine(ax=axis, left=True, bottom=True)


ATTACK_CURVES = {  # step of the ladder: what it is called, and its line
    "clean": ("not attacked", {"color": "0.5", "linestyle": "--"}),
    "a": ("crafted at the λ of training", {"color": "C0"}),
    "b": ("crafted at the λ of the prediction", {"color": "C1", "marker": "o", "markersize": 2.5}),
    "worst": ("worst of all attacks", {"color": "C3"}),
}


def attack_curves(attacks: pd.DataFrame, note: str) -> Figure:
    """Accuracy against lambda when attacked: from images crafted at the lambda of training to the worst of all attacks.

    A panel per norm and a row per network with a lambda; the thin line is the network without one, at its worst.
    Bands are the standard deviation over seeds, or, of a single one, the 95% Wilson interval over the images.

    Args:
        attacks: rows of attack-adaptive.csv.
        note: printed below: the images and the scale.
    """
    attacks = attacks[attacks.choice == "given"]
    undefended = attacks[attacks["lambda"].isna() & (attacks.step == "worst")]
    defended = attacks[attacks["lambda"].notna()]
    norms, systems = list(defended.norm.unique()), list(defended.groupby(["dataset", "system"], sort=False))
    size = (PAGE_WIDTH * len(norms) / 2.6, 2 * len(systems) + 0.5)
    figure, axes = plt.subplots(
        len(systems), len(norms), figsize=size, squeeze=False, sharex=True, sharey=True, layout="constrained"
    )
    for line, ((dataset, system), of_system) in zip(axes, systems, strict=True):
        for axis, norm in zip(line, norms, strict=True):
            rows = of_system[of_system.norm == norm]
            for step, (label, look) in ATTACK_CURVES.items():
                curve = _attack_curve(rows, step)
                axis.plot(curve.index, curve["mean"], linewidth=1.2, label=label, **look)
                axis.fill_between(curve.index, curve.low, curve.high, color=look["color"], alpha=0.15, linewidth=0)
            reference = undefended[(undefended.norm == norm) & (undefended.dataset == dataset)]
            if len(reference):
                name = f"{system_label(reference.system.iloc[0])}, worst of all attacks"
                share = 100 * (reference.correct / reference.total).mean()
                axis.axhline(share, color="0.2", linewidth=0.6, label=name)
            sns.despine(ax=axis)
        line[0].set_ylabel(f"{system_label(system)}\n{dataset_label(dataset)}\naccuracy (%)", fontsize="small")
    for axis, norm in zip(axes[0], norms, strict=True):
        axis.set_title(_radius_title(defended[defended.norm == norm]), loc="left", fontsize="small")
    for axis in axes[-1]:
        axis.set_xlabel("λ at which images are classified", fontsize="small")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False, fontsize="x-small")
    figure.supxlabel(note, fontsize="xx-small", color="0.4", wrap=True)
    return figure


def _attack_curve(rows: pd.DataFrame, step: str) -> pd.DataFrame:
    """Accuracy in percent by lambda: mean, and the ends of its band."""
    if step == "b":  # the attacker knows lambda
        rows = rows[(rows.step == step) & np.isclose(rows.lambda_attack, rows["lambda"])]
    else:
        crafted = rows[rows.step == "b"].lambda_attack.unique()
        rows = rows[(rows.step == ("a" if step == "clean" else step)) & rows.lambda_attack.isna()]
        if step == "worst":  # at another lambda nobody tried
            rows = rows[rows["lambda"].isin(crafted)]
    correct = rows.clean_correct if step == "clean" else rows.correct
    by_lambda = (100 * correct / rows.total).groupby(rows["lambda"]).agg(["mean", "std", "count"])
    if by_lambda["count"].max() > 1:
        return by_lambda.assign(low=by_lambda["mean"] - by_lambda["std"], high=by_lambda["mean"] + by_lambda["std"])
    low, high = proportion_confint(correct, rows.total, method="wilson")
    return by_lambda.assign(low=100 * np.asarray(low), high=100 * np.asarray(high))


def _radius_title(attacks: pd.DataFrame) -> str:
    norm, eps = attacks.norm.iloc[0], attacks.eps.max()
    return f"L∞, {255 * eps:g}/255" if norm == "linf" else f"L2, {eps:g}"


def _panels(count: int, note: str, aspect: float):
    """A row of panels, two to a page's column width and at most three in a row."""
    columns = min(count, 3)
    rows = -(-count // columns)
    width = COLUMN_WIDTH * max(columns, 1.4) / 1.4
    figure, axes = plt.subplots(
        rows, columns, figsize=(width, rows * width / columns * aspect), squeeze=False, layout="constrained"
    )
    figure.supxlabel(note, fontsize="xx-small", color="0.4", wrap=True)
    for axis in axes.flat[count:]:
        axis.set_axis_off()
    return figure, axes.flat[:count]


def _atoms(rows: pd.DataFrame) -> np.ndarray:
    """The first layer's atoms as an array (C, M, k, k)."""
    rows = rows[rows.layer == rows.layer.iloc[0]]
    shape = rows[["atom", "channel", "row", "column"]].max() + 1
    return rows.sort_values(["atom", "channel", "row", "column"]).value.to_numpy().reshape(shape)


def _mosaic(atoms: np.ndarray) -> np.ndarray:
    """Atoms (C, M, k, k) in a square grid, as an RGB image with lines between them."""
    # Enlarged, so that the lines can be thinner than an entry.
    patches = [_patch(atom).repeat(8, axis=0).repeat(8, axis=1) for atom in atoms]
    height, width = patches[0].shape[:2]
    side, gap = int(np.ceil(np.sqrt(len(atoms)))), height // 8
    image = np.tile(LINES, (side * (height + gap) + gap, side * (width + gap) + gap, 1))
    for i, patch in enumerate(patches):
        top, left = gap + (i // side) * (height + gap), gap + (i % side) * (width + gap)
        image[top : top + height, left : left + width] = patch
    return image


def _patch(values: np.ndarray, reach: float | None = None) -> np.ndarray:
    """Signed values (M, H, W) as an RGB image: zero is mid-grey, +-reach, by default the largest, white and black."""
    reach = np.abs(values).max() if reach is None else reach
    return _rgb((0.5 + values / (2 * reach)).transpose(1, 2, 0))


def _rgb(image: np.ndarray) -> np.ndarray:
    """An image (H, W, M) of one or three channels with three."""
    return np.broadcast_to(image, (*image.shape[:2], 3))
