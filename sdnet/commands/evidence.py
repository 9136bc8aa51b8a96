"""What the claims of the paper are judged by: effects, each a measured quantity or a difference, with its interval.

An effect says by how much one network (`subject`) exceeds another (`over`), or itself at another lambda, under one
condition; or, where `over` is empty, what was measured of it. The paper's printed numbers make rows of the same form
(`paper_effects`), so that both are judged by the same code. A network is written with its way to choose lambda behind
it: "sdnet18 adaptive".
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from sdnet.data.corruptions import SEVERITIES
from sdnet.experiments import plan, results
from sdnet.experiments.attack_tables import TOGETHER
from sdnet.experiments.claims import RELEASED, SIZE_EPOCHS, SIZE_WIDTH
from sdnet.experiments.labels import dataset_label, scale_label
from sdnet.experiments.noise_tables import PAPER_ZEROS
from sdnet.experiments.settings import Preset
from sdnet.experiments.shown import preset_of
from sdnet.experiments.tables import paper_values, zero_shares
from sdnet.robustness.calibration import find_peaks
from sdnet.robustness.statistics import Interval, adaptive_difference, paired_difference, split_half

KEYS = ["dataset", "quantity", "subject", "over", "condition", "level"]
SEVERITY = ["1", "2", "3", "4", "5"]
BOOTSTRAP_SEED = 0
RESAMPLES = 400

# What is compared: clean accuracy, speed, memory and parameters; accuracy under noise.
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
NOISE_PAIRS = [
    ("sdnet18 fixed", "resnet18"),
    ("sdnet18 fixed", "scn"),
    ("sdnet18 adaptive", "sdnet18 fixed"),
    ("sdnet18 adaptive", "resnet18"),
    ("sdnet18-iter4 adaptive", "sdnet18 adaptive"),
    ("sdnet18-iter8 adaptive", "sdnet18 adaptive"),
    ("sdnet18-iter8 adaptive", "sdnet18-iter4 adaptive"),
]

ATTACK_PAIRS = [("sdnet18 fixed", "resnet18"), ("sdnet18 tuned", "sdnet18 fixed")]

Row = dict[str, object]


def effects(folder: Path) -> pd.DataFrame:
    """Every effect that the result files of a folder allow, with the paper's beside it.

    What is not there yet has no row; of several seeds those that are there count.
    """
    preset = preset_of(folder)
    rows = [
        row
        for dataset in preset.datasets
        for measure in (_clean, _noisy, _best_lambdas, _lines, _codes, _inversion, _attacks)
        for row in measure(Runs(folder, dataset, preset))
    ]
    ours = pd.DataFrame(rows, columns=[name for name in results.COLUMNS["effects"] if name != "paper"])
    ours[["estimate", "low", "high"]] = ours[["estimate", "low", "high"]].astype(float).round(9)
    # The paper does not say in which reading of the layer its numbers were made.
    names = {f"the paper's {name}": ours[name].map(_in_the_paper) for name in ("subject", "over")}
    keys = [f"the paper's {name}" if name in ("subject", "over") else name for name in KEYS]
    joined = ours.assign(**names).merge(paper_effects(), left_on=keys, right_on=KEYS, how="left", suffixes=("", "_"))
    return joined[list(results.COLUMNS["effects"])]


def _in_the_paper(name: str) -> str:
    back = {released: text for text, released in RELEASED.items()}
    return " ".join(back.get(word, word) for word in name.split())


@dataclass(frozen=True)
class Runs:
    """The result files of the runs on one data set of a results folder."""

    folder: Path
    dataset: str
    preset: Preset

    def path(self, system: str, seed: int, name: str) -> Path:
        """Where a run's file is, or would be."""
        return self.folder / "runs" / self.dataset / system / f"seed{seed}" / name

    def seeds(self, systems: Iterable[str], *names: str) -> list[int]:
        """The preset's seeds for which every one of these networks has these files and was tested."""
        wanted = list(itertools.product(systems, ["accuracy.csv", *names]))
        return [
            seed
            for seed in self.preset.seeds
            if all(system in self.preset.systems and self.path(system, seed, name).exists() for system, name in wanted)
        ]

    def read(self, system: str, seed: int, kind: str, noise: str = "") -> pd.DataFrame:
        """One result file."""
        return results.read(self.path(system, seed, f"{kind}-{noise}.csv" if noise else f"{kind}.csv"), kind)

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
        run = self.last(keys[1].split()[0], seeds[0])
        full = run.width >= SIZE_WIDTH and (run.epochs >= SIZE_EPOCHS or run.epochs == 0)
        return (
            dict(zip(KEYS, (self.dataset, *keys), strict=True))
            | over_seeds(intervals)
            | {
                "data": dataset_label(self.dataset, run.data_source),
                "official": run.data_source == "official",
                "scale": scale_label(run.width, run.epochs, run.train_images),
                "full_scale": bool(full),
                "measure": measure,
            }
        )


