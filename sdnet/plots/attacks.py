"""Accuracy under attack."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sdnet.experiments.labels import dataset_label, radius_label, system_label
from sdnet.plots.layout import PAGE_WIDTH, accuracy_by, note_below

ATTACK_CURVES = {  # step of the ladder: what it is called, and its line
    "clean": ("not attacked", {"color": "0.5", "linestyle": "--"}),
    "a": ("crafted at the λ of training", {"color": "C0"}),
    "b": ("crafted at the λ of the prediction", {"color": "C2", "marker": "o", "markersize": 2.5}),
    "worst": ("worst of all attacks", {"color": "C3"}),
}

REFERENCE_LINES = ("-", "--", "-.", ":")  # of networks without a lambda


def attack_curves(attacks: pd.DataFrame, note: str) -> Figure:
    """Accuracy against lambda when attacked: from images crafted at the lambda of training to the worst of all attacks.

    A panel per norm and a row per network with a lambda; thin lines are the networks without one, at their worst.
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
            of_networks = zip(reference.groupby("system", sort=False), itertools.cycle(REFERENCE_LINES), strict=False)
            for (other, counts), look in of_networks:
                share = 100 * (counts.correct / counts.total).mean()
                name = f"{system_label(other)}, worst of all attacks"
                axis.axhline(share, color="0.2", linewidth=0.6, linestyle=look, label=name)
            sns.despine(ax=axis)
        line[0].set_ylabel(f"{system_label(system)}\n{dataset_label(dataset)}\naccuracy (%)", fontsize="small")
    for axis, norm in zip(axes[0], norms, strict=True):
        axis.set_title(_radius_title(defended[defended.norm == norm]), loc="left", fontsize="small")
    for axis in axes[-1]:
        axis.set_xlabel("λ at which images are classified", fontsize="small")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False, fontsize="x-small")
    note_below(figure, note)
    return figure


def _attack_curve(rows: pd.DataFrame, step: str) -> pd.DataFrame:
    """Accuracy in percent by lambda: mean, and the ends of its band."""
    if step == "b":  # the attacker knows lambda
        rows = rows[(rows.step == step) & np.isclose(rows.lambda_attack, rows["lambda"])]
    else:
        crafted = rows[rows.step == "b"].groupby("seed").lambda_attack.unique()
        rows = rows[(rows.step == ("a" if step == "clean" else step)) & rows.lambda_attack.isna()]
        if step == "worst":  # at another lambda nobody tried
            rows = rows[[lmbd in crafted[seed] for seed, lmbd in zip(rows.seed, rows["lambda"], strict=True)]]
    correct = rows.clean_correct if step == "clean" else rows.correct
    curve = accuracy_by(rows["lambda"], correct, rows.total)
    return curve[curve["count"] == curve["count"].max()]  # not at a lambda that some seed alone was tuned to


def transfer(crafted: pd.DataFrame, note: str) -> Figure:
    """Accuracy of images crafted at one lambda (rows) and classified at another (columns), above them not attacked.

    A panel per norm and a row of panels per network, framed where both are the same lambda. Means over seeds, of the
    pairs of lambdas that every seed has.

    Args:
        crafted: rows of attack-adaptive.csv, of one attack alone, at several `lambda_attack`.
        note: printed below: the images and the scale.
    """
    norms, systems = list(crafted.norm.unique()), list(crafted.groupby(["dataset", "system"], sort=False))
    grids = {(name, norm): _grid(rows[rows.norm == norm]) for name, rows in systems for norm in norms}
    height = sum(0.24 * max(len(grids[name, norm]) for norm in norms) + 0.5 for name, _ in systems) + 0.6
    figure, axes = plt.subplots(
        len(systems), len(norms), figsize=(PAGE_WIDTH, height), squeeze=False, layout="constrained"
    )
    for line, (name, rows) in zip(axes, systems, strict=True):
        for axis, norm in zip(line, norms, strict=True):
            grid = grids[name, norm]
            numbers = {"annot": True, "fmt": ".0f", "annot_kws": {"fontsize": "xx-small"}}
            sns.heatmap(grid, vmin=0, vmax=100, cmap="viridis", cbar=False, ax=axis, **numbers)
            for column in np.flatnonzero(grid.columns.isin(grid.index)):
                row = grid.index.get_loc(grid.columns[column])
                frame = plt.Rectangle(
                    (column, row), 1, 1, fill=False, edgecolor="C1", linewidth=1.2, clip_on=False, zorder=3
                )
                axis.add_patch(frame)
            axis.axhline(1, color="white", linewidth=2)
            axis.set_title(f"{_radius_title(rows[rows.norm == norm])}: accuracy (%)", loc="left", fontsize="small")
            axis.set_xlabel("λ at which images are classified", fontsize="small")
            axis.set_ylabel("")
            axis.tick_params(labelsize="x-small", length=0, labelrotation=0)
        dataset, system = name
        label = f"{system_label(system)}\n{dataset_label(dataset)}\ncrafted at λ ="
        line[0].set_ylabel(label, fontsize="small")
    note_below(figure, note)
    return figure


def _grid(crafted: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy in percent: not attacked, then a row per lambda of the attacker; a column per lambda."""
    share = 100 * crafted.correct / crafted.total
    pairs = share.groupby([crafted.lambda_attack, crafted["lambda"]]).agg(["mean", "count"])
    attacked = pairs["mean"][pairs["count"] == pairs["count"].max()].unstack()
    clean = (100 * crafted.clean_correct / crafted.total).groupby(crafted["lambda"]).mean()
    return pd.concat([clean.to_frame("not attacked").T, attacked])


def _radius_title(attacks: pd.DataFrame) -> str:
    return radius_label(attacks.norm.iloc[0], attacks.eps.max())
