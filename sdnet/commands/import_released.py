"""From a checkpoint of the authors' repository to a run."""

import hashlib
import json
from pathlib import Path

import torch
from torch import Tensor

from sdnet.commands.experiment import SMALL_IMAGES, build_model, save_model
from sdnet.data.datasets import INFO
from sdnet.experiments import environment, plan, results
from sdnet.experiments.settings import load_presets, load_site, read_yaml
from sdnet.models.released import Variant, load_released, variant_of

PRESET = "released"


def import_released(checkpoint: Path) -> None:
    """Write the run of the preset `released` that a checkpoint holds the weights of, as if it had been trained.

    Raises:
        ValueError: if it holds more than tensors and plain values, no network in the released layout, or one that
            the preset has no run of.
    """
    content = checkpoint.read_bytes()
    state = _state(checkpoint)
    try:
        variant = variant_of(state)
        run = _run_of(variant)
        model = build_model(run.spec, variant.num_classes)
        size = run.spec["dataset"]["image_size"] or INFO[run.dataset].size
        load_released(model.network, state, (size, size))
    except ValueError as error:
        raise ValueError(f"{checkpoint}: {error}") from None
    folder = Path(plan.results_folder(PRESET), "runs", run.name)
    about = {"imported": checkpoint.name, "sha256": hashlib.sha256(content).hexdigest()}
    results.write_text(folder / "spec.json", run.spec_json + "\n")
    results.write(folder / "history.csv", "history", [])
    results.write_text(folder / "environment.json", json.dumps(environment.describe("none") | about, indent=2))
    save_model(model, folder / "model.pt")
    print(f"{folder}: {variant.name} of width {variant.width}; test it with: python -m sdnet evaluate {folder}")


def _state(checkpoint: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds
        kind = type(error).__name__
        raise ValueError(
            f"{checkpoint} is no PyTorch checkpoint, or holds more than tensors and numbers ({kind})"
        ) from None
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(content, dict):
        raise ValueError(f"{checkpoint} holds {type(content).__name__}; it must hold a table of tensors")
    return content


def _run_of(variant: Variant) -> plan.Run:
    """The run of the preset that has this network, on a data set that fits it."""
    preset = load_presets(Path("config/presets"))[PRESET]
    wanted = (variant.num_classes, variant.in_channels, variant.small_input)
    wanted += (variant.name, variant.width, variant.options)
    for run in plan.runs(PRESET, preset, load_site(read_yaml(Path("config/config.yaml")))):
        info, model = INFO[run.dataset], run.spec["model"]
        size = run.spec["dataset"]["image_size"] or info.size
        offered = (info.num_classes, info.channels, size <= SMALL_IMAGES)
        if wanted == (*offered, model["name"], model["width"], model["options"]):
            return run
    raise ValueError(
        f"{variant.name} of width {variant.width}, options {variant.options}, for {variant.num_classes} classes is no "
        f"run of config/presets/{PRESET}.yaml; add its network and its data set there (ImageNet needs its root, too)"
    )
