"""The result files of the runs on one data set, and effects from estimates of several seeds."""

import functools
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from sdnet.data.datasets import INFO
from sdnet.experiments import results
from sdnet.experiments.claims.claim import COSTS, RELEASED, SIZE_EPOCHS, SIZE_WIDTH, TEXT, as_released
from sdnet.experiments.labels import dataset_label, scale_label, system_label
from sdnet.experiments.places import run_name
from sdnet.experiments.settings.networks import has_lambda
from sdnet.experiments.settings.preset import Preset
from sdnet.robustness.statistics import Interval

KEYS = ["dataset", "quantity", "subject", "over", "condition", "level"]
SEVERITY = ["1", "2", "3", "4", "5"]
BOTH = (TEXT, RELEASED)  # SDNet-18 in either reading
ABOVE_CHANCE = 2  # times as accurate as by chance; what classifies fewer images correctly tells nothing of the method
EQUAL_TRAINING = 0.75  # of another network's epochs; the paper's schedules of SCN and ResNet are at 0.91
# What no interval goes beyond: of rank correlations and R², and of what was measured itself, which is no difference.
ALWAYS_WITHIN = {"kendall": (-1, 1), "spearman": (-1, 1), "r_squared": (0, 1)}
ITSELF_WITHIN = {"accuracy": (0, 100), "robust": (0, 100), "zeros": (0, 100), "new": (0, 100), "correlation": (-1, 1)}

Row = dict[str, object]


@dataclass(frozen=True)
class Runs:
    """The result files of the runs on one data set of a results folder."""

    folder: Path
    dataset: str
    preset: Preset
    _read: dict[Path, pd.DataFrame] = field(default_factory=dict, init=False, repr=False)

    def path(self, system: str, seed: int, name: str) -> Path:
        """Where a run's file is, or would be."""
        return self.folder / "runs" / run_name(self.dataset, system, seed) / name

    def seeds(self, systems: Iterable[str], *names: str) -> list[int]:
        """The preset's seeds for which every one of these networks has these files and was tested."""
        systems = list(systems)
        if not set(systems) <= set(self.preset.systems):
            return []
        first, *others = [self.preset.seeds_of(system) for system in systems]
        wanted = list(itertools.product(systems, ["accuracy.csv", *names]))
        return [
            seed
            for seed in first
            if all(seed in other for other in others)
            and all(self.path(system, seed, name).exists() for system, name in wanted)
        ]

    def read(self, system: str, seed: int, kind: str, noise: str = "") -> pd.DataFrame:
        """One result file, read once."""
        path = self.path(system, seed, f"{kind}-{noise}.csv" if noise else f"{kind}.csv")
        if path not in self._read:
            self._read[path] = results.read(path, kind)
        return self._read[path]

    def last(self, system: str, seed: int) -> pd.Series:
        """The clean test accuracy after the last epoch."""
        accuracy = self.read(system, seed, "accuracy")
        return accuracy[accuracy.checkpoint == "last"].iloc[0]

    def row(
        self,
        keys: tuple[str, str, str, str, str],
        intervals: Sequence[Interval],
        seeds: Sequence[int],
        measure: str = "",
    ) -> Row:
        """An effect, from one estimate per seed; `keys` are those of `KEYS` behind the data set."""
        networks = dict.fromkeys(word for word in f"{keys[1]} {keys[2]}".split() if word in self.preset.systems)
        trained = {network: [self.last(network, seed) for seed in seeds] for network in networks}
        subject = trained[keys[1].split()[0]]
        full = all(
            run.width >= SIZE_WIDTH and (run.epochs >= SIZE_EPOCHS or run.epochs == 0 or keys[0] in COSTS)
            for run in itertools.chain(*trained.values())  # of 0 epochs: imported, trained by others
        )
        return (
            dict(zip(KEYS, (self.dataset, *keys), strict=True))
            | over_seeds(intervals, *_limits(keys[0], keys[2]))
            | {
                "data": dataset_label(self.dataset, subject[0].data_source),
                "official": all(run.data_source == "official" for run in subject),
                "scale": " and ".join(_scales(subject)),
                "full_scale": bool(full),
                "unequal": _unequal(keys[0], trained),
                "measure": measure,
            }
        )


def _limits(quantity: str, over: str) -> tuple[float, float]:
    """Between which numbers a quantity is; `over` is empty for what is no difference."""
    return (ALWAYS_WITHIN | ({} if over else ITSELF_WITHIN)).get(quantity, (-np.inf, np.inf))


def _scales(trained: list[pd.Series]) -> list[str]:
    """At which scales the seeds of a network were trained, each once."""
    return list(dict.fromkeys(scale_label(run.width, run.epochs, run.train_images) for run in trained))


