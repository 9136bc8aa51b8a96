"""How far the runs of a results folder are, from their files alone."""

import csv
import fcntl
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from sdnet.experiments.environment import experiment, trained_experiment
from sdnet.experiments.labels import duration

MEASURED = {  # what a run's folder may hold beside its weights, in the order in which it comes to be
    "accuracy.csv": "tested",
    "inversion.csv": "inverted",
    "sweep-*.csv": "swept",
    "adaptive-*.csv": "calibrated",
    "renormalised-*.csv": "renormalised",
    "stability.csv": "stability measured",
    "attack-*.csv": "attacked",
    "diagnostics.csv": "diagnosed",
}


@dataclass(frozen=True)
class Status:
    """How far one run is.

    Attributes:
        run: <dataset>/<system>/seed<k>.
        state: waiting (asked for, not begun); training (a process holds its lock); failed (the log says why); stopped
            (no process trains it, and nothing says why); trained; outdated (with other settings than are asked for
            now: Snakemake trains it anew).
        epoch, epochs: done, and to do in all; epochs is 0 for imported weights.
        accuracy: share of the test images classified correctly after the last epoch.
        rate: training images per second in the last epoch.
        seconds_left: of training, as the epochs so far suggest.
        measured: what was measured of the trained network, in words.
        reason: why it failed.
    """

    run: str
    state: str
    epoch: int
    epochs: int
    accuracy: float | None = None
    rate: float | None = None
    seconds_left: float | None = None
    measured: tuple[str, ...] = ()
    reason: str = ""


def status(folder: Path, run: str, spec: dict | None = None) -> Status:
    """How far a run is.

    Args:
        folder: the results folder.
        run: <dataset>/<system>/seed<k>.
        spec: the resolved experiment that the plan has for the run; None if it has none, for that of its spec.json.
            The checksum of the images is that of spec.json in any case: --configfile may have given it.
    """
    home = folder / "runs" / run
    described = _spec(home / "spec.json")
    spec = spec or described
    spec = spec | {"dataset": spec["dataset"] | {"checksum": described["dataset"]["checksum"]}}
    epochs, asked = spec["training"]["epochs"], experiment(spec)
    history = _history(home / "history.csv")
    # Of a training that died Snakemake has removed history.csv, and not the checkpoints that it goes on from.
    progress = {"epoch": len(history) or _kept(home / "checkpoints" / asked), "epochs": epochs}
    if history:
        last, seconds = history[-1], [row["train_seconds"] for row in history]
        progress["accuracy"] = last["test_correct"] / last["test_total"]
        progress["rate"] = last["train_total"] / seconds[-1]
    locked, outdated = _locked(home / ".lock"), epochs and trained_experiment(home) not in (None, asked)
    if (home / "model.pt").exists() and not (outdated and locked):
        return Status(run, "outdated" if outdated else "trained", **progress, measured=tuple(_measured(home)))
    if locked:
        if history:
            since = time.time() - (home / "history.csv").stat().st_mtime
            left = sum(seconds) / len(seconds) * (epochs - len(history)) - since
            progress["seconds_left"] = max(0.0, left)
        return Status(run, "training", **progress)
    if reason := _last_words(folder / "logs" / "train" / f"{run.replace('/', '-')}.log"):
        return Status(run, "failed", **progress, reason=reason)
    begun = progress["epoch"] or (home / "checkpoints").exists()
    return Status(run, "stopped" if begun else "waiting", **progress)


def table(rows: Iterable[Status]) -> list[str]:
    """One line per run under a header, in columns as wide as what they hold."""
    header = ("run", "state", "epoch", "test", "images/s", "left", "measured")
    align = ("left", "left", "right", "right", "right", "right", "left")
    text = tabulate(map(_cells, rows), header, tablefmt="plain", disable_numparse=True, colalign=align)
    return [line.rstrip() for line in text.splitlines()]


def summary(rows: list[Status], unasked: int) -> str:
    """How many runs are in each state, and how many more the preset has that nobody asked for."""
    states = [row.state for row in rows]
    counts = [
        f"{states.count(state)} {state}"
        for state in ("trained", "outdated", "training", "stopped", "failed", "waiting")
    ]
    counts.append(f"{unasked} not asked for")
    return f"{len(rows) + unasked} runs: " + ", ".join(text for text in counts if not text.startswith("0 "))


def _cells(row: Status) -> tuple[str, ...]:
    return (
        row.run,
        row.state,
        f"{row.epoch}/{row.epochs}" if row.epochs else "–",
        "" if row.accuracy is None else f"{row.accuracy:.2%}",
        "" if row.rate is None else f"{row.rate:,.0f}",
        "" if row.seconds_left is None else duration(row.seconds_left),
        ", ".join(row.measured),
    )


def _spec(path: Path) -> dict:
    try:
        spec = json.loads(path.read_text())
        int(spec["training"]["epochs"])
        str(spec["dataset"]["checksum"])
    except (ValueError, KeyError, TypeError) as error:
        remedy = f"put it back, or make it anew with: snakemake --force {path}"
        raise ValueError(f"{path} describes no run ({error}); {remedy}") from None
    return spec


def _history(path: Path) -> list[dict[str, float]]:
    """The rows of a run's history.csv; read without pandas, which takes longer to import than all else here."""
    names = ("train_seconds", "train_total", "test_correct", "test_total")
    try:
        with open(path, newline="") as file:
            return [{name: float(row[name]) for name in names} for row in csv.DictReader(file)]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}); remove it and make it anew, from the last checkpoint, with: "
            f"snakemake --cores all {path}"
        ) from None


def _kept(checkpoints: Path) -> int:
    """The epoch of the last one."""
    numbers = [path.stem.removeprefix("epoch") for path in checkpoints.glob("epoch*.pt")]
    return max((int(number) for number in numbers if number.isdecimal()), default=0)


def _locked(path: Path) -> bool:
    """Whether a process trains the run: it holds this file's lock as long as it lives."""
    try:
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # it is not there, or the file system has no such locks
        return False
    return False


def _last_words(log: Path) -> str:
    """The error that ended a training, if its log tells one."""
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except FileNotFoundError:
        return ""
    return lines[-1] if lines and lines[-1].startswith(("error:", "interrupted")) else ""


def _measured(home: Path) -> Iterator[str]:
    for pattern, word in MEASURED.items():
        count = len(list(home.glob(pattern)))
        if count:
            yield f"{word} {count}x" if count > 1 else word
