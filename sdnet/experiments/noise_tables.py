"""Tables 2 and 3: accuracy under noise, at the lambda of training and at that of Algorithm 1."""

from pathlib import Path

import numpy as np
import pandas as pd

from sdnet.experiments.labels import dataset_label, system_label
from sdnet.experiments.plan import noises_of
from sdnet.experiments.shown import preset_of, read_runs
from sdnet.experiments.tables import accuracy, cell, paper_values

KEYS = ["dataset", "system", "setting", "noise", "severity"]
COLUMNS = [
    *KEYS,
    "quantity",
    "paper",
    "ours",
    "ours_std",
    "n_seeds",
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
    "fixed": "{} at λ = 0.1",
    "adaptive": "{} at adaptive λ",
    "squared": "{}, squared residual",
    "parabola": "{}, smoothed maximum",
    "released": "{}, released code's fit",
}


def table2(folder: Path) -> pd.DataFrame:
    """Table 2: Gaussian noise by severity, and the fitted lambda; severity 0 is the clean test set.

    `gain` is adaptive minus fixed in percentage points, paired over the same images, with its 95% interval
    (mean of both over seeds); variants of Algorithm 1 are settings of their own.
    """
    noises = noises_of("table2", preset_of(folder))
    rows = [
        *_fixed_rows(read_runs(folder, "table2", "sweep", noises)),
        *_adaptive_rows(read_runs(folder, "table2", "adaptive", noises)),
    ]
    return _beside_paper("table2", rows)


def table3(folder: Path) -> pd.DataFrame:
    """Table 3: each noise, mean over its severities; columns as in `table2`."""
    noises = noises_of("table3", preset_of(folder))
    fixed = read_runs(folder, "table3", "sweep", noises)
    columns = ["dataset", "system", "seed", "data_source", "noise", "noise_source", "lambda", "lambda0"]
    fixed = fixed.groupby(columns, sort=False, dropna=False)[["correct", "total"]].sum().reset_index()
    adaptive = read_runs(folder, "table3", "adaptive", noises)
    rows = [*_fixed_rows(fixed.assign(severity="mean")), *_adaptive_rows(adaptive[adaptive.severity == "mean"])]
    return _beside_paper("table3", rows)


def _fixed_rows(sweep: pd.DataFrame) -> list[dict]:
    """Networks as they were trained: at the lambda of training, or without one."""
    trained = sweep[sweep["lambda"].isna() | np.isclose(sweep["lambda"], sweep.lambda0)]
    return [
        _common(group)
        | {"setting": "" if group["lambda"].isna().all() else "fixed", "severity": str(severity)}
        | accuracy("accuracy", group)
        for (_, _, _, severity), group in trained.groupby(["dataset", "system", "noise", "severity"], sort=False)
    ]


def _adaptive_rows(adaptive: pd.DataFrame) -> list[dict]:
    rows = []
    groups = adaptive.groupby(["dataset", "system", "noise", "variant", "severity"], sort=False)
    for (_, _, _, variant, severity), group in groups:
        common = _common(group) | {"setting": "adaptive" if variant == "paper" else variant, "severity": str(severity)}
        gains = {name: group[name].mean() for name in ("gain", "gain_low", "gain_high")}
        p_value = group.p_value.iloc[0] if len(group) == 1 else None
        rows.append(common | accuracy("accuracy", group) | gains | {"p_value": p_value})
        if severity == "0" and variant == "paper":  # the same clean images at the lambda of training
            fixed = group.assign(correct=group.fixed_correct)
            rows.append(common | {"setting": "fixed"} | accuracy("accuracy", fixed))
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
    paper = paper_values(table).rename(columns={"condition": "noise", "value": "paper"})
    paper = paper.assign(setting=paper.setting.fillna(""), severity=paper.severity.astype(str))
    joined = pd.DataFrame(rows).merge(paper[[*KEYS, "quantity", "paper"]], on=[*KEYS, "quantity"], how="left")
    joined["difference"] = joined.ours - joined.paper
    return joined.reindex(columns=COLUMNS)


def table2_layout(table: pd.DataFrame) -> pd.DataFrame:
    """Table 2 as the paper prints it: a column per level, which is the severity less one; before them clean images."""
    levels = {"0": "Clean"} | {str(severity): f"Level-{severity - 1}" for severity in range(1, 6)}
    return _layout(table, "severity", levels)


def table3_layout(table: pd.DataFrame) -> pd.DataFrame:
    """Table 3 as the paper prints it: a column per noise."""
    return _layout(table, "noise", {noise: noise.capitalize() for noise in table.noise.unique()})


def _layout(table: pd.DataFrame, column: str, titles: dict[str, str]) -> pd.DataFrame:
    labels = [
        ("λ of " if row.quantity == "lambda" else "") + SETTINGS[row.setting].format(system_label(row.system))
        for row in table.itertuples()
    ]
    cells = table.assign(
        Network=labels,
        text=[cell(row, ".2f") for row in table.itertuples()],
        rank=table.quantity.map({"accuracy": 0, "lambda": 1}),
        setting_rank=table.setting.map({name: rank for rank, name in enumerate(SETTINGS)}),
        system_rank=table.system.map({name: rank for rank, name in enumerate(table.system.unique())}),
    ).sort_values(["dataset", "system_rank", "setting_rank", "rank"], kind="stable")
    rows = cells[["data", "Network"]].drop_duplicates()
    wide = cells.pivot(index=["data", "Network"], columns=column, values="text")
    wide = wide.reindex(pd.MultiIndex.from_frame(rows)).reindex(columns=[name for name in titles if name in wide])
    return wide.rename(columns=titles).fillna("").reset_index().rename(columns={"data": "Data set"})
