"""Bring MLflow up to date with a results folder: what it missed, and what was measured after training."""

import json
from collections import defaultdict
from pathlib import Path

from sdnet.experiments import environment, results
from sdnet.experiments.tracking import Tracker, log_summary

SHOWN = (".csv", ".md", ".tex", ".pdf", ".png", ".html")  # tables and figures


def track(folder: Path) -> None:
    """Log every trained run of a results folder: the epochs that MLflow lacks, final accuracy, and all result files.

    Then what the folder shows of them: mean accuracies, tables and figures.
    """
    accuracies, trained = defaultdict(list), sorted(folder.glob("runs/*/*/*/environment.json"))
    if not trained:
        raise ValueError(f"{folder} holds no trained run; give a results folder, such as results/quick")
    for path in trained:
        run, about = path.parent, json.loads(path.read_text())
        tracker = Tracker(run, environment.tags(about))
        history = results.read(run / "history.csv", "history")
        tracker.log_epochs(history.astype(object).where(history.notna(), None).to_dict("records"))
        metrics = {}
        if (run / "accuracy.csv").exists():
            last = results.read(run / "accuracy.csv", "accuracy").iloc[0]
            metrics["accuracy"] = last.correct / last.total
            accuracies[f"{last.dataset}/{last.system}"].append(metrics["accuracy"])
        tracker.log_results(metrics, sorted([*run.glob("*.csv"), *run.glob("[!m]*.json")]))
        tracker.close()
        if not tracker.active:
            return
        print(f"tracked {run}")
    if accuracies:
        preset = json.loads((run / "spec.json").read_text())["preset"]
        log_summary(preset, accuracies, sorted(file for file in folder.iterdir() if file.suffix in SHOWN))
