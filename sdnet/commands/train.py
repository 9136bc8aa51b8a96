"""Train one run, in this process or, on several GPUs, in one process for each."""

import json
import os
import signal
import sys
from collections import deque
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from sdnet.experiments import environment, results
from sdnet.experiments.devices import lease
from sdnet.experiments.environment import experiment, trained_experiment
from sdnet.experiments.labels import duration
from sdnet.experiments.tracking import MARKER, Tracker
from sdnet.files import write_text
from sdnet.processes import end_with
from sdnet.runs.device import choose_device, device_name, recipe_on
from sdnet.runs.former import set_aside
from sdnet.runs.images import open_data
from sdnet.runs.network import build_model, read_weights, save_model
from sdnet.runs.spec import read_spec
from sdnet.training import distributed
from sdnet.training.checkpoint import latest_checkpoint
from sdnet.training.loop import fit


def train(spec_path: Path, data_path: Path | None, gpus: int, processes: int | None = None) -> None:
    """Train the run that a spec.json describes, from its last checkpoint if it has one, into the same folder.

    Args:
        spec_path: the description.
        data_path: as in `images.open_data`.
        gpus: how many to lease; several have a process each. Processes that someone's own torchrun started lease and
            lock nothing; each takes the GPU of its number, or the CPU if this is 0.
        processes: on the CPU, how many share the training; None for one.

    Raises:
        ValueError: if a number of processes is given beside GPUs, or the weights of the run are to be imported.
    """
    spec, folder = read_spec(spec_path), spec_path.parent
    if spec["training"]["epochs"] == 0:
        raise ValueError(
            f"{folder} is not trained: its weights are imported with python -m sdnet import-released CHECKPOINT"
        )
    if distributed.launched():
        end_with(os.getppid())  # torchrun, which does not see to that
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as torchrun ends all: at once, see distributed
        _train_share(spec, folder, data_path, gpus > 0 and torch.cuda.is_available())
        return
    with _only_process(folder / ".lock"):
        if _is_trained(folder, spec):
            print(f"{folder} is trained already; to train anew, remove all there but spec.json", file=sys.stderr)
            return
        _train_here(spec, folder, data_path, gpus, processes)


def _train_here(spec: dict, folder: Path, data_path: Path | None, gpus: int, processes: int | None) -> None:
    with lease(gpus) as devices:
        if devices and processes is not None:
            raise ValueError(f"--processes: given {processes}; it goes with --gpus 0, since GPUs have a process each")
        device = choose_device(devices)
        on_gpu = device.type == "cuda"
        count = len(devices) if on_gpu else processes or 1
        if count > 1:
            try:
                distributed.launch(count, _train_share, spec, folder, data_path, on_gpu)
            except BaseException:
                if (folder / MARKER).exists():  # the first process was killed, and could not say so itself
                    Tracker(folder, {}).close("FAILED")
                raise
        else:
            _train(spec, folder, data_path, device)


def _train_share(spec: dict, folder: Path, data_path: Path | None, gpu: bool) -> None:
    """One process's part of a training."""
    with distributed.joined(gpu) as device:
        _train(spec, folder, data_path, device)


def _train(spec: dict, folder: Path, data_path: Path | None, device: torch.device) -> None:
    data = open_data(spec, data_path, device, shard=(distributed.rank(), distributed.size()))
    model = build_model(spec, len(data.classes))
    recipe = recipe_on(device, spec)
    checkpoints = _checkpoints(folder, spec)
    name = device_name(device) if distributed.size() == 1 else f"{distributed.size()} x {device_name(device)}"
    about = environment.describe(name) | {"precision": recipe["precision"], "data_source": data.source}
    provenance = {"spec": spec, "environment": about}
    histories = fit(
        model, data.train, data.test, checkpoints=checkpoints, provenance=provenance, device=device, **recipe
    )
    if distributed.rank() > 0:  # the first process writes and reports
        deque(histories, maxlen=0)
        return
    if (precision := recipe["precision"]) != (wanted := spec["training"]["precision"]):
        print(f"{name} has no {wanted} instructions; training in {precision}", file=sys.stderr)
    _part_from_others(folder, checkpoints)
    tracker = Tracker(folder, environment.tags(about), from_start=not checkpoints.exists())
    try:
        for history in histories:
            results.write(folder / "history.csv", "history", history)
            tracker.log_epochs(history)
            _report(history, recipe["epochs"])
        _write_environment(folder, spec, latest_checkpoint(checkpoints)["trained_by"])
        save_model(model, folder / "model.pt")
    except BaseException:
        tracker.close("FAILED")
        raise
    last = history[-1]
    tracker.log_results(
        {"final_test_accuracy": last["test_correct"] / last["test_total"]},
        [folder / name for name in ("spec.json", "history.csv", "environment.json")],
    )
    tracker.close()


