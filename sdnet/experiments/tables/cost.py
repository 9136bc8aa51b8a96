"""Tables 1 and 6: accuracy, size, memory and speed."""

from pathlib import Path

import pandas as pd

from sdnet.experiments import results
from sdnet.experiments.catalogue import REFERENCE
from sdnet.experiments.labels import KEPT, dataset_label, scale_label, system_label
from sdnet.experiments.project import preset_of
from sdnet.experiments.shown import read_runs
from sdnet.experiments.tables.layout import BESIDE, accuracy, beside, cell, laid_out, paper_values

COLUMNS = {
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


def cost_table(folder: Path, table: str) -> pd.DataFrame:
    """Table 1 or 6: size, accuracy, memory and speed of every network on every data set, one quantity a row."""
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
        how += f" (the part of one of {gpus} GPUs; the paper's is taken to be of all)"
    held = "largest memory allocated" if on_gpu else KEPT
    return [
        common | {"quantity": "parameters", "unit": "million", "ours": first.parameters / 1e6, "measure": "counted"},
        common | accuracy(last) | {"measure": "after the last epoch"},
        common | accuracy(best) | {"quantity": "accuracy_best_epoch", "measure": "at the epoch the test set picks"},
        common | {"quantity": "memory", "unit": "GB", "ours": memory / 1e9, "measure": f"{held}; {how}"},
        common | {"quantity": "speed", "unit": "images/s", "ours": speed.train_images_per_second, "measure": how},
        common | {"quantity": "speed_ratio", "unit": "of ResNet-18's", "ours": speed.train_rate_ratio, "measure": how},
    ]


def _beside_paper(table: str, rows: list[dict]) -> pd.DataFrame:
    paper = paper_values(table)
    speeds = paper[paper.quantity == "speed"]
    printed = paper_values("table1")
    reference = printed[(printed.quantity == "speed") & (printed.system == REFERENCE)].set_index("dataset").value
    ratios = speeds.assign(quantity="speed_ratio", value=speeds.value / speeds.dataset.map(reference).astype(float))
    return beside(rows, pd.concat([paper, ratios]), ["dataset", "system", "quantity"], list(COLUMNS))


def cost_layout(table: pd.DataFrame) -> pd.DataFrame:
    """Table 1 or 6 in the paper's layout: a row per network, ours with the paper's value in brackets."""
    shown = {"parameters": "Model size (M)", "accuracy": "Top-1 (%)", "memory": "Memory (GB)", "speed": "Speed (n/s)"}
    formats = {"parameters": ".3g", "accuracy": ".2f", "memory": ".3g", "speed": ",.0f"}
    cells = table[table.quantity.isin(shown)]
    cells = cells.assign(
        text=[cell(row, formats[row.quantity]) for row in cells.itertuples()], system=cells.system.map(system_label)
    )
    return laid_out(cells, {"data": "Data set", "system": "Network"}, "quantity", shown)


def cost_caption(title: str, table: pd.DataFrame, scale: str) -> str:
    """The caption of Table 1 or 6: what every reader must know of our numbers."""
    memory, speed = (" or ".join(table[table.quantity == name].measure.unique()) for name in ("memory", "speed"))
    return f"{title}. {BESIDE} {scale}. Memory: {memory}. Speed: training, {speed}."
