"""Accuracy under attack (Table 4)."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from sdnet.commands.evidence.runs import BOTH, Row, Runs, nearest, percent, point, warn, wilson
from sdnet.experiments import results
from sdnet.experiments.columns import TOGETHER
from sdnet.experiments.labels import radius_label
from sdnet.experiments.settings.robustness import Adversarial
from sdnet.experiments.tables.layout import paper_values
from sdnet.robustness.statistics import Interval, paired_difference, split_half

ATTACK_PAIRS = [("sdnet18 fixed", "resnet18"), ("sdnet18 tuned", "resnet18"), ("sdnet18 tuned", "sdnet18 fixed")]


def attacks(runs: Runs) -> Iterator[Row]:
    """Robust accuracy, what tuning lambda changes, and what it costs; beside the paper's, only within its radii."""
    if runs.dataset not in runs.preset.adversarial.datasets:
        return
    ours, papers = (
        " and ".join(radius_label(*radius) for radius in one.radii.items())
        for one in (runs.preset.adversarial, Adversarial())
    )
    unequal = {"unequal": f"attacked within {ours}, the paper within {papers}"}
    for row in _measured(runs):
        yield row | unequal if ours != papers and runs.dataset == "cifar10" else row


def _measured(runs: Runs) -> Iterator[Row]:
    for norm, eps in runs.preset.adversarial.radii.items():
        label = radius_label(norm, eps)
        for kind, level in {"attack-paper": "paper", "attack-adaptive": "worst"}.items():
            if seeds := _seeds(runs, ["resnet18"], norm, f"{kind}.csv"):
                left = [wilson(_attacked(runs, "resnet18", seed, norm, level, "given")) for seed in seeds]
                tried = level == "paper" and seeds[0] in _seeds(runs, ["resnet18"], norm, "attack-adaptive.csv")
                how = f"{label}; {_weaker(runs, seeds[0], norm)}" if tried else label
                yield runs.row(("robust", "resnet18", "", norm, level), left, seeds, how)
            for system in BOTH:
                if seeds := _seeds(runs, [system], norm, f"{kind}.csv"):
                    found = [_attacked(runs, system, seed, norm, level, "held-out") for seed in seeds]
                    gains = [Interval(one.gain, one.gain_low, one.gain_high) for one in found]
                    keys = ("robust", f"{system} tuned", f"{system} fixed", norm, level)
                    yield runs.row(keys, gains, seeds, label)
        for system in BOTH:
            yield from _tuning(runs, system, norm, label)


def _seeds(runs: Runs, systems: list[str], norm: str, *names: str) -> list[int]:
    """The seeds for which all these networks have these files, of the preset's radius; a warning names the others."""
    kinds = [Path(name).stem for name in names if name.endswith(".csv")]
    return [
        seed
        for seed in runs.seeds(systems, *names)
        if all(_of_radius(runs, system, seed, norm, kind) for system in systems for kind in kinds)
    ]


def _of_radius(runs: Runs, system: str, seed: int, norm: str, kind: str) -> bool:
    found = not _rows(runs, system, seed, norm, kind).empty
    if not found:
        path, wanted = runs.path(system, seed, f"{kind}.csv"), radius_label(norm, runs.preset.adversarial.radii[norm])
        warn(
            f"{path} has no attack within {wanted}, the preset's radius, and is left out; make it anew with: "
            f"{results.command_for(path)}"
        )
    return found


def _rows(runs: Runs, system: str, seed: int, norm: str, kind: str) -> pd.DataFrame:
    rows = runs.read(system, seed, kind)
    return rows[(rows.norm == norm) & np.isclose(rows.eps, runs.preset.adversarial.radii[norm])]


def _attacked(runs: Runs, system: str, seed: int, norm: str, level: str, choice: str) -> pd.Series:
    """The counts of the paper's protocol, or of all attacks together, for one way to choose lambda."""
    rows = _rows(runs, system, seed, norm, "attack-paper" if level == "paper" else "attack-adaptive")
    return rows[(rows.choice == choice) & (rows.step == ("a" if level == "paper" else "worst"))].iloc[0]


