"""A run's spec.json: what it must hold, and what follows from it alone."""

import json
import re
from pathlib import Path

from sdnet.data.datasets import INFO

SPEC_GROUPS = {
    "dataset": "name checksum train_images test_images image_size",
    "model": "name width options",
    "training": "epochs batch_size optimizer learning_rate momentum nesterov weight_decay schedule milestones"
    " precision deterministic",
}
SPEC_KEYS = {"preset", "system", "seed"} | {
    f"{group}.{key}" for group, keys in SPEC_GROUPS.items() for key in keys.split()
}
PLANNED = re.compile(r"results(/[^/]+)?/runs/[^/]+/[^/]+/seed\d+/spec\.json")  # what Snakemake makes


def read_spec(path: Path) -> dict:
    """A run's resolved experiment.

    Raises:
        FileNotFoundError, ValueError: if there is no such file, or it is no such description.
    """
    remedy = "give a run's folder, such as results/quick/runs/digits/sdnet18/seed0"
    if PLANNED.fullmatch(path.as_posix()):
        remedy = f"it is made anew with: snakemake --force {path}"
    try:
        spec = json.loads(path.read_text())
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is not there; {remedy}") from None
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); {remedy}") from None
    if not isinstance(spec, dict):
        raise ValueError(f"{path} describes no run: it holds {type(spec).__name__}, not a table; {remedy}")
    given = set()
    for name, value in spec.items():
        given |= {f"{name}.{key}" for key in value} if isinstance(value, dict) else {name}
    if wrong := given ^ SPEC_KEYS:
        raise ValueError(f"{path} describes no run: missing or unknown keys {', '.join(sorted(wrong))}; {remedy}")
    _check_values(spec, path)
    if (dataset := spec["dataset"]["name"]) not in INFO:
        raise ValueError(f"{path}: dataset.name is {dataset!r}; choose one of {', '.join(INFO)}")
    return spec


def _check_values(spec: dict, path: Path) -> None:
    """Refuse values that no preset can have, where pydantic is installed: no command needs it."""
    try:
        from sdnet.experiments.settings.loading import check_spec
    except ModuleNotFoundError:
        return
    check_spec(spec, str(path))


def image_size(spec: dict) -> int:
    """Height and width of the images that the run's network sees, in pixels."""
    return spec["dataset"]["image_size"] or INFO[spec["dataset"]["name"]].size


def run_columns(spec: dict) -> dict:
    """The columns that say which run a row of a result file is of."""
    return {"dataset": spec["dataset"]["name"], "system": spec["system"], "seed": spec["seed"]}
