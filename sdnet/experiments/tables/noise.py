"""Accuracy under noise, at the lambda of training and at Algorithm 1's: Tables 2, 3 and 5, the readings, a control."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from sdnet.experiments import results, shown
from sdnet.experiments.labels import dataset_label, system_label
from sdnet.experiments.project import preset_of
from sdnet.experiments.settings.networks import has_lambda
from sdnet.experiments.shown import read_runs
from sdnet.experiments.tables.codes import zero_shares
from sdnet.experiments.tables.layout import accuracy, beside, cell, laid_out, paper_values

KEYS = ["dataset", "system", "setting", "noise", "severity"]
COLUMNS = [
    *KEYS,
    "quantity",
    "paper",
    "ours",
    "ours_std",
    "n_seeds",
    "images",
    "ours_low",
    "ours_high",
    "difference",
    "gain",
    "gain_low",
    "gain_high",
    "p_value",
    "data",
    "noise_source",
]
SETTINGS = {
    "": "{}",
    "fixed": "{} at the λ of training",
    "adaptive": "{} at adaptive λ",
    "squared": "{}, squared residual",
    "parabola": "{}, smoothed maximum",
    "released": "{}, released code's fit",
    "renormalised": "{}, batch norms of the noisy images",
    "fixed, renormalised": "{} at the λ of training, batch norms of the noisy images",
    "adaptive, renormalised": "{} at adaptive λ, batch norms of the noisy images",
}


def table2(folder: Path) -> pd.DataFrame:
    """Table 2: Gaussian noise by severity, and the fitted lambda; severity 0 is the clean test set.

    `gain` is adaptive minus fixed in percentage points, paired over the same images, with its 95% interval
    (mean of both over seeds); variants of Algorithm 1 are settings of their own.
    """
    rows = [
        *_fixed_rows(read_runs(folder, "table2", "sweep")),
        *_adaptive_rows(read_runs(folder, "table2", "adaptive")),
    ]
    return _beside_paper("table2", rows)


def table3(folder: Path) -> pd.DataFrame:
    """Table 3: each noise, mean over its severities; columns as in `table2`."""
    rows = [*_fixed_rows(_mean_sweep(folder, "table3")), *_adaptive_rows(_mean_adaptive(folder, "table3"))]
    return _beside_paper("table3", rows)


def table5(folder: Path) -> pd.DataFrame:
    """Table 5: clean accuracy, and each noise at the lambda of Algorithm 1, by FISTA iterations (column `n_iter`).

    Columns as in `table2`; clean accuracy has the noise "clean".
    """
    rows = [*_clean_rows(folder, "table5", ""), *_adaptive_rows(_mean_adaptive(folder, "table5", ["paper"]))]
    return _beside_paper("table5", rows).assign(n_iter=lambda table: table.system.map(_iterations(folder)))


def readings(folder: Path) -> pd.DataFrame:
    """The two readings of the layer: clean accuracy, each noise at both lambdas, and the code's share of zeros.

    Columns as in `table2`. The paper's values stand beside neither: which of the two they are of is the question.
    """
    rows = [
        *_clean_rows(folder, "readings", "fixed"),
        *_fixed_rows(_mean_sweep(folder, "readings")),
        *_zero_rows(folder, "readings"),
        *_adaptive_rows(_mean_adaptive(folder, "readings", ["paper"])),
    ]
    return pd.DataFrame(rows).reindex(columns=COLUMNS)


def control(folder: Path) -> pd.DataFrame:
    """A control for Algorithm 1: Table 3, and the same with the statistics of batch norms taken from the noisy images.

    Columns as in `table2`.
    """
    rows = [
        *_fixed_rows(_mean_sweep(folder, "control")),
        *_adaptive_rows(_mean_adaptive(folder, "control", ["paper"])),
        *_renormalised_rows(folder),
    ]
    return _beside_paper("table3", rows)


def noise_and_calibration_note(folder: Path, target: str, table: pd.DataFrame) -> str:
    """How the noise of a table was made, and on how many test and training images its numbers are, in words."""
    return f"{shown.noise_note(table.noise_source, table.images)}; {shown.calibration_note(folder, target)}"


def gains_of_best_lambdas(sweep: pd.DataFrame) -> pd.DataFrame:
    """The best lambda of each run, noise and severity, and its gain over that of training, in percentage points."""
    keys = ["dataset", "system", "seed", "noise", "severity"]
    sweep = sweep.assign(percent=100 * sweep.correct / sweep.total)
    best = sweep.loc[sweep.groupby(keys, sort=False).percent.idxmax()].set_index(keys)
    trained = sweep[results.as_trained(sweep)].set_index(keys).percent
    return best[["lambda", "percent"]].assign(gain=best.percent - trained).reset_index()


def _mean_sweep(folder: Path, target: str) -> pd.DataFrame:
    """The sweeps of every noise, all severities together."""
    return _severities_together(read_runs(folder, target, "sweep"), ["lambda", "lambda0"])


def _severities_together(counts: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Counts of each run and noise, and of further keys, all severities together."""
    columns = ["dataset", "system", "seed", "data_source", "noise", "noise_source", *keys]
    together = counts.groupby(columns, sort=False, dropna=False)[["correct", "total"]].sum()
    return together.reset_index().assign(severity="mean")