def over_seeds(intervals: Sequence[Interval]) -> Row:
    """One estimate and 95% interval from those of several seeds, each over images.

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
    return {"estimate": mean, "low": mean - below, "high": mean + above, "n_seeds": count}


def point(value: float) -> Interval:
    """A measurement of which no interval is known."""
    return Interval(float(value), np.nan, np.nan)


def readings(pairs: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The pairs, and those in which SDNet-18 stands in the other reading."""
    yield from pairs
    for text, released in RELEASED.items():
        for pair in pairs:
            names = {name.split()[0] for name in pair}
            if text in names and not any(map(plan.has_lambda, names - {text})):
                yield tuple(" ".join([released if word == text else word for word in name.split()]) for name in pair)


def rank_correlation(values: Sequence[float], against: Sequence[float] = range(1, 6)) -> float:
    """Kendall's tau-b; 0 where the values are all the same."""
    return round(float(stats.kendalltau(against, values).statistic), 9) if np.ptp(values) > 0 else 0.0


# Accuracy of clean images, and what a network costs (Tables 1, 5 and 6)


def _clean(runs: Runs) -> Iterator[Row]:
    path = runs.folder / "benchmark" / f"{runs.dataset}.csv"
    speeds = results.read(path, "benchmark").set_index("system") if path.exists() else pd.DataFrame()
    for pair in readings(CLEAN_PAIRS):
        if not (seeds := runs.seeds(pair)):
            continue
        last = [[runs.last(system, seed) for system in pair] for seed in seeds]
        yield runs.row(("accuracy", *pair, "clean", ""), [_unpaired(*both) for both in last], seeds)
        first, second = last[0]
        yield runs.row(("parameters", *pair, "", ""), [point(first.parameters / second.parameters)], seeds)
        if set(pair) <= set(speeds.index):
            first, second = (speeds.loc[system] for system in pair)
            how = f"{first.device}, {first.precision}, batch size {first.batch_size}"
            speed = first.train_images_per_second / second.train_images_per_second
            yield runs.row(("speed", *pair, "", ""), [point(speed)], seeds, how)
            on_gpu = pd.notna(first.peak_memory_bytes)
            memory = "peak_memory_bytes" if on_gpu else "saved_bytes"
            how += ", largest allocated" if on_gpu else ", kept for the backward pass"
            yield runs.row(("memory", *pair, "", ""), [point(first[memory] / second[memory])], seeds, how)


def _unpaired(first: pd.Series, second: pd.Series) -> Interval:
    """Difference of two accuracies in percentage points; Newcombe's interval."""
    ends = confint_proportions_2indep(first.correct, first.total, second.correct, second.total, method="newcomb")
    return Interval(*(100 * value for value in (first.correct / first.total - second.correct / second.total, *ends)))


# Accuracy under noise, at the lambda of training and at that of Algorithm 1 (Tables 2, 3 and 5)


@dataclass(frozen=True)
class Fates:
    """Which noisy images a network classifies correctly, by severity (S) and lambda (L)."""

    correct: np.ndarray  # (S, L, N) bool
    lambdas: np.ndarray  # (L,)
    fixed: np.ndarray  # (S, N) bool, at the lambda of training

    def at(self, chosen: Sequence[float]) -> np.ndarray:
        """The same at one lambda for each severity, (S, N), interpolated between those that were tried."""
        where = np.interp(chosen, self.lambdas, np.arange(len(self.lambdas)))
        below = np.minimum(where.astype(int), len(self.lambdas) - 2)
        weight = (where - below)[:, None]
        severity = np.arange(len(self.correct))
        return (1 - weight) * self.correct[severity, below] + weight * self.correct[severity, below + 1]


