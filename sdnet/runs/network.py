"""The network that a run's spec.json describes, untrained or with its weights."""

import io
import zipfile
from pathlib import Path

import torch
from torch import nn

from sdnet.data.datasets import INFO, SMALL_IMAGES
from sdnet.experiments import results
from sdnet.experiments.environment import experiment, trained_experiment
from sdnet.files import whole
from sdnet.models import Normalize, build
from sdnet.runs.spec import image_size


def build_model(spec: dict, num_classes: int) -> nn.Sequential:
    """The run's network as it is at the start of training: `normalize`, then `network`; images in [0, 1] in."""
    info, model = INFO[spec["dataset"]["name"]], spec["model"]
    torch.manual_seed(spec["seed"])
    network = build(
        model["name"],
        num_classes,
        width=model["width"],
        small_input=image_size(spec) <= SMALL_IMAGES,
        in_channels=info.channels,
        **model["options"],
    )
    sequence = nn.Sequential()
    sequence.add_module("normalize", Normalize(info.mean, info.std))
    sequence.add_module("network", network)
    return sequence


def save_model(model: nn.Module, path: Path) -> None:
    """Write the weights, whole or not at all, as those of a CPU, so that any machine can read them."""
    buffer = io.BytesIO()
    torch.save({name: value.cpu() for name, value in model.state_dict().items()}, buffer)  # see save_checkpoint
    with whole(path) as file:
        file.write(buffer.getbuffer())


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """What `save_model` wrote. Raises errors of many kinds if the file is damaged."""
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():  # torch.load compares no checksum
            raise ValueError(f"{damaged} is damaged")
    return torch.load(path, map_location="cpu", weights_only=True)


def load_model(folder: Path, spec: dict, num_classes: int, device: torch.device) -> nn.Sequential:
    """The trained network of a run's folder, in evaluation mode; it takes images (N, channels, H, W) in [0, 1].

    Args:
        folder: the run's, in which model.pt is.
        spec: its spec.json, from `read_spec`.
        num_classes: size of the output; of the data set.
        device: where the network is to be.

    Raises:
        FileNotFoundError, ValueError: if there are no weights, or they are not this network's, or another training
            than that of spec.json has been begun or done since.
    """
    path, history, epochs = folder / "model.pt", folder / "history.csv", spec["training"]["epochs"]
    remedy = f"train the run with: python -m sdnet train {folder}/spec.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; {remedy}")
    if history.exists() and (done := len(results.read(history, "history"))) != epochs:
        raise ValueError(f"{folder} is of {done} epochs, and its spec.json asks for {epochs}; {remedy}")
    if trained_experiment(folder) not in (None, experiment(spec)):
        raise ValueError(f"{folder}/spec.json is not what its weights were trained by; put that back, or {remedy}")
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):  # what is drawn here is replaced
        model = build_model(spec, num_classes)
    try:
        model.load_state_dict(read_weights(path))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path} does not hold the weights of this run ({reason}); remove it and train again"
        ) from None
    return model.to(device, memory_format=torch.channels_last).eval()
