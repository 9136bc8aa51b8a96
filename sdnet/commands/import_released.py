"""From a checkpoint of the authors' repository to a run."""

import json
from pathlib import Path

import torch
from torch import Tensor

from sdnet.commands.parts import file_digest
from sdnet.data.datasets import INFO, SMALL_IMAGES
from sdnet.experiments import environment, places, plan, results
from sdnet.experiments.settings.datasets import Dataset
from sdnet.experiments.settings.loading import load_preset, load_site
from sdnet.experiments.settings.networks import Options, System
from sdnet.files import write_text
from sdnet.models.released import Variant, load_released, variant_of
from sdnet.runs.former import set_aside
from sdnet.runs.network import build_model, save_model
from sdnet.runs.spec import image_size

PRESET = "released"


def import_released(checkpoint: Path) -> None:
    """Write a run of the preset `released` from a checkpoint, as if it had been trained.

    Snakemake goes on from it if the preset has its data set and network; commands by hand do so in any case.

    Raises:
        ValueError: if it holds more than tensors and plain values, no network in the released layout, or one of no
            data set that is known here.
    """
    state = _state(checkpoint)
    try:
        variant = variant_of(state)
        run = _run_of(variant)
        model = build_model(run.spec, variant.num_classes)
        load_released(model.network, state, (image_size(run.spec),) * 2)
    except ValueError as error:
        raise ValueError(f"{checkpoint}: {error}") from None
    folder = Path(places.results_of(PRESET), "runs", run.name)
    about = {"imported": checkpoint.name, "sha256": file_digest(checkpoint)}
    described = folder / "environment.json"
    if not (described.exists() and about["sha256"] in described.read_text()):
        set_aside(folder)
    write_text(folder / "spec.json", run.spec_json + "\n")
    results.write(folder / "history.csv", "history", [])
    write_text(described, json.dumps(environment.describe("none") | about, indent=2))
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
    if not (isinstance(content, dict) and all(isinstance(key, str) for key in content)):
        raise ValueError(f"{checkpoint} holds {type(content).__name__}; it must hold a table of tensors by their names")
    return content


def _run_of(variant: Variant) -> plan.Run:
    """The run of the preset that has this network; where the preset lacks it, as if it had it."""
    preset = load_preset(PRESET)
    dataset = _dataset_of(variant)
    system = f"{variant.name}-{'nonnegative' if variant.options.get('shortcut', True) else 'plain'}"
    alone = preset.model_copy(
        update={
            "width": variant.width,
            "datasets": {dataset: preset.datasets.get(dataset, Dataset())},
            "systems": {system: System(model=variant.name, options=Options(**variant.options))},
        }
    )
    runs = plan.runs(PRESET, alone, load_site())
    if not runs:
        raise ValueError(f"it is of {dataset}; set {dataset}_root in config/config.yaml first")
    return runs[0]


def _dataset_of(variant: Variant) -> str:
    """The data set whose images and classes a network takes."""
    wanted = (variant.num_classes, variant.in_channels, variant.small_input)
    known = {name: (info.num_classes, info.channels, info.size <= SMALL_IMAGES) for name, info in INFO.items()}
    for name, offered in known.items():
        if offered == wanted:
            return name
    raise ValueError(
        f"its {variant.num_classes} classes and {variant.in_channels} image channels are those of no data set here: "
        f"{', '.join(name for name in known if known[name][0])}"
    )
