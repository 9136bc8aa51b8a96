"""Where and with what a run was made, and of which experiment its weights are."""

import hashlib
import json
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby, pairwise
from pathlib import Path

PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "torchdeq", "mlflow", "snakemake")


def describe(device: str) -> dict:
    """Versions, machine, commit and time, for a run's environment.json; `device` is the accelerator's name."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "device": device,
        "host": platform.node(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "command": sys.argv,
    }


def of_training(processes: list[tuple[int, dict]]) -> dict:
    """A run's environment.json, if each of several processes went on from the last epoch of the one before it.

    Args:
        processes: the first epoch of each, and its environment.

    Returns:
        the environment of the last one; `earlier` lists those before it that differ in more than the time, each with
        the first and last of its `epochs`.
    """
    _, last = processes[-1]
    different = [next(alike) for _, alike in groupby(processes, lambda process: process[1] | {"time": None})]
    earlier = [{"epochs": [first, following - 1]} | about for (first, about), (following, _) in pairwise(different)]
    return last | ({"earlier": earlier} if earlier else {})


def experiment(spec: dict) -> str:
    """A short name of a resolved experiment: changed settings have another."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:12]


def trained_experiment(folder: Path) -> str | None:
    """The `experiment` that the weights in a run's folder are of; None where nothing says so, as of imported ones."""
    path = folder / "environment.json"
    return read_environment(path).get("experiment") if path.exists() else None


def read_environment(path: Path) -> dict:
    """A run's environment.json.

    Raises:
        ValueError: if it is damaged.
    """
    try:
        about = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); put it back, or remove it") from None
    if not isinstance(about, dict):
        raise ValueError(f"{path} is damaged (it holds no table); put it back, or remove it")
    return about


def tags(about: dict) -> dict[str, str]:
    """What MLflow is to find runs by, of an environment.json."""
    return {key: str(about[key]) for key in ("commit", "device", "precision") if key in about}


def commit() -> str | None:
    """The project's git commit, with "+changes" if files differ from it; None outside a checkout."""
    project = Path(__file__).parents[2]
    try:
        head = _git(project, "rev-parse", "HEAD")
        return head + ("+changes" if _git(project, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(project: Path, *arguments: str) -> str:
    command = ["git", "-C", str(project), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
