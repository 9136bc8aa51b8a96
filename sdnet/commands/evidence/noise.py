"""Accuracy under noise, at the lambda of training and at that of Algorithm 1 (Tables 2, 3 and 5)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from sdnet.commands.evidence.runs import (
    SEVERITY,
    Row,
    Runs,
    kendall,
    nearest,
    percent,
    point,
    readings,
    spearman,
    warn,
    wilson,
)
from sdnet.data.corruptions import STRENGTHS
from sdnet.experiments import results
from sdnet.robustness.statistics import Interval, adaptive_difference, paired_difference

NOISE_PAIRS = [
    ("sdnet18 fixed", "resnet18"),
    ("sdnet18 fixed", "scn"),
    ("sdnet18 adaptive", "sdnet18 fixed"),
    ("sdnet18 adaptive", "resnet18"),
    ("sdnet18-iter4 adaptive", "sdnet18 adaptive"),
    ("sdnet18-iter8 adaptive", "sdnet18 adaptive"),
    ("sdnet18-iter8 adaptive", "sdnet18-iter4 adaptive"),
]
RESAMPLES = 1000


@dataclass(frozen=True)
class Swept:
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


def read_swept(runs: Runs, system: str, seed: int, noise: str) -> Swept:
    """What became of each image in a run's sweep under one noise."""
    arrays = results.read_arrays(runs.path(system, seed, f"sweep-{noise}.npz"))
    lambda0 = runs.read(system, seed, "sweep", noise).lambda0.iloc[0]
    where = 0 if np.isnan(lambda0) else nearest(arrays["lambdas"], lambda0)
    return Swept(arrays["correct"], arrays["lambdas"], arrays["correct"][:, where])


def noisy(runs: Runs) -> Iterator[Row]:
    """Differences of accuracy; the lambda of Algorithm 1, and what it gains."""
    for noise in runs.preset.noises_on(runs.dataset):
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
            seeds = [
                seed
                for seed in seeds
                if _same_images(runs, systems, seed, noise)
                and all(_of_its_sweep(runs, system, seed, noise) for system in fitted)
            ]
            if not seeds:
                continue
            how = runs.read(systems[0], seeds[0], "sweep", noise).noise_source.iloc[0]
            compare = _adaptive_over if fitted else _fixed_over
            yield from compare(runs, pair, seeds, noise, how)


def _same_images(runs: Runs, systems: list[str], seed: int, noise: str) -> bool:
    """Whether two networks were swept on the same images under the same kind of noise; if not, a warning says so."""
    sweeps = [runs.path(system, seed, f"sweep-{noise}.npz") for system in systems]
    images = {results.read_arrays(path)["indices"].tobytes() for path in sweeps}
    sources = {runs.read(system, seed, "sweep", noise).noise_source.iloc[0] for system in systems}
    alike = len(images) == len(sources) == 1
    if not alike:
        warn(
            f"{' and '.join(map(str, sweeps))} are of different images or noise, and are not compared; "
            "sweep both with the same --images, --scale and --official"
        )
    return alike


def _of_its_sweep(runs: Runs, system: str, seed: int, noise: str) -> bool:
    """Whether Algorithm 1 was tested on as many images, under the same kind of noise; if not, a warning says so."""
    tested, swept = adaptive(runs, system, seed, noise).loc[SEVERITY], runs.read(system, seed, "sweep", noise)
    alike = all(set(tested[column]) == set(swept[column]) for column in ("total", "noise_source"))
    if not alike:
        path = runs.path(system, seed, f"adaptive-{noise}.csv")
        warn(f"{path} is not of the sweep beside it and left out; make it anew with: {results.command_for(path)}")
    return alike


def _fixed_over(runs: Runs, pair: tuple[str, str], seeds: list[int], noise: str, how: str) -> Iterator[Row]:
    """At the lambda of training, or without one: of each severity and of their mean, paired over images."""
    both = [[read_swept(runs, name.split()[0], seed, noise).fixed for name in pair] for seed in seeds]
    for level in [*SEVERITY, "mean"]:
        chosen = slice(None) if level == "mean" else int(level) - 1
        found = [percent(paired_difference(a[chosen], b[chosen])) for a, b in both]
        yield runs.row(("accuracy", *pair, noise, level), found, seeds, how)


def adaptive(runs: Runs, system: str, seed: int, noise: str) -> pd.DataFrame:
    """Algorithm 1 as printed, by severity."""
    rows = runs.read(system, seed, "adaptive", noise)
    return rows[rows.variant == "paper"].astype({"severity": str}).set_index("severity")