def fates(runs: Runs, system: str, seed: int, noise: str) -> Fates:
    """Read those of a run."""
    arrays = results.read_arrays(runs.path(system, seed, f"sweep-{noise}.npz"))
    lambda0 = runs.read(system, seed, "sweep", noise).lambda0.iloc[0]
    where = 0 if np.isnan(lambda0) else _nearest(arrays["lambdas"], lambda0)
    return Fates(arrays["correct"], arrays["lambdas"], arrays["correct"][:, where])


def _noisy(runs: Runs) -> Iterator[Row]:
    for noise in plan.noises_on(runs.dataset, runs.preset):
        for pair in readings(NOISE_PAIRS):
            systems = [name.split()[0] for name in pair]
            seeds = runs.seeds(dict.fromkeys(systems), f"sweep-{noise}.csv", f"sweep-{noise}.npz")
            fitted = [name.split()[0] for name in pair if "adaptive" in name]
            if fitted:
                seeds = [seed for seed in seeds if seed in runs.seeds(fitted, f"adaptive-{noise}.csv")]
            if not seeds:
                continue
            if pair[1] == f"{systems[0]} fixed":
                yield from _gains(runs, systems[0], seeds, noise)
                continue
            how = runs.read(systems[0], seeds[0], "sweep", noise).noise_source.iloc[0]
            compare = _adaptive_over if fitted else _fixed_over
            yield from compare(runs, pair, seeds, noise, how)


def _fixed_over(runs: Runs, pair: tuple[str, str], seeds: list[int], noise: str, how: str) -> Iterator[Row]:
    """At the lambda of training, or without one: of each severity and of their mean, paired over images."""
    both = [[fates(runs, name.split()[0], seed, noise).fixed for name in pair] for seed in seeds]
    for level in [*SEVERITY, "mean"]:
        chosen = slice(None) if level == "mean" else int(level) - 1
        found = [_percent(paired_difference(a[chosen], b[chosen], seed=BOOTSTRAP_SEED)) for a, b in both]
        yield runs.row(("accuracy", *pair, noise, level), found, seeds, how)


def _adaptive(runs: Runs, system: str, seed: int, noise: str) -> pd.DataFrame:
    """Algorithm 1 as printed, by severity."""
    adaptive = runs.read(system, seed, "adaptive", noise)
    return adaptive[adaptive.variant == "paper"].astype({"severity": str}).set_index("severity")


def _gains(runs: Runs, system: str, seeds: list[int], noise: str) -> Iterator[Row]:
    """Algorithm 1 over the lambda of training, as adaptive-<noise>.csv has it; and the lambda it chooses."""
    of_seeds = [_adaptive(runs, system, seed, noise) for seed in seeds]
    subject, how = f"{system} adaptive", of_seeds[0].noise_source.iloc[0]
    for level in ["0", *SEVERITY, "mean"]:
        at = [one.loc[level] for one in of_seeds]
        gains = [Interval(one.gain, one.gain_low, one.gain_high) for one in at]
        yield runs.row(("accuracy", subject, f"{system} fixed", noise, level), gains, seeds, how)
        yield runs.row(("accuracy", subject, "", noise, level), [_wilson(one) for one in at], seeds, how)
        if level in SEVERITY:
            chosen = [Interval(one["lambda"], one.lambda_low, one.lambda_high) for one in at]
            yield runs.row(("lambda", subject, "", noise, level), chosen, seeds, how)
    by_severity = [one.loc[SEVERITY] for one in of_seeds]
    order = [point(rank_correlation(one.gain)) for one in by_severity]
    yield runs.row(("rank_correlation", f"{subject} gain", "severity", noise, ""), order, seeds, how)
    order = [point(rank_correlation(one["lambda"])) for one in by_severity]
    yield runs.row(("rank_correlation", f"{subject} lambda", "severity", noise, ""), order, seeds, how)
    if noise == "gaussian":
        scale = "imagenet" if "imagenet" in how.lower() else "cifar"
        fits = [point(_variance_fit(one["lambda"], scale)) for one in by_severity]
        yield runs.row(("r_squared", f"{subject} lambda", "noise variance", noise, ""), fits, seeds, how)


def _variance_fit(lambdas: Sequence[float], scale: str) -> float:
    """R^2 of the line through the chosen lambdas and the variance of Gaussian noise."""
    variance = np.square(SEVERITIES[scale]["gaussian"])
    return float(stats.pearsonr(variance, lambdas).statistic ** 2) if np.ptp(lambdas) > 0 else 0.0