def _mean_adaptive(folder: Path, target: str, variants: Sequence[str] = ()) -> pd.DataFrame:
    """Algorithm 1 under every noise, all severities together; of some of its variants, or of all."""
    adaptive = read_runs(folder, target, "adaptive")
    chosen = adaptive.variant.isin(variants) if variants else True
    return adaptive[(adaptive.severity == "mean") & chosen]


def _iterations(folder: Path) -> dict[str, int]:
    """FISTA iterations of each network of a preset."""
    return {name: network.options.n_iter for name, network in preset_of(folder).systems.items()}


def _clean_rows(folder: Path, target: str, setting: str) -> list[dict]:
    """Accuracy on all clean test images, after the last epoch."""
    runs = read_runs(folder, target, "accuracy").assign(noise="clean", noise_source=None)
    return [
        _common(group) | {"setting": setting, "severity": ""} | accuracy(group)
        for _, group in runs[runs.checkpoint == "last"].groupby(["dataset", "system"], sort=False)
    ]


def _zero_rows(folder: Path, target: str) -> list[dict]:
    """The share of exact zeros in the first CSC layer's code of the clean test images (section D.1)."""
    sources = read_runs(folder, target, "accuracy").groupby(["dataset", "system"]).data_source.first()
    shares = zero_shares(read_runs(folder, target, "codes"))
    first = shares[shares.layer == shares.groupby(["dataset", "system"]).layer.transform("first")]
    return [
        {
            "dataset": dataset,
            "system": system,
            "noise": "clean",
            "data": dataset_label(dataset, sources[dataset, system]),
            "setting": "fixed",
            "severity": "",
            "quantity": "zeros",
            "ours": group.zero_percent.mean(),
            "ours_std": group.zero_percent.std(),
            "n_seeds": len(group),
        }
        for (dataset, system), group in first.groupby(["dataset", "system"], sort=False)
    ]


def _fixed_rows(sweep: pd.DataFrame) -> list[dict]:
    """Networks as they were trained: at the lambda of training, or without one."""
    trained = sweep[results.as_trained(sweep)]
    return [
        _common(group)
        | {"setting": "" if group["lambda"].isna().all() else "fixed", "severity": str(severity)}
        | accuracy(group)
        for (_, _, _, severity), group in trained.groupby(["dataset", "system", "noise", "severity"], sort=False)
    ]


def _adaptive_rows(adaptive: pd.DataFrame) -> list[dict]:
    rows = []
    groups = adaptive.groupby(["dataset", "system", "noise", "variant", "severity"], sort=False)
    for (_, _, _, variant, severity), group in groups:
        common = _common(group) | {"setting": "adaptive" if variant == "paper" else variant, "severity": str(severity)}
        gains = {name: group[name].mean() for name in ("gain", "gain_low", "gain_high")}
        p_value = group.p_value.iloc[0] if len(group) == 1 else None
        rows.append(common | accuracy(group) | gains | {"p_value": p_value})
        if severity == "0" and variant == "paper":  # the same clean images at the lambda of training
            fixed = group.assign(correct=group.fixed_correct)
            rows.append(common | {"setting": "fixed"} | accuracy(fixed))
        if severity != "mean":
            rows.append(
                common
                | {
                    "quantity": "lambda",
                    "ours": group["lambda"].mean(),
                    "ours_std": group["lambda"].std(),
                    "n_seeds": len(group),
                    "ours_low": group.lambda_low.mean(),
                    "ours_high": group.lambda_high.mean(),
                }
            )
    return rows


