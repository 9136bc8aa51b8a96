"""The paper's tables beside ours, from result files."""

import re
from pathlib import Path

import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from sdnet.experiments import results
from sdnet.experiments.catalogue import REFERENCE
from sdnet.experiments.labels import KEPT, dataset_label, scale_label, system_label
from sdnet.experiments.plan import SEVERITY_COUNT
from sdnet.experiments.project import preset_of, project_folder
from sdnet.experiments.shown import read_runs
from sdnet.files import write_text

BESIDE = "Ours, the paper's value in brackets where it has one. Scale of ours:"

TABLE_COLUMNS = {
    "dataset": "data set",
    "system": "network",
    "quantity": "what was measured",
    "unit": "its unit",
    "paper": "the paper's value",
    "ours": "mean over seeds",
    "ours_std": "standard deviation over seeds (n - 1); empty for one seed",
    "n_seeds": "number of seeds",
    "images": "accuracy: number of test images",
    "ours_low": "accuracy: lower end of the 95% Wilson interval over test images, which seeds and severities share",
    "ours_high": "accuracy: upper end",
    "difference": "ours - paper",
    "released": "value printed with the authors' released code",
    "measure": "how ours was measured",
    "data": "the images, in words",
    "scale": "width, epochs and training images of ours",
}


def table1(folder: Path) -> pd.DataFrame:
    """Table 1: size, accuracy, memory and speed of every network on every data set, one quantity a row."""
    return _accuracy_and_cost(folder, "table1")


def table6(folder: Path) -> pd.DataFrame:
    """Table 6: the same of networks with one CSC layer and of those with CSC layers alone."""
    return _accuracy_and_cost(folder, "table6")


def _accuracy_and_cost(folder: Path, table: str) -> pd.DataFrame:
    runs = read_runs(folder, table, "accuracy")
    rows = [
        row
        for (dataset, system), group in runs.groupby(["dataset", "system"], sort=False)
        for row in _rows(dataset, system, group, folder)
    ]
    return _beside_paper(table, rows)


def _rows(dataset: str, system: str, runs: pd.DataFrame, folder: Path) -> list[dict]:
    first = runs.iloc[0]
    common = {
        "dataset": dataset,
        "system": system,
        "data": dataset_label(dataset, first.data_source),
        "scale": scale_label(first.width, first.epochs, first.train_images),
    }
    last, best = runs[runs.checkpoint == "last"], runs[runs.checkpoint == "best_on_test"]
    speed = results.read(folder / "benchmark" / f"{dataset}.csv", "benchmark").set_index("system").loc[system]
    on_gpu = pd.notna(speed.peak_memory_bytes)
    memory = speed.peak_memory_bytes if on_gpu else speed.saved_bytes
    how = f"{speed.device}, {speed.precision}, batch size {speed.batch_size}"
    if (gpus := preset_of(folder).datasets[dataset].gpus) > 1:
        how += f" (the part of one of {gpus} GPUs; the paper's figure is of all)"
    held = "largest memory allocated" if on_gpu else KEPT
    return [
        common | {"quantity": "parameters", "unit": "million", "ours": first.parameters / 1e6, "measure": "counted"},
        common | accuracy(last) | {"measure": "after the last epoch"},
        common | accuracy(best) | {"quantity": "accuracy_best_epoch", "measure": "at the epoch the test set picks"},
        common | {"quantity": "memory", "unit": "GB", "ours": memory / 1e9, "measure": f"{held}; {how}"},
        common | {"quantity": "speed", "unit": "images/s", "ours": speed.train_images_per_second, "measure": how},
        common | {"quantity": "speed_ratio", "unit": "of ResNet-18's", "ours": speed.train_rate_ratio, "measure": how},
    ]


def accuracy(runs: pd.DataFrame) -> dict:
    """Mean, spread and interval of an accuracy, from counts `correct` of `total`, one row per seed.

    The interval is over test images: seeds share them, and so do the severities of a mean, so that each image counts
    once. The variance of training is in the spread.
    """
    shares = 100 * runs.correct / runs.total
    images = runs.total.mean() / (SEVERITY_COUNT if "severity" in runs and runs.severity.iloc[0] == "mean" else 1)
    low, high = proportion_confint(shares.mean() / 100 * images, images, method="wilson")
    return {
        "quantity": "accuracy",
        "unit": "percent",
        "ours": shares.mean(),
        "ours_std": shares.std(),
        "n_seeds": len(runs),
        "images": images,
        "ours_low": 100 * low,
        "ours_high": 100 * high,
    }