def _adaptive_over(runs: Runs, pair: tuple[str, str], seeds: list[int], noise: str, how: str) -> Iterator[Row]:
    """At the lambda of Algorithm 1 over another network, mean over severities.

    The estimate is of the counts. Its interval, over test and calibration images, is that of the swept fates
    interpolated between lambdas, since each image's fate at the chosen lambda is not kept.
    """
    found = []
    for seed in seeds:
        (subject, chosen), (over, reference) = (_chosen(runs, name, seed, noise) for name in pair)
        width = (chosen.lambda_high - chosen.lambda_low).fillna(0) / 3.92
        draws = np.random.default_rng(BOOTSTRAP_SEED).normal(chosen["lambda"], width, (RESAMPLES, len(chosen)))
        baseline = over.fixed if reference is None else over.at(reference["lambda"])
        interpolated = adaptive_difference(
            subject.correct, subject.lambdas, chosen["lambda"], draws, baseline, seed=BOOTSTRAP_SEED
        )
        counted = over.fixed.mean() if reference is None else reference.correct.sum() / reference.total.sum()
        shift = chosen.correct.sum() / chosen.total.sum() - counted - interpolated.estimate
        found.append(_percent(Interval(*(end + shift for end in vars(interpolated).values()))))
    yield runs.row(("accuracy", *pair, noise, "mean"), found, seeds, how)


def _chosen(runs: Runs, name: str, seed: int, noise: str) -> tuple[Fates, pd.DataFrame | None]:
    """The fates of a network's images, and at which lambda of Algorithm 1 they count, if it is to choose it."""
    system, _, setting = name.partition(" ")
    chosen = _adaptive(runs, system, seed, noise).loc[SEVERITY] if setting == "adaptive" else None
    return fates(runs, system, seed, noise), chosen


def _wilson(counts: pd.Series) -> Interval:
    """An accuracy in percent; severities share their images, so that their mean counts each of them once."""
    total = counts.total / (len(SEVERITY) if counts.name == "mean" else 1)
    share = counts.correct / counts.total
    return Interval(100 * share, *(100 * end for end in proportion_confint(share * total, total, method="wilson")))


def _percent(interval: Interval) -> Interval:
    return Interval(*(100 * value for value in vars(interval).values()))


# The best lambda (Figure 2)


def _best_lambdas(runs: Runs) -> Iterator[Row]:
    for system, noise in itertools.product((*RELEASED, *RELEASED.values()), _noises(runs)):
        seeds = runs.seeds([system], f"sweep-{noise}.csv", f"sweep-{noise}.npz")
        if not seeds:
            continue
        how = runs.read(system, seeds[0], "sweep", noise).noise_source.iloc[0]
        swept = [fates(runs, system, seed, noise) for seed in seeds]
        best = f"{system} best"
        for position, level in enumerate(SEVERITY):
            gains = [_split_half_gain(one, position) for one in swept]
            yield runs.row(("accuracy", best, f"{system} fixed", noise, level), gains, seeds, how)
            curves = [100 * one.correct[position].mean(axis=-1) for one in swept]
            rises = [point(curve.max() - max(curve[0], curve[-1])) for curve in curves]
            yield runs.row(("accuracy", best, "both ends of the grid", noise, level), rises, seeds, how)
        peaks = [find_peaks(one.correct, one.lambdas, seed=BOOTSTRAP_SEED, resamples=RESAMPLES) for one in swept]
        chosen = [[_normal(peak.parabola, peak.parabola_std) for peak in of_seed] for of_seed in peaks]
        order = [point(rank_correlation([peak.estimate for peak in of_seed])) for of_seed in chosen]
        rows = [
            runs.row(("lambda", best, "", noise, level), of_level, seeds, how)
            for level, of_level in zip(SEVERITY, zip(*chosen, strict=True), strict=True)
        ]
        yield from rows
        yield runs.row(("rank_correlation", f"{best} lambda", "severity", noise, ""), order, seeds, how)
        falls = sum(before["low"] > after["high"] for before, after in itertools.combinations(rows, 2))
        yield runs.row(("inversions", f"{best} lambda", "severity", noise, ""), [point(falls)], seeds, how)


def _noises(runs: Runs) -> list[str]:
    return plan.noises_on(runs.dataset, runs.preset)


def _split_half_gain(one: Fates, severity: int) -> Interval:
    """The best lambda over that of training; chosen on one half of the images, measured on the other."""
    chosen, _ = split_half(one.correct[severity], one.lambdas)
    return _percent(paired_difference(chosen, one.fixed[severity], seed=BOOTSTRAP_SEED))


