"""From a run's spec.json to its network and its images."""

import io
import json
import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from sdnet.csc import csc_layers
from sdnet.data.datasets import CLASS_FOLDERS, INFO, load
from sdnet.data.images import Images, subset
from sdnet.data.loaders import DeviceLoader
from sdnet.experiments import results
from sdnet.experiments.settings_files import data_dir, image_folder
from sdnet.files import whole
from sdnet.models import Normalize, build

if TYPE_CHECKING:
    from sdnet.data.folders import FolderLoader

SMALL_IMAGES = 64  # pixels; larger images get the ImageNet stem
EVALUATION_BATCH = 250
IMAGENET_IMAGES = {"train": 1_281_167, "val": 50_000}
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

torch.backends.cudnn.allow_tf32 = False  # its default would round what is to be float32 to 10 bits


@dataclass(frozen=True)
class Data:
    """The two loaders of a data set, its class names, and what its images are."""

    train: "DeviceLoader | FolderLoader"
    test: "DeviceLoader | FolderLoader"
    classes: tuple[str, ...]
    source: str


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
        from sdnet.experiments.settings import check_spec
    except ModuleNotFoundError:
        return
    check_spec(spec, str(path))


def image_size(spec: dict) -> int:
    """Height and width of the images that the run's network sees, in pixels."""
    return spec["dataset"]["image_size"] or INFO[spec["dataset"]["name"]].size


def run_columns(spec: dict) -> dict:
    """The columns that say which run a row of a result file is of."""
    return {"dataset": spec["dataset"]["name"], "system": spec["system"], "seed": spec["seed"]}


def open_data(spec: dict, path: Path | None, device: torch.device, shard: tuple[int, int] = (0, 1)) -> Data:
    """The images of a run, in batches on a device.

    Args:
        spec: as from `read_spec`.
        path: the .npz of CIFAR, or the folder of ImageNet or of one's own images; None looks in the
            `image_folder` of data_dir (by default data), imagenet_root or folder_root.
        device: where batches are made.
        shard: as in the loaders: this process's part of each batch.
    """
    wanted = spec["dataset"]
    seed, batch_size = spec["seed"], spec["training"]["batch_size"]
    if wanted["name"] in CLASS_FOLDERS:
        where = {"device": device, "shard": shard}
        training = {"batch_size": batch_size, "augment": True, "seed": seed, "limit": wanted["train_images"]}
        train = open_folder(spec, path, "train", **training, **where)
        test = open_folder(spec, path, "val", augment=False, limit=wanted["test_images"], **where)
        sources = folder_source(wanted["name"], train, "train"), folder_source(wanted["name"], test, "val")
        source = next((words for words in sources if words != "official"), "official")
        return Data(train, test, tuple(train.classes), source)
    images = open_images(spec, path)
    images = subset(images, wanted["train_images"], wanted["test_images"], seed=0)  # the same ones for every seed
    info = INFO[wanted["name"]]
    train = DeviceLoader(
        images.train_images,
        images.train_labels,
        batch_size=batch_size,
        device=device,
        augment=True,
        crop_padding=info.crop_padding,
        flip=info.flip,
        seed=seed,
        shard=shard,
    )
    test = DeviceLoader(
        images.test_images, images.test_labels, batch_size=EVALUATION_BATCH, device=device, augment=False, shard=shard
    )
    return Data(train, test, images.classes, images.source)


def open_images(spec: dict, path: Path | None) -> Images:
    """All images of a data set that fits in memory; `path` as in `open_data`."""
    name = spec["dataset"]["name"]
    if name == "digits" and path:
        raise ValueError(f"--data: given {path}; the digits come with scikit-learn, leave it out")
    return load(name, path or data_dir() / f"{name}.npz")