def _beside_paper(table: str, rows: list[dict]) -> pd.DataFrame:
    paper = paper_values(table)
    speeds = paper[paper.quantity == "speed"]
    printed = paper_values("table1")
    reference = printed[(printed.quantity == "speed") & (printed.system == REFERENCE)].set_index("dataset").value
    ratios = speeds.assign(quantity="speed_ratio", value=speeds.value / speeds.dataset.map(reference).astype(float))
    return beside(rows, pd.concat([paper, ratios]), ["dataset", "system", "quantity"], list(TABLE_COLUMNS))


def beside(rows: list[dict], printed: pd.DataFrame, keys: list[str], columns: list[str]) -> pd.DataFrame:
    """Rows of a table with what the paper prints there, as from `paper_values`, and the difference."""
    printed = printed.rename(columns={"value": "paper"})[[*keys, "paper", "released"]]
    joined = pd.DataFrame(rows).merge(printed, on=keys, how="left")
    return joined.assign(difference=joined.ours - joined.paper).reindex(columns=columns)


def paper_values(table: str | None = None) -> pd.DataFrame:
    """What the paper prints in a table, or in all of them, one number a row."""
    values = pd.read_csv(project_folder() / "config" / "paper_values.csv")
    return values if table is None else values[values.table == table]


def cost_layout(table: pd.DataFrame) -> pd.DataFrame:
    """Table 1 or 6 in the paper's layout: a row per network, ours with the paper's value in brackets."""
    shown = {"parameters": "Model size (M)", "accuracy": "Top-1 (%)", "memory": "Memory (GB)", "speed": "Speed (n/s)"}
    formats = {"parameters": ".3g", "accuracy": ".2f", "memory": ".3g", "speed": ",.0f"}
    cells = table[table.quantity.isin(shown)]
    cells = cells.assign(
        text=[cell(row, formats[row.quantity]) for row in cells.itertuples()], system=cells.system.map(system_label)
    )
    return laid_out(cells, {"data": "Data set", "system": "Network"}, "quantity", shown)


def laid_out(
    cells: pd.DataFrame, rows: dict[str, str], column: str, titles: dict[str, str], blank: str = ""
) -> pd.DataFrame:
    """The column `text` of some cells as a table, in rows of their first appearance.

    Args:
        cells: one a row.
        rows: columns of `cells` that a row of the table begins with, and what they are called there.
        column: that which the table has a column for each value of,
        titles: in this order and called so; values that no cell has are passed over.
        blank: where there is no cell.
    """
    order = pd.MultiIndex.from_frame(cells[list(rows)].drop_duplicates())
    found = cells.pivot(index=list(rows), columns=column, values="text").reindex(order)
    found = found[[value for value in titles if value in found]].fillna(blank).reset_index()
    return found.rename(columns=rows | titles).rename_axis(columns=None)


def cell(row, fmt: str) -> str:
    """Ours, with its spread over seeds, and the paper's value in brackets where it has one."""
    ours = f"{row.ours:{fmt}}"
    if row.n_seeds > 1:
        ours += f" ± {row.ours_std:{fmt}}"
    return ours if pd.isna(row.paper) else f"{ours} ({row.paper:{fmt}})"


def cost_caption(title: str, table: pd.DataFrame, scale: str) -> str:
    """The caption of Table 1 or 6: what every reader must know of our numbers."""
    memory, speed = (" or ".join(table[table.quantity == name].measure.unique()) for name in ("memory", "speed"))
    return f"{title}. {BESIDE} {scale}. Memory: {memory}. Speed: training, {speed}."


def zero_shares(codes: pd.DataFrame) -> pd.DataFrame:
    """The share of exact zeros in each CSC layer's code, per run, in percent (section D.1: 52%)."""
    keys = ["dataset", "system", "seed", "layer"]
    zeros = codes[codes.bin_low == codes.bin_high].set_index(keys)["count"]
    shares = 100 * zeros / codes.groupby(keys, sort=False)["count"].sum()
    return shares.rename("zero_percent").reset_index()


def write(table: pd.DataFrame, layout: pd.DataFrame, path: Path, caption: str) -> None:
    """Write a table as tidy .csv and, in the paper's layout, as .md and .tex."""
    write_text(path.with_suffix(".csv"), table.to_csv(index=False))
    write_text(path.with_suffix(".md"), f"{caption}\n\n{layout.to_markdown(index=False, disable_numparse=True)}\n")
    latex = layout.to_latex(index=False, escape=True, caption=re.sub(r"([%&_#$])", r"\\\1", caption))
    write_text(path.with_suffix(".tex"), latex)
