"""What a training step and a sweep cost as the work grows, as a figure."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from sdnet.commands.contender import Contender, rates, warm_up
from sdnet.experiments.devices import lease
from sdnet.files import whole
from sdnet.robustness.sweep import evaluate_at
from sdnet.runs.device import choose_device, device_name, precision_on

BASE = {"batch size": 64, "width": 16, "image size": 32, "iterations": 2}
GROWTH = {
    "batch size": (16, 32, 64, 128),
    "width": (8, 16, 32, 64),
    "image size": (16, 32, 48, 64),
    "iterations": (1, 2, 4, 8),
}
PRECISION = "bfloat16"
LAMBDA_COUNTS = (1, 2, 4, 8, 15)
SYSTEMS = {"resnet18": False, "sdnet18": True, "sdnet18-all": True}  # whether it has CSC layers


def growth(out: Path, gpus: int) -> None:
    """Measure on random images, print a table, and draw the picture `out`, a .png: milliseconds an image."""
    from sdnet.plots import style
    from sdnet.plots.growth import growth_curves

    sizes = [(varied, value) for varied, values in GROWTH.items() for value in values]
    with lease(gpus, alone=True) as devices:
        device = choose_device(devices)
        rows = [
            {"system": system, "varied": varied, "value": value, "ms": _step(system, BASE | {varied: value}, device)}
            for varied, value in tqdm(sizes, "growth", disable=None)
            for system in SYSTEMS
            if varied != "iterations" or SYSTEMS[system]
        ]
        rows += [
            {"system": system, "varied": "lambdas", "value": count, "ms": _sweep(system, count, device)}
            for count in LAMBDA_COUNTS
            for system in SYSTEMS
            if SYSTEMS[system]
        ]
    frame = pd.DataFrame(rows)
    print(frame.pivot(index=["varied", "value"], columns="system", values="ms").to_string(float_format="{:.2f}".format))
    clock = "" if device.type == "cuda" else ", processor time"
    base = ", ".join(f"{name} {value}" for name, value in BASE.items())
    style()
    precision = precision_on(device, PRECISION)
    note = f"{device_name(device)}{clock}; {precision}, the sweep in float32. Not varied: {base}."
    with whole(out) as file:
        growth_curves(frame, note).savefig(file, format="png", dpi=200)


def _contender(system: str, size: dict[str, int], device: torch.device) -> Contender:
    options = {"n_iter": size["iterations"]} if SYSTEMS[system] else {}
    spec = {
        "seed": 0,
        "dataset": {"name": "cifar10", "image_size": size["image size"]},
        "model": {"name": system, "width": size["width"], "options": options},
        "training": {"precision": PRECISION},
    }
    return Contender(spec, size["batch size"], device)


def _step(system: str, size: dict[str, int], device: torch.device) -> float:
    """A training step: milliseconds an image."""
    contender = _contender(system, size, device)
    return _milliseconds(contender.train_step, contender)


def _sweep(system: str, count: int, device: torch.device) -> float:
    """A sweep over so many lambdas: milliseconds an image."""
    contender = _contender(system, BASE, device)
    batch, lambdas = [(contender.x, contender.y)], np.linspace(0.1, 1.5, count)
    return _milliseconds(lambda: evaluate_at(contender.model, batch, lambdas), contender)


def _milliseconds(step, contender: Contender) -> float:
    warm_up(step, contender)
    by_clock, by_processor = rates(step, contender)
    return 1000 / (by_clock if contender.device.type == "cuda" else by_processor)
