"""The best lambda under noise (Figure 2), and the line by which Algorithm 1 finds it (Figure 3)."""

import itertools
from collections.abc import Iterator

import numpy as np
import pandas as pd

from sdnet.commands.evidence.noise import Swept, chosen_by, lambda_draws, read_swept
from sdnet.commands.evidence.runs import BOTH, SEVERITY, Row, Runs, kendall, normal, percent, point
from sdnet.robustness.peaks import find_peaks
from sdnet.robustness.statistics import Interval, adaptive_difference, paired_difference, split_half


def best_lambda_effects(runs: Runs) -> Iterator[Row]:
    """What the best lambda gains, where it is, and whether it grows with the severity."""
    for system, noise in itertools.product(BOTH, runs.preset.noises_on(runs.dataset)):
        seeds = runs.seeds([system], f"sweep-{noise}.csv", f"sweep-{noise}.npz")
        if not seeds:
            continue
        how = runs.read(system, seeds[0], "sweep", noise).noise_source.iloc[0]
        swept = [read_swept(runs, system, seed, noise) for seed in seeds]
        best = f"{system} best"
        for position, level in enumerate(SEVERITY):
            gains = [_split_half_gain(one, position, one.fixed[position]) for one in swept]
            yield runs.row(("accuracy", best, f"{system} fixed", noise, level), gains, seeds, how)
            rises = [_split_half_gain(one, position, _better_end(one.correct[position])) for one in swept]
            yield runs.row(("accuracy", best, "both ends of the grid", noise, level), rises, seeds, how)
        peaks = [find_peaks(one.correct, one.lambdas) for one in swept]
        chosen = [[normal(peak.parabola, peak.parabola_std) for peak in of_seed] for of_seed in peaks]
        order = [point(kendall([peak.estimate for peak in of_seed])) for of_seed in chosen]
        rows = [
            runs.row(("lambda", best, "", noise, level), of_level, seeds, how)
            for level, of_level in zip(SEVERITY, zip(*chosen, strict=True), strict=True)
        ]
        yield from rows
        yield runs.row(("kendall", f"{best} lambda", "severity", noise, ""), order, seeds, how)
        falls = sum(before["low"] > after["high"] for before, after in itertools.combinations(rows, 2))
        falls = [point(falls)] * len(seeds)  # of all of them together
        yield runs.row(("inversions", f"{best} lambda", "severity", noise, ""), falls, seeds, how)


def _split_half_gain(one: Swept, severity: int, baseline: np.ndarray) -> Interval:
    """The best lambda over a baseline; chosen on one half of the images, measured on the other."""
    chosen, _ = split_half(one.correct[severity], one.lambdas)
    return percent(paired_difference(chosen, baseline))


def _better_end(correct: np.ndarray) -> np.ndarray:
    """Of (L, N), each image (N,) at the first or the last lambda, whichever classifies more images correctly."""
    return max(correct[0], correct[-1], key=np.mean)


def lines(runs: Runs) -> Iterator[Row]:
    """How straight the line is, and what the noise's own one gains over those of others."""
    for system in BOTH:
        fitted = {}
        for noise in runs.preset.noises_on(runs.dataset):
            if seeds := runs.seeds([system], f"lines-{noise}.csv"):
                fitted[noise] = {seed: _line(runs, system, seed, noise) for seed in seeds}
                fits = [point(line.r_squared) for line in fitted[noise].values()]
                yield runs.row(("r_squared", f"{system} lambda", "residual", noise, ""), fits, seeds)
        for noise in fitted if len(fitted) > 1 else ():
            names = [f"sweep-{noise}.csv", f"sweep-{noise}.npz", f"adaptive-{noise}.csv"]
            seeds = [seed for seed in runs.seeds([system], *names) if all(seed in of for of in fitted.values())]
            if not seeds:
                continue
            found = [
                _own_line_gain(runs, system, seed, noise, {name: of[seed] for name, of in fitted.items()})
                for seed in seeds
            ]
            how = runs.read(system, seeds[0], "sweep", noise).noise_source.iloc[0]
            keys = ("accuracy", f"{system} adaptive", "the lines of other noises", noise, "mean")
            yield runs.row(keys, found, seeds, how)


def _line(runs: Runs, system: str, seed: int, noise: str) -> pd.Series:
    lines = runs.read(system, seed, "lines", noise)
    return lines[lines.variant == "paper"].iloc[0]


def _own_line_gain(runs: Runs, system: str, seed: int, noise: str, lines: dict[str, pd.Series]) -> Interval:
    """Accuracy by the noise's own line minus that by another's, mean over severities and over the other noises.

    The interval is over test images and those that the own line was fitted to; the other lines are taken as exact.
    """
    swept, own = chosen_by(runs, f"{system} adaptive", seed, noise)
    others = [
        swept.at((line.slope * own.residual + line.intercept).clip(line.lambda_min, line.lambda_max))
        for name, line in lines.items()
        if name != noise
    ]
    baseline = np.mean(others, axis=0)
    return percent(adaptive_difference(swept.correct, swept.lambdas, own["lambda"], lambda_draws(own), baseline))