def _normal(estimate: float, std: float) -> Interval:
    return Interval(estimate, estimate - 1.96 * std, estimate + 1.96 * std)


# The line of Algorithm 1 (Figure 3)


def _lines(runs: Runs) -> Iterator[Row]:
    for system in (*RELEASED, *RELEASED.values()):
        lines = {}
        for noise in _noises(runs):
            if seeds := runs.seeds([system], f"lines-{noise}.csv"):
                lines[noise] = {seed: _line(runs, system, seed, noise) for seed in seeds}
                fits = [point(line.r_squared) for line in lines[noise].values()]
                yield runs.row(("r_squared", f"{system} lambda", "residual", noise, ""), fits, seeds)
        for noise in lines if len(lines) > 1 else ():
            names = [f"sweep-{noise}.csv", f"sweep-{noise}.npz", f"adaptive-{noise}.csv"]
            seeds = [seed for seed in runs.seeds([system], *names) if all(seed in of for of in lines.values())]
            if not seeds:
                continue
            found = [
                _own_line_gain(runs, system, seed, noise, {name: of[seed] for name, of in lines.items()})
                for seed in seeds
            ]
            how = runs.read(system, seeds[0], "sweep", noise).noise_source.iloc[0]
            keys = ("accuracy", f"{system} adaptive", "the lines of other noises", noise, "mean")
            yield runs.row(keys, found, seeds, how)


def _line(runs: Runs, system: str, seed: int, noise: str) -> pd.Series:
    lines = runs.read(system, seed, "lines", noise)
    return lines[lines.variant == "paper"].iloc[0]


def _own_line_gain(runs: Runs, system: str, seed: int, noise: str, lines: dict[str, pd.Series]) -> Interval:
    """Accuracy by the noise's own line minus that by another's, mean over severities and over the other noises."""
    swept, own = _chosen(runs, f"{system} adaptive", seed, noise)
    others = [
        swept.at((line.slope * own.residual + line.intercept).clip(line.lambda_min, line.lambda_max))
        for name, line in lines.items()
        if name != noise
    ]
    draws = np.tile(own["lambda"], (RESAMPLES, 1))
    gain = adaptive_difference(
        swept.correct, swept.lambdas, own["lambda"], draws, np.mean(others, axis=0), seed=BOOTSTRAP_SEED
    )
    return _percent(gain)


# Codes (Figure 6) and images back from them (Figure 4)


def _codes(runs: Runs) -> Iterator[Row]:
    for system in (*RELEASED, *RELEASED.values()):
        if seeds := runs.seeds([system], "codes.csv"):
            shares = [zero_shares(runs.read(system, seed, "codes")).zero_percent.iloc[0] for seed in seeds]
            yield runs.row(("zeros", system, "", "clean", ""), [point(share) for share in shares], seeds)


