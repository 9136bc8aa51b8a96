"""Bring MLflow up to date with a results folder: what it missed, and what was measured after training."""

import json
from collections import defaultdict
from pathlib import Path

from sdnet.experiments import environment, results
from sdnet.experiments.plan import has_run
from sdnet.experiments.project import project_folder
from sdnet.experiments.settings.files import PRESETS
from sdnet.experiments.settings.loading import load_preset, preset_files
from sdnet.experiments.tracking import MARKER, Tracker, in_results, log_summary

SHOWN = (".csv", ".md", ".tex", ".pdf", ".png", ".html")  # tables and figures


def track(folder: Path) -> None:
    """Log every trained run of a results folder: the epochs that MLflow lacks, final numbers, and all result files.

    Then what the folder shows of them: means over seeds, tables and figures.

    Raises:
        ValueError: if there is no trained run.
        OSError: if MLflow did not take something; why, a warning has said.
    """
    trained, in_place = sorted(folder.glob("runs/*/*/*/environment.json")), defaultdict(list)
    if not trained:
        raise ValueError(f"{folder} holds no trained run; give a results folder, such as results/quick")
    for path in trained:
        run, about = path.parent, environment.read_environment(path)
        if not (run / "spec.json").exists():
            print(f"not tracked: {run}, which has no spec.json")
            continue
        tracker = Tracker(run, environment.tags(about))
        history = results.read(run / "history.csv", "history")
        tracker.log_epochs(history.astype(object).where(history.notna(), None).to_dict("records"))
        numbers = final_numbers(run)
        tracker.log_results(numbers, sorted({*run.glob("*.csv"), *run.glob("*.json")} - {run / MARKER}))
        tracker.close()
        if not tracker.active:
            raise OSError(f"MLflow did not take {run}: once that is mended, the same command goes on")
        print(f"tracked {run}")
        spec = json.loads((run / "spec.json").read_text())
        if in_results(run, spec):
            in_place[spec["preset"]].append((run, numbers))
    for preset, tracked in in_place.items():
        _summarise(folder, preset, tracked)


def _summarise(folder: Path, preset: str, tracked: list[tuple[Path, dict[str, float]]]) -> None:
    """Log the means over those seeds that the preset has, and the folder's tables and figures."""
    home, networks = project_folder() / PRESETS, defaultdict(lambda: defaultdict(list))
    if preset not in preset_files(home):
        return
    planned = load_preset(preset, home)
    for run, numbers in tracked:
        if has_run(planned, run):
            for name, value in numbers.items():
                networks["/".join(run.parts[-3:-1])][name].append(value)
    if networks:
        log_summary(preset, networks, sorted(file for file in folder.iterdir() if file.suffix in SHOWN))


def final_numbers(run: Path) -> dict[str, float]:
    """Accuracies of a trained run, clean, under noise and under attack, of the result files that are there.

    As trained is at the lambda of training, or of a network without one; renormalised, the same with the batch norms of
    the noisy images; tuned, at a lambda tuned on other images.
    """
    counted = {}
    if (path := run / "accuracy.csv").exists():
        accuracy = results.read(path, "accuracy")
        counted["accuracy"] = accuracy[accuracy.checkpoint == "last"]
    for path in run.glob("sweep-*.csv"):
        sweep = results.read(path, "sweep")
        counted[f"noise/{path.stem.removeprefix('sweep-')}_as_trained"] = sweep[results.as_trained(sweep)]
    for path in run.glob("adaptive-*.csv"):
        adaptive = results.read(path, "adaptive")
        mean = (adaptive.variant == "paper") & (adaptive.severity == "mean")
        counted[f"noise/{path.stem.removeprefix('adaptive-')}_algorithm1"] = adaptive[mean]
    for path in run.glob("renormalised-*.csv"):
        control = results.read(path, "renormalised")
        counted[f"noise/{path.stem.removeprefix('renormalised-')}_renormalised"] = control[control.choice == "trained"]
    for kind, step, name in (("attack-paper", "a", "paper"), ("attack-adaptive", "worst", "worst")):
        if (path := run / f"{kind}.csv").exists():
            attacks = results.read(path, kind)
            for norm, rows in attacks[attacks.step == step].groupby("norm"):
                as_trained = (rows.choice == "given") & rows.gain.isna()  # at other lambdas there is a gain
                counted[f"attack/{norm}_{name}_as_trained"] = rows[as_trained]
                counted[f"attack/{norm}_{name}_tuned"] = rows[rows.choice == "held-out"]
    return {name: float(rows.correct.sum() / rows.total.sum()) for name, rows in counted.items() if len(rows)}
