"""Accuracy of clean images, and what a network costs (Tables 1, 5 and 6)."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import confint_proportions_2indep

from sdnet.commands.evidence.runs import Row, Runs, point, readings, warn
from sdnet.experiments import results
from sdnet.experiments.labels import KEPT
from sdnet.robustness.statistics import Interval

# Of accuracies, differences are taken; of speed, memory and parameters, ratios.
CLEAN_PAIRS = [
    ("sdnet18", "resnet18"),
    ("sdnet34", "resnet34"),
    ("sdnet18", "mdeq"),
    ("sdnet18", "scn"),
    ("sdnet18", "scn18"),
    ("scn", "resnet18"),
    ("scn18", "resnet18"),
    ("sdnet18-all", "sdnet18"),
    ("sdnet34-all", "sdnet34"),
    ("sdnet18-iter4", "sdnet18"),
    ("sdnet18-iter8", "sdnet18"),
    ("sdnet18-iter8", "sdnet18-iter4"),
]


def clean(runs: Runs) -> Iterator[Row]:
    """Differences of accuracy, and ratios of speed, memory and parameters."""
    path = runs.folder / "benchmark" / f"{runs.dataset}.csv"
    speeds = results.read(path, "benchmark").set_index("system") if path.exists() else pd.DataFrame()
    for pair in readings(CLEAN_PAIRS):
        if not (seeds := runs.seeds(pair)):
            continue
        last = [[runs.last(system, seed) for system in pair] for seed in seeds]
        yield runs.row(("accuracy", *pair, "clean", ""), [_unpaired(*both) for both in last], seeds)
        sizes = [point(first.parameters / second.parameters) for first, second in last]
        yield runs.row(("parameters", *pair, "", ""), sizes, seeds)
        if set(pair) <= set(speeds.index):
            first, second = (speeds.loc[system] for system in pair)
            if any(timed.width != trained.width for timed, trained in zip((first, second), last[0], strict=True)):
                warn(
                    f"{path} is of networks of another width than the trained {' and '.join(pair)}, and is left out; "
                    f"make it anew with: {results.command_for(path)}"
                )
                continue
            clock = "by processor time" if first.device.startswith("CPU") else "by the clock"
            memory, kept = (
                ("peak_memory_bytes", "largest allocated")
                if pd.notna([first.peak_memory_bytes, second.peak_memory_bytes]).all()
                else ("saved_bytes", KEPT)
            )
            how = f"{first.device}, {first.precision}, batch size {first.batch_size}"
            yield runs.row(("speed", *pair, "", ""), [_ratio(first, second)], seeds, f"{how}, {clock}")
            ratio = point(first[memory] / second[memory])
            yield runs.row(("memory", *pair, "", ""), [ratio], seeds, f"{how}, {kept}")


def _unpaired(first: pd.Series, second: pd.Series) -> Interval:
    """Difference of two accuracies in percentage points; Newcombe's interval."""
    ends = confint_proportions_2indep(first.correct, first.total, second.correct, second.total, method="newcomb")
    return Interval(*(100 * value for value in (first.correct / first.total - second.correct / second.total, *ends)))


def _ratio(first: pd.Series, second: pd.Series) -> Interval:
    """Of two networks' training rates; their errors are added as independent ones."""
    ratio = first.train_rate_ratio / second.train_rate_ratio
    spread = np.hypot(*(np.log(one.train_rate_ratio_high / one.train_rate_ratio) for one in (first, second)))
    return Interval(ratio, ratio * np.exp(-spread), ratio * np.exp(spread))