def open_folder(
    spec: dict,
    path: Path | None,
    split: str,
    *,
    batch_size: int = EVALUATION_BATCH,
    shard: tuple[int, int] = (0, 1),
    **options,
) -> "FolderLoader":
    """One split of a data set that is a tree of class folders; `path` as in `open_data`, options as in the loader."""
    from sdnet.data.folders import FolderLoader  # here, since torchvision takes seconds to import

    name = spec["dataset"]["name"]
    if not (root := path or image_folder(f"{name}_root")):
        raise ValueError(f"{name}: its folder is not known; set {name}_root in config/config.yaml, or give --data")
    _, processes = shard
    workers = max(1, min(8, cores() // processes))
    return FolderLoader(
        root, split, image_size=image_size(spec), batch_size=batch_size, workers=workers, shard=shard, **options
    )


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def folder_source(name: str, loader: "FolderLoader", split: str) -> str:
    """What a tree of class folders holds: "official", or the words that say what it is instead.

    ASSUME: an ImageNet with the classes and as many images as ILSVRC 2012 has is that; its 150 GB are not hashed.
    """
    classes = all(re.fullmatch(r"n\d{8}", one) for one in loader.classes) and len(loader.classes)
    if name == "imagenet" and classes == 1000 and len(loader.samples) == IMAGENET_IMAGES[split]:
        return "official"
    return f"local folder of {len(loader.classes)} classes"


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
    """Write the weights, whole or not at all."""
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    with whole(path) as file:
        file.write(buffer.getbuffer())


def load_model(folder: Path, spec: dict, num_classes: int, device: torch.device) -> nn.Sequential:
    """The trained network of a run's folder, in evaluation mode.

    Raises:
        FileNotFoundError, ValueError: if there are no weights, or they are not this network's, or another training
            than that of spec.json has been begun or done since.
    """
    path, history, epochs = folder / "model.pt", folder / "history.csv", spec["training"]["epochs"]
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; train the run with: python -m sdnet train {folder}/spec.json")
    if history.exists() and (done := len(results.read(history, "history"))) != epochs:
        raise ValueError(
            f"{folder} is of {done} epochs, and its spec.json asks for {epochs}; train the run with: "
            f"python -m sdnet train {folder}/spec.json"
        )
    model = build_model(spec, num_classes)
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch.load raises many kinds for a damaged file
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path} does not hold the weights of this run ({reason}); remove it and train again"
        ) from None
    return model.to(device, memory_format=torch.channels_last).eval()


def training_lambda(model: nn.Module) -> float | None:
    """The sparsity weight that a network is trained at; None without CSC layers."""
    layers = csc_layers(model)
    return layers[0].lmbd if layers else None


def choose_device(leased: tuple[int, ...]) -> torch.device:
    """The first leased GPU, else the CPU, with a warning if torch cannot use what is leased."""
    if leased and not torch.cuda.is_available():
        print(
            f"warning: torch {torch.__version__} cannot use GPU {', '.join(map(str, leased))}, which nvidia-smi lists; "
            "working on the CPU (see docs/faq.md)",
            file=sys.stderr,
        )
        return torch.device("cpu")
    return torch.device("cuda" if leased else "cpu")


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 by itself; imitating it takes several times as long as float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if platform.machine() in ("x86_64", "AMD64"):  # where the other test asks for AVX-512, with or without bfloat16
        return torch.cpu._is_avx512_bf16_supported()
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def precision_on(device: torch.device, wanted: str) -> str:
    """A recipe's precision; "float32" in place of a "bfloat16" that the device does not have."""
    return "float32" if wanted == "bfloat16" and not has_bfloat16(device) else wanted


def recipe_on(device: torch.device, spec: dict) -> dict:
    """The recipe as `training.loop.fit` takes it, in the device's `precision_on`."""
    recipe = {key: value for key, value in spec["training"].items() if key != "batch_size"}
    return recipe | {"precision": precision_on(device, recipe["precision"])}


def device_name(device: torch.device) -> str:
    """What the device calls itself."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"
