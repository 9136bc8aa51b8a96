"""The training loop beside a plain one: whole trainings of the same run, their times and their accuracies."""

import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import torch

from sdnet.data.datasets import CLASS_FOLDERS, INFO
from sdnet.data.images import subset
from sdnet.runs.device import device_name, recipe_on
from sdnet.runs.images import open_data, open_images
from sdnet.runs.network import build_model
from sdnet.runs.spec import read_spec
from sdnet.training.loop import fit
from sdnet.training.plain import fit_plainly

WORKERS = 2  # of the plain loop's loader


def compare(spec_path: Path, data_path: Path | None, seeds: int) -> None:
    """Train the run of a spec.json in both loops, in turns, with each of the first seeds; print a table.

    Raises:
        ValueError: if the run is none that the plain loop can train: with SGD and a cosine schedule, images in memory.
    """
    spec = read_spec(spec_path)
    recipe = spec["training"]
    if recipe["epochs"] == 0:
        raise ValueError(f"{spec_path}: nothing is trained there, since its weights are imported; name another run")
    if recipe["optimizer"] != "sgd" or recipe["schedule"] != "cosine" or spec["dataset"]["name"] in CLASS_FOLDERS:
        raise ValueError(
            f"{spec_path}: the plain loop has SGD, a cosine schedule and images in memory; given "
            f"{recipe['optimizer']}, {recipe['schedule']} and {spec['dataset']['name']}"
        )
    loops = {"ours": _ours, "plain": _plain}
    rows = []
    for seed in range(seeds):
        for name, train in loops.items():
            with _stopwatch() as times:
                accuracy = train(spec | {"seed": seed}, data_path)
            rows.append({"loop": name, "seed": seed, "accuracy": 100 * accuracy} | times)
            print(f"seed {seed}, {name}: {accuracy:.2%}, {times['seconds']:.0f} s", flush=True)
    print(_page(spec, pd.DataFrame(rows)))


def _ours(spec: dict, data_path: Path | None) -> float:
    device = torch.device("cpu")
    data = open_data(spec, data_path, device)
    model = build_model(spec, len(data.classes))
    recipe = recipe_on(device, spec)
    with tempfile.TemporaryDirectory(prefix="sdnet-") as folder:
        *_, history = fit(model, data.train, data.test, checkpoints=Path(folder), device=device, **recipe)
    return history[-1]["test_correct"] / history[-1]["test_total"]


def _plain(spec: dict, data_path: Path | None) -> float:
    wanted = spec["dataset"]
    images = subset(open_images(spec, data_path), wanted["train_images"], wanted["test_images"], seed=0)
    model = build_model(spec, len(images.classes))
    names = ("epochs", "batch_size", "learning_rate", "momentum", "nesterov", "weight_decay")
    recipe = {name: spec["training"][name] for name in names}
    *_, accuracy = fit_plainly(model, images, INFO[wanted["name"]], seed=spec["seed"], workers=WORKERS, **recipe)
    return accuracy


@contextmanager
def _stopwatch() -> Iterator[dict[str, float]]:
    """What a block takes: seconds by the clock, and of processor time, with that of processes it started and ended."""
    times = {}

    def now() -> tuple[float, float]:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return time.perf_counter(), sum(one.ru_utime + one.ru_stime for one in used)

    before = now()
    yield times
    times["seconds"], times["processor_seconds"] = (b - a for a, b in zip(before, now(), strict=True))


def _page(spec: dict, rows: pd.DataFrame) -> str:
    of_loop, seeds = rows.groupby("loop", sort=False), rows.seed.nunique()
    mean, spread = of_loop[["accuracy", "seconds", "processor_seconds"]].mean(), of_loop.accuracy.std()
    lines = [
        f"{name:5}  accuracy {mean.accuracy[name]:.2f}"
        + (f" ± {spread[name]:.2f} % over {seeds} seeds, " if seeds > 1 else " %, ")
        + f"{mean.seconds[name]:.1f} s by the clock, {mean.processor_seconds[name]:.1f} s of processor time"
        for name in mean.index
    ]
    clock, processor = (mean[kind]["plain"] / mean[kind]["ours"] for kind in ("seconds", "processor_seconds"))
    device = torch.device("cpu")
    recipe = recipe_on(device, spec)
    return "\n".join(
        [
            f"{spec['dataset']['name']}, {spec['system']}, width {spec['model']['width']}, {recipe['epochs']} epochs, "
            f"batch size {spec['training']['batch_size']}, {device_name(device)}; whole trainings with their tests, "
            f"ours in {recipe['precision']}, the plain one in float32",
            *lines,
            f"ours is {clock:.2f} times as fast by the clock, {processor:.2f} times by processor time",
        ]
    )