def _write_environment(folder: Path, spec: dict, processes: list[tuple[int, dict]]) -> None:
    """Say which experiment the weights are of, and with what they were trained, which need not be this process."""
    trained = [(epoch, provenance["environment"]) for epoch, provenance in processes]
    about = environment.of_training(trained) | {"experiment": experiment(spec)}
    write_text(folder / "environment.json", json.dumps(about, indent=2))


def _only_process(path: Path) -> AbstractContextManager:
    """Holds a lock of the run's folder: a process that outlived its workflow and its successor never write together."""
    lock = FileLock(path)
    try:
        return lock.acquire(blocking=False)
    except Timeout:
        remedy = f"if none does, as after a crash on a file system without locks, remove {path}"
        print(f"{path.parent}: another process trains this run; waiting for it to end ({remedy})", file=sys.stderr)
        return lock.acquire()


def _checkpoints(folder: Path, spec: dict) -> Path:
    """Where those of a resolved experiment are: changed settings never go on from the checkpoints of the old ones."""
    return folder / "checkpoints" / experiment(spec)


def _part_from_others(folder: Path, checkpoints: Path) -> None:
    """Set aside what was measured of other weights: these are new, or another experiment was begun here since."""
    begun = folder / ".begun"  # the experiment that was trained here last
    last = begun.read_text() if begun.exists() else checkpoints.name
    if not checkpoints.exists() or last != checkpoints.name:
        set_aside(folder)
    write_text(begun, checkpoints.name)


def _is_trained(folder: Path, spec: dict) -> bool:
    """Whether the weights are those of this experiment's last epoch, and what belongs to them is there, too.

    By the last checkpoint; where somebody removed them, by what `environment.json` says that was trained.
    """
    if not all((folder / name).exists() for name in ("model.pt", "history.csv", "environment.json")):
        return False
    try:
        weights = read_weights(folder / "model.pt")
    except Exception:  # a damaged file is to be written again
        return False
    epochs, state = spec["training"]["epochs"], latest_checkpoint(_checkpoints(folder, spec))
    if state is None:
        done = len(results.read(folder / "history.csv", "history"))
        return done == epochs and trained_experiment(folder) == experiment(spec)
    saved = state["model"]
    same = weights.keys() == saved.keys() and all(torch.equal(weights[name], saved[name]) for name in saved)
    return same and len(state["history"]) == epochs


def _report(history: list[dict], epochs: int) -> None:
    row = history[-1]
    if (unconverged := row.get("solver_unconverged", 0)) > 0:
        print(
            f"warning: epoch {row['epoch']}: an inner solver missed its tolerance for {unconverged:.1%} of its samples",
            file=sys.stderr,
        )
    rate = row["train_total"] / row["train_seconds"]
    left = (epochs - row["epoch"]) * sum(r["train_seconds"] for r in history) / len(history)
    print(
        f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}  loss {row['train_loss']:.4f}  "
        f"train {row['train_correct'] / row['train_total']:.2%}  test {row['test_correct'] / row['test_total']:.2%}  "
        f"{rate:,.0f} images/s  {duration(left)} left",
        file=sys.stderr,
        flush=True,
    )
