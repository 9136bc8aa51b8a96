"""How far noise moves what the first layer makes of an image."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from sdnet.commands.evidence.noise import adaptive
from sdnet.commands.evidence.runs import BOTH, SEVERITY, Row, Runs, point, warn
from sdnet.experiments import catalogue, results


def stability(runs: Runs) -> Iterator[Row]:
    """Ratios of noise to signal, of the first layer's output and of what reaches the next; zeros, and new support."""
    noise = runs.preset.line_noise
    if seeds := _seeds(runs, catalogue.REFERENCE):
        shares = [100 * _rows(runs, catalogue.REFERENCE, seed, "layer").zeros.mean() for seed in seeds]
        yield runs.row(("zeros", catalogue.REFERENCE, "", "clean", ""), [point(share) for share in shares], seeds)
    for system in BOTH:
        own, beside = _seeds(runs, system), _seeds(runs, system, catalogue.REFERENCE)
        fitted = [seed for seed in own if seed in runs.seeds([system], f"adaptive-{noise}.csv")]
        for choice, over, place, measured in (
            ("fixed", catalogue.REFERENCE, "layer", beside),
            ("fixed", catalogue.REFERENCE, "behind", beside),
            ("fixed", f"{system} atoms", "layer", own),
            ("solved", f"{system} atoms", "layer", own),
            ("adaptive", f"{system} fixed", "layer", fitted),
            ("adaptive", f"{system} fixed", "behind", fitted),
        ):
            if not measured:
                continue
            levels = _iterated(runs, system, measured[0]) if choice == "solved" else SEVERITY
            both = (f"{system} {choice}", over)
            logs = [[_mean(runs, name, seed, place, noise, levels) for name in both] for seed in measured]
            row = runs.row(("noise_to_signal", *both, noise, place), [point(a - b) for a, b in logs], measured)
            yield row | {name: np.exp(row[name]) for name in ("estimate", "low", "high")}
        if fitted:
            shares = [_mean(runs, f"{system} adaptive", seed, "layer", noise, SEVERITY, "new") for seed in fitted]
            keys = ("new", f"{system} adaptive", "", noise, "layer")
            yield runs.row(keys, [point(100 * share) for share in shares], fitted)


def _seeds(runs: Runs, *systems: str) -> list[int]:
    """The seeds for which all these networks were measured alike, under the preset's noise; a warning names others."""
    return [
        seed
        for seed in runs.seeds(systems, "stability.csv")
        if all(_of_noise(runs, system, seed) for system in systems) and _alike(runs, systems, seed)
    ]


def _of_noise(runs: Runs, system: str, seed: int) -> bool:
    measured, wanted = set(runs.read(system, seed, "stability").noise), runs.preset.line_noise
    if measured != {wanted}:
        path = runs.path(system, seed, "stability.csv")
        warn(
            f"{path} is of {', '.join(sorted(measured)) or 'no'} noise and left out, since the preset's is {wanted}; "
            f"make it anew with: {results.command_for(path)}"
        )
    return measured == {wanted}


def _alike(runs: Runs, systems: tuple[str, ...], seed: int) -> bool:
    """Whether networks were measured on as many images under the same kind of noise; if not, a warning says so."""
    measured = pd.concat([runs.read(system, seed, "stability") for system in systems])
    alike = len(measured[["images", "noise_source"]].drop_duplicates()) == 1
    if not alike:
        paths = " and ".join(str(runs.path(system, seed, "stability.csv")) for system in systems)
        warn(
            f"{paths} are of different images or noise, and are not compared; measure both with the same --images, "
            "--scale and --official"
        )
    return alike


def _iterated(runs: Runs, system: str, seed: int) -> list[str]:
    """The severities at which other numbers of iterations were tried."""
    rows = runs.read(system, seed, "stability").dropna(subset="n_iter")
    return [str(severity) for severity in rows[rows.n_iter != rows.n_iter0].severity.unique()]


def _rows(runs: Runs, system: str, seed: int, place: str) -> pd.DataFrame:
    rows = runs.read(system, seed, "stability").astype({"severity": str})
    return rows[rows.place == place].assign(log=lambda row: np.log(row.noise_to_signal))


def _mean(runs: Runs, name: str, seed: int, place: str, noise: str, levels: list[str], column: str = "log") -> float:
    """Log of noise to signal, or another column, mean over severities.

    As trained; at Algorithm 1's lambda; with most iterations, at the lambda where that is least; or of the convolution
    with the same atoms.
    """
    system, _, choice = name.partition(" ")
    rows = _rows(runs, system, seed, "atoms" if choice == "atoms" else place)
    rows = rows[rows.severity.isin(levels)]
    if choice == "solved":
        iterated = rows[rows.groupby("lambda").n_iter.transform("nunique") > 1]
        return iterated[iterated.n_iter == iterated.n_iter.max()].groupby("lambda")[column].mean().min()
    rows = rows[rows.n_iter.isna() | (rows.n_iter == rows.n_iter0)]
    if choice != "adaptive":
        return rows[results.as_trained(rows)][column].mean()
    chosen = adaptive(runs, system, seed, noise)["lambda"]
    curves = {severity: curve.sort_values("lambda") for severity, curve in rows.groupby("severity")}
    return np.mean([np.interp(chosen[level], curves[level]["lambda"], curves[level][column]) for level in levels])