def _inversion(runs: Runs) -> Iterator[Row]:
    system = "sdnet18-all-plain"
    if not (seeds := runs.seeds([system], "inversion.csv")):
        return
    found = [
        runs.read(system, seed, "inversion").pivot(index="image", columns="depth", values="correlation")
        for seed in seeds
    ]
    for depth in found[0].columns:
        means = [_mean(one[depth]) for one in found]
        yield runs.row(("correlation", system, "", "clean", str(depth)), means, seeds)
    third = max(len(found[0].columns) // 3, 1)
    falls = [_mean(one.iloc[:, :third].mean(axis=1) - one.iloc[:, -third:].mean(axis=1)) for one in found]
    yield runs.row(("correlation", f"{system} shallow", f"{system} deep", "clean", ""), falls, seeds)
    order = [point(rank_correlation(one.mean(), one.columns)) for one in found]
    yield runs.row(("rank_correlation", system, "depth", "clean", ""), order, seeds)


def _mean(values: pd.Series) -> Interval:
    """Mean over images with its normal interval."""
    return _normal(values.mean(), values.std() / np.sqrt(len(values)))


# Accuracy under attack (Table 4)


def _attacks(runs: Runs) -> Iterator[Row]:
    radii = runs.preset.adversarial
    for norm, label in {"linf": f"L∞ {radii.linf:g}/255", "l2": f"L2 {radii.l2:g}"}.items():
        for kind, level in {"attack-paper": "paper", "attack-adaptive": "worst"}.items():
            if seeds := runs.seeds(["resnet18"], f"{kind}.csv"):
                left = [_wilson(_attacked(runs, "resnet18", seed, norm, level, "given")) for seed in seeds]
                how = label if level == "paper" else f"{label}; {_weaker(runs, seeds[0], norm)}"
                yield runs.row(("robust", "resnet18", "", norm, level), left, seeds, how)
            for system in (*RELEASED, *RELEASED.values()):
                if seeds := runs.seeds([system], f"{kind}.csv"):
                    found = [_attacked(runs, system, seed, norm, level, "held-out") for seed in seeds]
                    gains = [Interval(one.gain, one.gain_low, one.gain_high) for one in found]
                    keys = ("robust", f"{system} tuned", f"{system} fixed", norm, level)
                    yield runs.row(keys, gains, seeds, label)
        for system in (*RELEASED, *RELEASED.values()):
            yield from _tuning(runs, system, norm, label)


def _attacked(runs: Runs, system: str, seed: int, norm: str, level: str, choice: str) -> pd.Series:
    """The counts of the paper's protocol, or of all attacks together, for one way to choose lambda.

    Raises:
        ValueError: if there are none of the preset's radius.
    """
    kind = "attack-paper" if level == "paper" else "attack-adaptive"
    eps = {"linf": runs.preset.adversarial.linf / 255, "l2": runs.preset.adversarial.l2}[norm]
    rows = runs.read(system, seed, kind)
    rows = rows[(rows.norm == norm) & np.isclose(rows.eps, eps) & (rows.choice == choice)]
    rows = rows[rows.step == ("a" if level == "paper" else "worst")]
    if rows.empty:
        path = runs.path(system, seed, f"{kind}.csv")
        raise ValueError(f"{path}: no attack of radius {eps:g} in the {norm} norm; remove it and attack again")
    return rows.iloc[0]


def _weaker(runs: Runs, seed: int, norm: str) -> str:
    """Which of the weaker attacks leave ResNet-18 about what the paper prints (A2)."""
    printed = paper_values("table4")
    printed = printed[(printed.system == "resnet18") & printed.condition.str.startswith(norm)].value.iloc[0]
    rows = runs.read("resnet18", seed, "attack-adaptive")
    rows = rows[(rows.norm == norm) & (rows.step == "a'") & (rows.attack != TOGETHER)]
    share = 100 * rows.correct / rows.total
    near = [
        f"{attack} ({left:.0f}%)" for attack, left in zip(rows.attack, share, strict=True) if abs(left - printed) < 5
    ]
    return f"weaker attacks that leave about {printed:g}%: {', '.join(near) or 'none of those tried'}"


def _tuning(runs: Runs, system: str, norm: str, label: str) -> Iterator[Row]:
    """By the paper's protocol: against ResNet-18, the price on clean images, and the lambda of Algorithm 1."""
    files = ["attack-paper.csv", "attack-paper.npz"]
    if seeds := runs.seeds([system, "resnet18"], *files):
        both = [[_robust(runs, name, seed, norm) for name in (system, "resnet18")] for seed in seeds]
        found = [_percent(paired_difference(*pair, seed=BOOTSTRAP_SEED)) for pair in both]
        yield runs.row(("robust", f"{system} fixed", "resnet18", norm, "paper"), found, seeds, label)
    if seeds := runs.seeds([system], *files):
        prices, distances = [], []
        for seed in seeds:
            tuned, predicted = (
                _attacked(runs, system, seed, norm, "paper", choice)["lambda"] for choice in ("tuned", "algorithm1")
            )
            arrays = results.read_arrays(runs.path(system, seed, "attack-paper.npz"))
            both = [_nearest(arrays["lambdas"], value) for value in (tuned, _lambda0(runs, system, seed))]
            prices.append(_percent(paired_difference(*arrays["correct"][both], seed=BOOTSTRAP_SEED)))
            distances.append(point(abs(predicted - tuned)))
        yield runs.row(("accuracy", f"{system} tuned", f"{system} fixed", norm, "clean"), prices, seeds, label)
        yield runs.row(("lambda", f"{system} algorithm1", f"{system} tuned", norm, "paper"), distances, seeds, label)


def _robust(runs: Runs, system: str, seed: int, norm: str) -> np.ndarray:
    """Which attacked images (N,) are still classified correctly, at the lambda of training."""
    arrays = results.read_arrays(runs.path(system, seed, "attack-paper.npz"))
    robust = arrays[f"{norm}_robust"][0]
    return robust[0 if len(robust) == 1 else _nearest(arrays["lambdas"], _lambda0(runs, system, seed))]


def _nearest(lambdas: np.ndarray, value: float) -> int:
    return int(np.argmin(np.abs(lambdas - value)))


def _lambda0(runs: Runs, system: str, seed: int) -> float:
    spec = json.loads(runs.path(system, seed, "spec.json").read_text())
    return spec["model"]["options"].get("lmbd", 0.1)


# The paper's own numbers


def paper_effects(values: pd.DataFrame | None = None) -> pd.DataFrame:
    """The effects in the paper's tables: `KEYS` and `paper`.

    Args:
        values: as in config/paper_values.csv, which is the default.
    """
    tables = {f"table{k}": paper_values(f"table{k}") for k in range(1, 7)}
    values = pd.concat(tables.values()) if values is None else values
    values = values.fillna({"setting": "", "condition": "", "severity": ""})
    names = (values.system + " " + values.setting).str.strip()
    values = values.assign(subject=names, level=values.severity.astype(str).str.removesuffix(".0"))
    attacked = values.table == "table4"
    values.loc[attacked, "condition"] = values.condition.str.split().str[0]
    values.loc[attacked, ["level", "quantity"]] = ["paper", "robust"]
    values.loc[values.condition == "clean", "level"] = ""
    values = values.drop_duplicates(["dataset", "quantity", "subject", "condition", "level"])
    rows = [
        *_paper_pairs(values[values.condition == "clean"], CLEAN_PAIRS),
        *_paper_pairs(values[values.level.isin([*SEVERITY, "mean"])], NOISE_PAIRS),
        *_paper_pairs(values[values.quantity == "robust"], ATTACK_PAIRS),
        *_paper_orders(values),
    ]
    absolute = values[~values.quantity.isin(["parameters", "speed", "memory"])].assign(over="", paper=values.value)
    frame = pd.concat([absolute[[*KEYS, "paper"]], pd.DataFrame(rows)], ignore_index=True)
    zeros = ("cifar10", "zeros", "sdnet18", "", "clean", "", PAPER_ZEROS)
    frame.loc[len(frame)] = dict(zip([*KEYS, "paper"], zeros, strict=True))
    return frame


def _paper_pairs(values: pd.DataFrame, pairs: list[tuple[str, str]]) -> Iterator[Row]:
    """Differences of accuracies, and ratios of what networks cost."""
    keys = ["dataset", "quantity", "condition", "level"]
    by_subject = {name: group.set_index(keys).value for name, group in values.groupby("subject")}
    for subject, over in pairs:
        if subject not in by_subject or over not in by_subject:
            continue
        both = pd.concat([by_subject[subject], by_subject[over]], axis=1, join="inner", keys=["first", "second"])
        for key, first, second in both.itertuples():
            dataset, quantity, condition, level = key
            ratio = quantity in ("parameters", "speed", "memory")
            if quantity == "lambda":
                continue
            yield {
                "dataset": dataset,
                "quantity": quantity,
                "subject": subject,
                "over": over,
                "condition": "" if ratio else condition,
                "level": level,
                "paper": first / second if ratio else first - second,
            }


def _paper_orders(values: pd.DataFrame) -> Iterator[Row]:
    """What rises with the severity in Table 2."""
    table = values[(values.table == "table2") & values.subject.isin(["sdnet18 adaptive", "sdnet18 fixed"])]
    wide = table.pivot(index="level", columns=["quantity", "subject"], values="value").loc[SEVERITY]
    gain = wide["accuracy", "sdnet18 adaptive"] - wide["accuracy", "sdnet18 fixed"]
    lambdas = wide["lambda", "sdnet18 adaptive"]
    common = {"dataset": "cifar10", "condition": "gaussian", "level": ""}
    order = common | {"quantity": "rank_correlation", "over": "severity"}
    yield order | {"subject": "sdnet18 adaptive gain", "paper": rank_correlation(gain)}
    yield order | {"subject": "sdnet18 adaptive lambda", "paper": rank_correlation(lambdas)}
    fit = {"quantity": "r_squared", "subject": "sdnet18 adaptive lambda", "over": "noise variance"}
    yield common | fit | {"paper": _variance_fit(lambdas, "cifar")}
