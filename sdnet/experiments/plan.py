"""The runs of a preset, each with all that is needed to repeat it."""

import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from sdnet.experiments.places import run_name
from sdnet.experiments.settings.files import SettingsError
from sdnet.experiments.settings.names import DatasetName, Downloaded
from sdnet.experiments.settings.networks import has_lambda
from sdnet.experiments.settings.preset import Preset
from sdnet.experiments.settings.site import Site

DOWNLOADED = tuple(name for name in get_args(Downloaded) if name in get_args(DatasetName))  # not their noisy images
IMAGENET_C_SIZE = 224  # pixels
# Files that torchvision reads in a class folder; it passes over others.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
UNDEFENDED = "resnet18"  # whose adversarial images are tried on the other networks, too


@dataclass(frozen=True)
class Run:
    """One trained network.

    Attributes:
        spec: all that is needed to repeat it.
        gpus: how many share its training.
        official_noise: the folder of official noisy images that it is tested on; None where noise is generated.
    """

    dataset: str
    system: str
    seed: int
    spec: dict
    gpus: int
    official_noise: str | None

    @property
    def name(self) -> str:
        """<dataset>/<system>/seed<k>, as in the path of its files."""
        return run_name(self.dataset, self.system, self.seed)

    @property
    def has_lambda(self) -> bool:
        """Whether its network has CSC layers, and so a lambda to choose."""
        return has_lambda(self.spec["model"]["name"])

    @property
    def spec_json(self) -> str:
        """The content of its spec.json: equal experiments give equal text."""
        return json.dumps(self.spec, indent=2, sort_keys=True)


def runs(name: str, preset: Preset, site: Site) -> list[Run]:
    """Every run of a preset at this site.

    Raises:
        SettingsError: if the preset wants what this site does not have, or a root lacks a folder.
    """
    planned = []
    for dataset in _usable_datasets(preset, site):
        images, official_noise = preset.datasets[dataset], _official_noise(name, dataset, preset, site)
        for system in preset.systems_on(dataset):
            network, recipe = preset.systems[system], preset.recipe_of(system, dataset)
            for seed in preset.seeds_of(system):
                spec = {
                    "preset": name,
                    "system": system,
                    "seed": seed,
                    "dataset": {
                        "name": dataset,
                        "checksum": _checksum(dataset, site),
                        "train_images": images.train_images,
                        "test_images": images.test_images,
                        "image_size": images.image_size,
                    },
                    "model": {
                        "name": network.model,
                        "width": preset.width,
                        "options": network.options.model_dump(exclude_defaults=True),
                    },
                    "training": recipe.model_dump() | ({"epochs": 0} if preset.imported else {}),
                }
                planned.append(Run(dataset, system, seed, spec, images.gpus, official_noise))
    return planned


def has_run(preset: Preset, run: Path) -> bool:
    """Whether a preset has the run of this folder; a results folder may hold others, of its former settings."""
    dataset, system, seed = run.parts[-3:]
    trained = dataset in preset.datasets and system in preset.systems_on(dataset)
    return trained and seed in [f"seed{number}" for number in preset.seeds_of(system)]


def networks(preset: Preset) -> set[tuple[str, str]]:
    """Every pair of data set and network that a preset trains, including data sets that this site lacks."""
    return {(dataset, system) for dataset in preset.datasets for system in preset.systems_on(dataset)}


def _usable_datasets(preset: Preset, site: Site) -> list[str]:
    """Without any whose `imagenet_root` or `folder_root` is null."""
    roots = {"imagenet": site.imagenet_root, "folder": site.folder_root}
    for name in set(roots) & set(preset.datasets):
        if roots[name] is not None and (fault := _fault_of_tree(Path(roots[name]))):
            raise SettingsError(
                f"config/config.yaml or --configfile: {name}_root: given {roots[name]!r}, which {fault}; "
                f"it must hold train/<class>/ and val/<class>/"
            )
    return [name for name in preset.datasets if roots.get(name, "") is not None]


def _fault_of_tree(root: Path) -> str | None:
    """What keeps a folder from being a tree of class folders; `test` does for `val`."""
    if not root.is_dir():
        return "is no folder"
    for split, instead in (("train", "train"), ("val", "test")):
        if not (root / split).is_dir() and not (root / instead).is_dir():
            return f"has no folder {split}/"
    return None


def _checksum(dataset: str, site: Site) -> str | None:
    """What tells other images under the same name: of a folder of one's own, too."""
    if dataset == "folder":
        return _tree_checksum(Path(site.folder_root))
    return site.downloads[dataset].checksum if dataset in DOWNLOADED else None


@functools.cache
def _tree_checksum(root: Path) -> str:
    """Of the names of the class folders, and how many images each has; of no path, so that the tree can be moved."""
    folders = sorted(folder for folder in root.glob("*/*") if folder.is_dir())
    images = [sum(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir()) for folder in folders]
    lines = [f"{folder.relative_to(root).as_posix()} {count}\n" for folder, count in zip(folders, images, strict=True)]
    return f"tree:{hashlib.sha256(''.join(lines).encode()).hexdigest()[:16]}"


def _official_noise(name: str, dataset: str, preset: Preset, site: Site) -> str | None:
    """The folder of a data set's official noisy images; None where noise is to be generated."""
    images = preset.datasets[dataset]
    folder = {
        "cifar10": f"{site.data_dir}/cifar10-c",
        "cifar100": f"{site.data_dir}/cifar100-c",
        "imagenet": site.imagenet_c_root if images.image_size in (None, IMAGENET_C_SIZE) else None,
    }.get(dataset)
    if images.noise_source == "generated":
        return None
    if images.noise_source == "official" and folder is None:
        raise SettingsError(
            f"config/presets/{name}.yaml: datasets.{dataset}.noise_source: given 'official', but there are no such "
            "files"
            + (
                f"; set imagenet_c_root in config/config.yaml and leave image_size at {IMAGENET_C_SIZE}, or use 'auto'"
                if dataset == "imagenet"
                else ": use 'auto'"
            )
        )
    if dataset in DOWNLOADED and images.noise_source == "official":
        from sdnet.data.cifar_c import ARCHIVES  # here, since it imports NumPy

        there = ARCHIVES[dataset].members_md5
        if missing := [noise for noise in preset.noises_on(dataset) if f"{noise}_noise.npy" not in there]:
            raise SettingsError(
                f"config/presets/{name}.yaml: datasets.{dataset}.noise_source: given 'official', but there is no "
                f"official {missing[0]} noise: use 'generated', or leave it out of datasets.{dataset}.noises"
            )
    if dataset == "imagenet" and folder is not None:
        missing = [noise for noise in preset.noises_on(dataset) if not Path(folder, f"{noise}_noise").is_dir()]
        if missing:
            raise SettingsError(
                f"config/config.yaml or --configfile: imagenet_c_root: given {folder!r}, which has no folder "
                f"{missing[0]}_noise/; it must hold <noise>_noise/<severity>/<class>/ of each noise in the preset's "
                "datasets.imagenet.noises"
            )
    return folder if images.noise_source == "official" or dataset == "imagenet" else None


def undefended(run: Run, planned: list[Run]) -> Run | None:
    """The run whose adversarial images are tried on a network with a lambda, if the preset has it."""
    wanted = (run.dataset, UNDEFENDED, run.seed)
    same = [other for other in planned if (other.dataset, other.system, other.seed) == wanted]
    return same[0] if same and run.has_lambda else None