def _weaker(runs: Runs, seed: int, norm: str) -> str:
    """Which of the weaker attacks leave ResNet-18 about what the paper prints (A2)."""
    printed = paper_values("table4")
    printed = printed[(printed.system == "resnet18") & printed.condition.str.startswith(norm)].value.iloc[0]
    rows = _rows(runs, "resnet18", seed, norm, "attack-adaptive")
    rows = rows[(rows.step == "a'") & (rows.attack != TOGETHER)]
    share = 100 * rows.correct / rows.total
    near = [
        f"{attack} ({left:.0f}%)" for attack, left in zip(rows.attack, share, strict=True) if abs(left - printed) < 5
    ]
    return f"weaker attacks that leave about {printed:g}%: {', '.join(near) or 'none of those tried'}"


def _tuning(runs: Runs, system: str, norm: str, label: str) -> Iterator[Row]:
    """By the paper's protocol: against ResNet-18, the price on clean images, and the lambda of Algorithm 1."""
    files = ["attack-paper.csv", "attack-paper.npz"]
    both = [system, "resnet18"]
    if seeds := [seed for seed in _seeds(runs, both, norm, *files) if _same_images(runs, both, seed)]:
        for choice in ("fixed", "tuned"):
            pairs = [
                (_robust(runs, system, seed, norm, choice), _robust(runs, "resnet18", seed, norm)) for seed in seeds
            ]
            found = [percent(paired_difference(*pair)) for pair in pairs]
            yield runs.row(("robust", f"{system} {choice}", "resnet18", norm, "paper"), found, seeds, label)
    if seeds := _seeds(runs, [system], norm, *files):
        prices, distances = [], []
        for seed in seeds:
            tuned, predicted = (
                _attacked(runs, system, seed, norm, "paper", choice)["lambda"] for choice in ("tuned", "algorithm1")
            )
            arrays = results.read_arrays(runs.path(system, seed, "attack-paper.npz"))
            at = [nearest(arrays["lambdas"], value) for value in (tuned, _lambda0(runs, system, seed))]
            prices.append(percent(paired_difference(*arrays["correct"][at])))
            distances.append(point(abs(predicted - tuned)))
        yield runs.row(("accuracy", f"{system} tuned", f"{system} fixed", norm, "clean"), prices, seeds, label)
        yield runs.row(("lambda", f"{system} algorithm1", f"{system} tuned", norm, "paper"), distances, seeds, label)


def _same_images(runs: Runs, systems: list[str], seed: int) -> bool:
    """Whether two networks were attacked on the same images; if not, a warning says so."""
    paths = [runs.path(system, seed, "attack-paper.npz") for system in systems]
    alike = len({results.read_arrays(path)["index"].tobytes() for path in paths}) == 1
    if not alike:
        warn(
            f"{' and '.join(map(str, paths))} are of different images, and are not compared; attack both with the same "
            "--images"
        )
    return alike


def _robust(runs: Runs, system: str, seed: int, norm: str, choice: str = "fixed") -> np.ndarray:
    """Which attacked images (N,) are still classified correctly, at the lambda of training or tuned on other images."""
    arrays = results.read_arrays(runs.path(system, seed, "attack-paper.npz"))
    robust, lambdas = arrays[f"{norm}_robust"][0], arrays["lambdas"]
    if len(robust) == 1:
        return robust[0]
    if choice == "fixed":
        return robust[nearest(lambdas, _lambda0(runs, system, seed))]
    return split_half(robust[: len(lambdas)], lambdas)[0]  # behind them, that of Algorithm 1


def _lambda0(runs: Runs, system: str, seed: int) -> float:
    return runs.read(system, seed, "attack-paper").lambda_attack.iloc[0]
