"""How far noise moves what the first layer makes of an image."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from sdnet.commands.evidence.noise import adaptive
from sdnet.commands.evidence.runs import BOTH, SEVERITY, Row, Runs, point
from sdnet.experiments import plan


def stability(runs: Runs) -> Iterator[Row]:
    """Ratios of noise to signal, of the first layer's output and of what reaches the next; zeros of a convolution."""
    noise = plan.line_noise(runs.preset)
    if seeds := runs.seeds([plan.REFERENCE], "stability.csv"):
        shares = [100 * _rows(runs, plan.REFERENCE, seed, "layer").zeros.mean() for seed in seeds]
        yield runs.row(("zeros", plan.REFERENCE, "", "clean", ""), [point(share) for share in shares], seeds)
    for system in BOTH:
        seeds = runs.seeds([system, plan.REFERENCE], "stability.csv")
        fitted = [seed for seed in seeds if seed in runs.seeds([system], f"adaptive-{noise}.csv")]
        pairs = [
            ("fixed", plan.REFERENCE, seeds),
            ("solved", plan.REFERENCE, seeds),
            ("adaptive", f"{system} fixed", fitted),
        ]
        for choice, over, measured in pairs:
            if not measured:
                continue
            levels = _iterated(runs, system, measured[0]) if choice == "solved" else SEVERITY
            # Batch norm does not know a code of more iterations, so that what comes behind it would say little.
            for place in ("layer",) if choice == "solved" else ("layer", "behind"):
                both = (f"{system} {choice}", over)
                logs = [[_log(runs, name, seed, place, noise, levels) for name in both] for seed in measured]
                ratios = [point(np.exp(mine - others)) for mine, others in logs]
                yield runs.row(("noise_to_signal", *both, noise, place), ratios, measured)


def _iterated(runs: Runs, system: str, seed: int) -> list[str]:
    """The severities at which other numbers of iterations were tried."""
    rows = runs.read(system, seed, "stability")
    return [str(severity) for severity in rows[rows.n_iter != rows.n_iter0].severity.unique()]


def _rows(runs: Runs, system: str, seed: int, place: str) -> pd.DataFrame:
    rows = runs.read(system, seed, "stability").astype({"severity": str})
    return rows[rows.place == place].assign(log=lambda row: np.log(row.noise_to_signal))


def _log(runs: Runs, name: str, seed: int, place: str, noise: str, levels: list[str]) -> float:
    """Log of noise to signal, mean over severities: as trained, with most iterations, or at Algorithm 1's lambda."""
    system, _, choice = name.partition(" ")
    rows = _rows(runs, system, seed, place)
    rows = rows[rows.severity.isin(levels)]
    if choice == "solved":
        return rows[rows.n_iter == rows.n_iter.max()].log.mean()
    rows = rows[rows.n_iter.isna() | (rows.n_iter == rows.n_iter0)]
    if choice != "adaptive":
        return rows[rows["lambda"].isna() | np.isclose(rows["lambda"], rows.lambda0)].log.mean()
    chosen = adaptive(runs, system, seed, noise)["lambda"]
    curves = {severity: curve.sort_values("lambda") for severity, curve in rows.groupby("severity")}
    return np.mean([np.interp(chosen[level], curves[level]["lambda"], curves[level].log) for level in levels])