def _unequal(quantity: str, trained: dict[str, list[pd.Series]]) -> str:
    """In words, why these networks cannot be compared: of other sizes or images, or hardly or much less trained."""
    for column in ("width",) if quantity in COSTS else ("width", "train_images", "data_source"):
        found = {name: sorted({run[column] for run in of_seeds}) for name, of_seeds in trained.items()}
        if len(set(itertools.chain(*found.values()))) > 1 and len(trained) > 1:
            values = [f"{system_label(name)} {' and '.join(map(str, of_seeds))}" for name, of_seeds in found.items()]
            return f"not the same {column.replace('_', ' ')}: {', '.join(values)}"
    if quantity in COSTS:
        return ""
    for name, of_seeds in trained.items():
        lowest = min(run.correct / run.total for run in of_seeds)
        if lowest < ABOVE_CHANCE / (INFO[of_seeds[0].dataset].num_classes or np.inf):
            return f"{system_label(name)} has hardly learned, it classifies {lowest:.1%} of the clean images correctly"
        if len(scales := _scales(of_seeds)) > 1:
            return f"seeds of {system_label(name)} differ: {'; '.join(scales)}"
    epochs = {system_label(name): of_seeds[0].epochs for name, of_seeds in trained.items()}
    shortest, longest = min(epochs.values()), max(epochs.values())
    if quantity not in ("accuracy", "robust") or shortest == 0 or shortest >= EQUAL_TRAINING * longest:
        return ""  # 0: imported, trained by others
    return "trained " + ", ".join(f"{name} for {count} epochs" for name, count in epochs.items())


@functools.cache
def warn(sentence: str) -> None:
    """Say what is left out of the effects, once for however many of them."""
    print(f"warning: {sentence}", file=sys.stderr)


def over_seeds(intervals: Sequence[Interval], lowest: float = -np.inf, highest: float = np.inf) -> Row:
    """One estimate and 95% interval from those of several seeds, each over images, cut off at what is possible.

    Of one seed it is that seed's, which says nothing of the variance between trained models. Of several, the t-interval
    over the seeds and the mean interval over images are added as independent errors: too wide rather than too narrow,
    since the spread over seeds has some of the images' part in it.
    """
    estimates = np.array([one.estimate for one in intervals])
    mean, count = estimates.mean(), len(estimates)
    below = np.mean([one.estimate - one.low for one in intervals])
    above = np.mean([one.high - one.estimate for one in intervals])
    if count > 1:
        spread = stats.t.ppf(0.975, count - 1) * estimates.std(ddof=1) / np.sqrt(count)
        below, above = np.hypot(spread, np.nan_to_num(below)), np.hypot(spread, np.nan_to_num(above))
    low, high = np.clip([mean - below, mean + above], lowest, highest)
    return {"estimate": mean, "low": low, "high": high, "n_seeds": count}


def point(value: float) -> Interval:
    """A measurement of which no interval is known."""
    return Interval(float(value), np.nan, np.nan)


def readings(pairs: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The pairs, and those in which SDNet-18 stands in the other reading."""
    yield from pairs
    for pair in pairs:
        names = {name.split()[0] for name in pair}
        if TEXT in names and not any(map(has_lambda, names - {TEXT})):
            yield tuple(map(as_released, pair))


def kendall(values: Sequence[float], against: Sequence[float] = range(1, 6)) -> float:
    """Kendall's rank correlation, tau-b, by default with the severity; 0 where the values are all the same."""
    return round(float(stats.kendalltau(against, values).statistic), 9) if np.ptp(values) > 0 else 0.0


def spearman(values: Sequence[float]) -> float:
    """Spearman's rank correlation with the severity; 0 where the values are all the same."""
    return round(float(stats.spearmanr(range(1, 6), values).statistic), 9) if np.ptp(values) > 0 else 0.0


def normal(estimate: float, std: float) -> Interval:
    """The 95% interval of a normal estimate."""
    return Interval(estimate, estimate - 1.96 * std, estimate + 1.96 * std)


def wilson(counts: pd.Series, severities: int = 1) -> Interval:
    """An accuracy in percent; severities share their images, so that their mean counts each of them once."""
    total = counts.total / severities
    share = counts.correct / counts.total
    return Interval(100 * share, *(100 * end for end in proportion_confint(share * total, total, method="wilson")))


def percent(interval: Interval) -> Interval:
    """A share in percent."""
    return Interval(*(100 * value for value in interval))


def nearest(lambdas: np.ndarray, value: float) -> int:
    """Where a lambda stands among others, whatever the rounding."""
    return int(np.argmin(np.abs(lambdas - value)))
