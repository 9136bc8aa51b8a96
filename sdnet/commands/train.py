"""Train one run."""

import hashlib
import json
import sys
from pathlib import Path

from filelock import FileLock, Timeout

from sdnet.commands.experiment import build_model, choose_device, device_name, open_data, read_spec, save_model
from sdnet.experiments import environment, results
from sdnet.experiments.devices import lease
from sdnet.experiments.tracking import Tracker
from sdnet.training.loop import fit


def train(spec_path: Path, data_path: Path | None, gpus: int) -> None:
    """Train the run that a spec.json describes, from its last checkpoint if it has one, into the same folder."""
    spec, folder = read_spec(spec_path), spec_path.parent
    with _only_process(folder / ".lock"), lease(gpus) as devices:
        device = choose_device(devices)
        data = open_data(spec, data_path, device)
        model = build_model(spec, len(data.classes))
        about = environment.describe(device_name(device)) | {"data_source": data.source}
        recipe = {key: value for key, value in spec["training"].items() if key != "batch_size"}
        checkpoints = folder / "checkpoints" / _digest(spec)
        tags = {"commit": str(about["commit"]), "device": about["device"]}
        tracker = Tracker(folder, tags, from_start=not checkpoints.exists())
        try:
            for history in fit(model, data.train, data.test, checkpoints=checkpoints, device=device, **recipe):
                results.write(folder / "history.csv", "history", history)
                tracker.log_epochs(history)
                _report(history, recipe["epochs"])
        except BaseException:
            tracker.close("FAILED")
            raise
        results.write_text(folder / "environment.json", json.dumps(about, indent=2))
        save_model(model, folder / "model.pt")
        last = history[-1]
        tracker.log_results(
            {"final_test_accuracy": last["test_correct"] / last["test_total"]},
            [folder / name for name in ("spec.json", "history.csv", "environment.json")],
        )
        tracker.close()


def _only_process(path: Path) -> FileLock:
    """A lock of the run's folder: a process that outlived its workflow and its successor never write together."""
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
        lock.release()
    except Timeout:
        print(f"{path.parent}: another process trains this run; waiting for it to end", file=sys.stderr)
    return lock


def _digest(spec: dict) -> str:
    """A short name of a resolved experiment: changed settings never go on from the checkpoints of the old ones."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:12]


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
        f"{rate:,.0f} images/s  {left / 60:.1f} min left",
        file=sys.stderr,
        flush=True,
    )
