"""A control for Algorithm 1: accuracy under noise with the batch norms' statistics taken from the noisy images."""

from functools import partial
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from sdnet.commands.measuring import measuring
from sdnet.csc import training_lambda
from sdnet.data.corruptions import SEVERITIES
from sdnet.experiments import results
from sdnet.robustness.control import renormalised_correct
from sdnet.runs.network import load_model
from sdnet.runs.noisy import Noise, Split, open_split
from sdnet.runs.spec import read_spec, run_columns


def renormalise(folder: Path, data_path: Path | None, noise: Noise, limit: int | None, gpus: int) -> None:
    """Write renormalised-<noise>.csv into a run's folder.

    Of a network with a lambda, Algorithm 1 has been tested under this noise: its lambdas are tried, too.
    """
    spec = read_spec(folder / "spec.json")
    rows = []
    with measuring(folder, gpus) as device:
        images = open_split(spec, data_path, "test", limit)
        model = load_model(folder, spec, len(images.classes), device)
        lambda0 = training_lambda(model)
        chosen = None if lambda0 is None else _chosen(folder / f"adaptive-{noise.name}.csv", images, noise)
        for severity in tqdm(SEVERITIES, f"{noise.name}: batch norms", disable=None):
            noisy = partial(images.at_severity, noise, severity)
            tried = {"trained": lambda0} | ({} if chosen is None else {"algorithm1": chosen[str(severity)]})
            for choice, lmbd in tried.items():
                correct = renormalised_correct(model, noisy, lmbd)
                rows.append(
                    {"severity": severity, "choice": choice, "lambda": lmbd, "correct": correct, "total": len(images)}
                )
    common = run_columns(spec) | images.columns(noise)
    path = folder / f"renormalised-{noise.name}.csv"
    results.write(path, "renormalised", [common | row for row in rows])
    page = pd.DataFrame(rows).assign(percent=lambda row: 100 * row.correct / row.total)
    print(f"{path}: accuracy (%) by severity, with the batch norms' statistics of the noisy images")
    print(page.pivot(index="choice", columns="severity", values="percent").to_string(float_format="{:.1f}".format))


def _chosen(path: Path, images: Split, noise: Noise) -> pd.Series:
    """The lambda of Algorithm 1 as printed at each severity.

    Raises:
        ValueError: if it was tested on other images or noise.
    """
    adaptive = results.read(path, "adaptive")
    tested = adaptive[(adaptive.variant == "paper") & (adaptive.severity != "mean")].set_index("severity")
    if set(tested.total) != {len(images)} or set(tested.noise_source) != {images.noise_source(noise)}:
        raise ValueError(
            f"{path} is of {tested.total.iloc[0]} images and noise {tested.noise_source.iloc[0]}; given are "
            f"{len(images)} and {images.noise_source(noise)}: give the same --images, --scale and --official, or "
            "calibrate again"
        )
    return tested["lambda"]
