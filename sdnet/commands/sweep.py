"""Accuracy of a trained network against lambda, under one noise at its five severities (Figure 2)."""

import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from sdnet.commands.measuring import measuring
from sdnet.commands.parts import Arrays, Parts
from sdnet.commands.swept import made_of, sweep_rows
from sdnet.csc import training_lambda
from sdnet.data.corruptions import SEVERITIES
from sdnet.experiments import results
from sdnet.robustness.sweep import Sweep, evaluate_at
from sdnet.runs.network import load_model
from sdnet.runs.noisy import Noise, open_split
from sdnet.runs.spec import read_spec, run_columns


def sweep(
    folder: Path, data_path: Path | None, noise: Noise, lambdas: list[float], limit: int | None, gpus: int
) -> None:
    """Write sweep-<noise>.csv, counts, and sweep-<noise>.npz, each image's fate, into a run's folder.

    A killed sweep goes on after the last severity that it had done.
    """
    spec = read_spec(folder / "spec.json")
    with measuring(folder, gpus) as device:
        images = open_split(spec, data_path, "test", limit)
        model = load_model(folder, spec, len(images.classes), device)
        lambda0 = training_lambda(model)
        if lambda0 is not None and not np.isclose(lambdas, lambda0).any():
            given = ",".join(f"{lmbd:g}" for lmbd in lambdas)
            raise ValueError(f"--lambdas: given {given}; must contain {lambda0:g}, that of training")
        identity = made_of(folder, images, noise)
        parts, seconds = Parts(folder / "parts", "sweep", noise.name, identity, repr(lambdas)), []

        def at(severity: int) -> Arrays:
            batches, started = images.at_severity(noise, severity), time.perf_counter()
            found = evaluate_at(model, batches, lambdas, lambda0, progress=f"{noise.name} {severity}")
            seconds.append(time.perf_counter() - started)
            return vars(found)

        sweeps = [Sweep(**parts.get(str(severity), partial(at, severity))) for severity in SEVERITIES]
    common = run_columns(spec) | images.columns(noise)
    rows = [
        common | {"severity": severity, "lambda0": lambda0} | row
        for severity, one in zip(SEVERITIES, sweeps, strict=True)
        for row in sweep_rows(one)
    ]
    results.write_arrays(
        folder / f"sweep-{noise.name}.npz",
        lambdas=sweeps[0].lambdas,
        correct=np.stack([one.correct for one in sweeps]),
        residuals=np.stack([one.residuals for one in sweeps]),
        indices=images.indices,
        made_of=np.array(identity),
    )
    results.write(folder / f"sweep-{noise.name}.csv", "sweep", rows)
    parts.clear()
    print(f"{folder}/sweep-{noise.name}.csv: accuracy (%) by lambda and severity, {noise.name} noise\n{_page(sweeps)}")
    if seconds:  # of severities that were not there yet
        passes, total = len(images) * len(seconds) * len(sweeps[0].lambdas), sum(seconds)
        print(f"{passes:,} forward passes in {total:,.0f} s: {passes / total:,.0f} images/s")


def _page(sweeps: list[Sweep]) -> str:
    lambdas = ["" if np.isnan(lmbd) else f"{lmbd:g}" for lmbd in sweeps[0].lambdas]
    percent = {severity: 100 * one.correct.mean(axis=1) for severity, one in zip(SEVERITIES, sweeps, strict=True)}
    return pd.DataFrame(percent, lambdas).to_string(float_format="{:.1f}".format)