def _gains(runs: Runs, system: str, seeds: list[int], noise: str) -> Iterator[Row]:
    """Algorithm 1 over the lambda of training, as adaptive-<noise>.csv has it; and the lambda it chooses."""
    of_seeds = [adaptive(runs, system, seed, noise) for seed in seeds]
    subject, how = f"{system} adaptive", of_seeds[0].noise_source.iloc[0]
    for level in ["0", *SEVERITY, "mean"]:
        at = [one.loc[level] for one in of_seeds]
        gains = [Interval(one.gain, one.gain_low, one.gain_high) for one in at]
        yield runs.row(("accuracy", subject, f"{system} fixed", noise, level), gains, seeds, how)
        severities = len(SEVERITY) if level == "mean" else 1
        yield runs.row(("accuracy", subject, "", noise, level), [wilson(one, severities) for one in at], seeds, how)
        if level in SEVERITY:
            chosen = [Interval(one["lambda"], one.lambda_low, one.lambda_high) for one in at]
            yield runs.row(("lambda", subject, "", noise, level), chosen, seeds, how)
    by_severity = [one.loc[SEVERITY] for one in of_seeds]
    order = [point(spearman(one.gain)) for one in by_severity]
    yield runs.row(("spearman", f"{subject} gain", "severity", noise, ""), order, seeds, how)
    order = [point(kendall(one.loc[["0", *SEVERITY]].residual, range(6))) for one in of_seeds]
    yield runs.row(("kendall", f"{system} residual", "severity", noise, ""), order, seeds, how)
    order = [point(kendall(one["lambda"])) for one in by_severity]
    yield runs.row(("kendall", f"{subject} lambda", "severity", noise, ""), order, seeds, how)
    if noise == "gaussian":
        scale = "imagenet" if "imagenet" in how.lower() else "cifar"
        fits = [point(variance_fit(one["lambda"], scale)) for one in by_severity]
        yield runs.row(("r_squared", f"{subject} lambda", "noise variance", noise, ""), fits, seeds, how)


def variance_fit(lambdas: Sequence[float], scale: str) -> float:
    """R^2 of the line through the chosen lambdas and the variance of Gaussian noise."""
    variance = np.square(STRENGTHS[scale]["gaussian"])
    return float(stats.pearsonr(variance, lambdas).statistic ** 2) if np.ptp(lambdas) > 0 else 0.0


def _adaptive_over(runs: Runs, pair: tuple[str, str], seeds: list[int], noise: str, how: str) -> Iterator[Row]:
    """At the lambda of Algorithm 1 over another network, for each severity and for their mean.

    The estimate is of the counts. Its interval, over test and calibration images, is that of the swept images
    interpolated between lambdas, since each image's fate at the chosen lambda is not kept. The reference's lambdas are
    taken as exact.
    """
    both = [[chosen_by(runs, name, seed, noise) for name in pair] for seed in seeds]
    for level in [*SEVERITY, "mean"]:
        at = slice(None) if level == "mean" else slice(int(level) - 1, int(level))
        found = []
        for (subject, chosen), (over, reference) in both:
            baseline = over.fixed if reference is None else over.at(reference["lambda"])
            interpolated = adaptive_difference(
                subject.correct[at],
                subject.lambdas,
                chosen["lambda"].iloc[at],
                lambda_draws(chosen)[:, at],
                baseline[at],
            )
            counted = over.fixed[at].mean() if reference is None else _accuracy(reference.iloc[at])
            shift = _accuracy(chosen.iloc[at]) - counted - interpolated.estimate
            found.append(percent(Interval(*(end + shift for end in interpolated))))
        yield runs.row(("accuracy", *pair, noise, level), found, seeds, how)


def _accuracy(counts: pd.DataFrame) -> float:
    return counts.correct.sum() / counts.total.sum()


def lambda_draws(chosen: pd.DataFrame) -> np.ndarray:
    """The lambdas of Algorithm 1 as other calibration images might have given them: (RESAMPLES, severities).

    Their errors are taken as normal, and as common to all severities, as one line gives them all.
    """
    std = (chosen.lambda_high - chosen.lambda_low).fillna(0) / 3.92
    errors = np.random.default_rng(0).normal(size=(RESAMPLES, 1))
    return chosen["lambda"].to_numpy() + std.to_numpy() * errors


def chosen_by(runs: Runs, name: str, seed: int, noise: str) -> tuple[Swept, pd.DataFrame | None]:
    """The fates of a network's images, and at which lambda of Algorithm 1 they count, if it is to choose it."""
    system, _, setting = name.partition(" ")
    chosen = adaptive(runs, system, seed, noise).loc[SEVERITY] if setting == "adaptive" else None
    return read_swept(runs, system, seed, noise), chosen