def _renormalised_rows(folder: Path) -> list[dict]:
    """Networks with the batch norms' statistics of the noisy images, all severities together."""
    systems = preset_of(folder).systems
    settings = {"trained": "fixed, renormalised", "algorithm1": "adaptive, renormalised"}
    counts = read_runs(folder, "control", "renormalised")
    groups = _severities_together(counts, ["choice"]).groupby(["dataset", "system", "noise", "choice"], sort=False)
    return [
        _common(group)
        | {"setting": settings[choice] if has_lambda(systems[system].model) else "renormalised"}
        | {"severity": "mean"}
        | accuracy(group)
        for (_, system, _, choice), group in groups
    ]


def _common(group: pd.DataFrame) -> dict:
    first = group.iloc[0]
    return {
        "dataset": first.dataset,
        "system": first.system,
        "noise": first.noise,
        "data": dataset_label(first.dataset, first.data_source),
        "noise_source": first.noise_source,
    }


def _beside_paper(table: str, rows: list[dict]) -> pd.DataFrame:
    return beside(rows, _paper_rows(table), [*KEYS, "quantity"], COLUMNS)


def _paper_rows(table: str) -> pd.DataFrame:
    paper = paper_values(table).rename(columns={"condition": "noise"})
    return paper.assign(setting=paper.setting.fillna(""), severity=paper.severity.fillna("").astype(str))


def table2_layout(table: pd.DataFrame) -> pd.DataFrame:
    """Table 2 as the paper prints it: a column per level, which is the severity less one; before them clean images."""
    levels = {"0": "Clean"} | {str(severity): f"Level-{severity - 1}" for severity in range(1, 6)}
    return _layout(table, "severity", levels)


def table3_layout(table: pd.DataFrame) -> pd.DataFrame:
    """Table 3 as the paper prints it: a column per noise."""
    return _layout(table, "noise", {noise: noise.capitalize() for noise in table.noise.unique()})


def table5_layout(table: pd.DataFrame) -> pd.DataFrame:
    """Table 5 as the paper prints it: a row per number of iterations. Where ImageNet was not run its rows follow."""
    cells = table.assign(text=[cell(row, ".2f") for row in table.itertuples()])
    if "imagenet" not in set(table.dataset):
        paper = _paper_rows("table5")
        n_iter = paper.system.map(table.groupby("system").n_iter.first())
        printed = paper.assign(
            data="ImageNet, the paper's values", n_iter=n_iter, text=paper.value.map("{:.2f}".format)
        )
        cells = pd.concat([cells, printed[printed.n_iter.notna()].astype({"n_iter": int})])
    noises = [noise for noise in cells.noise.unique() if noise != "clean"]
    titles = {"clean": "Natural accuracy"} | {noise: noise.capitalize() for noise in noises}
    return laid_out(cells, {"data": "Data set", "n_iter": "FISTA iterations"}, "noise", titles)


def readings_layout(table: pd.DataFrame) -> pd.DataFrame:
    """The readings in Table 3's layout, with clean accuracy and zeros; the paper's values in rows of their own."""
    printed = pd.concat(
        [
            _paper_rows("table1").query("quantity == 'accuracy'").assign(setting="fixed"),
            _paper_rows("table3"),
            _paper_rows("figure6").assign(setting="fixed"),
        ]
    ).fillna({"system": "sdnet18", "noise": "clean"})
    printed = printed[(printed.system == "sdnet18") & printed.dataset.isin(table.dataset)]
    printed = printed.assign(system="SDNet-18 of the paper", ours=printed.value, paper=None)
    printed["data"] = printed.dataset.map(dataset_label)
    cells = pd.concat([table, printed.reindex(columns=table.columns)], ignore_index=True)
    noises = [noise for noise in table.noise.unique() if noise != "clean"]
    titles = {"clean": "Clean"} | {noise: noise.capitalize() for noise in noises} | {"zeros": "Zeros in the code"}
    return _layout(cells.assign(column=cells.noise.where(cells.quantity != "zeros", "zeros")), "column", titles)


def _layout(table: pd.DataFrame, column: str, titles: dict[str, str]) -> pd.DataFrame:
    labels = [
        ("λ of " if row.quantity == "lambda" else "") + SETTINGS[row.setting].format(system_label(row.system))
        for row in table.itertuples()
    ]
    cells = table.assign(
        Network=labels,
        text=[cell(row, ".2f") for row in table.itertuples()],
        rank=table.quantity.map({"accuracy": 0, "zeros": 0, "lambda": 1}),
        setting_rank=table.setting.map({name: rank for rank, name in enumerate(SETTINGS)}),
        system_rank=table.system.map({name: rank for rank, name in enumerate(table.system.unique())}),
    ).sort_values(["dataset", "system_rank", "setting_rank", "rank"], kind="stable")
    return laid_out(cells, {"data": "Data set", "Network": "Network"}, column, titles)
