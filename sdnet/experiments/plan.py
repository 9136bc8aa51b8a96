"""What a preset runs: the resolved experiment of each run, and which runs each table and figure needs."""

import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from sdnet.experiments.settings import Preset, SettingsError, Site, has_lambda

DOWNLOADED = ("cifar10", "cifar100")
IMAGENET_C_SIZE = 224  # pixels
SEVERITY_COUNT = 5  # of each noise
# Files that torchvision reads in a class folder; it passes over others.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

# Systems of each table and figure; those that a preset has are shown.
TABLES = {
    "table1": ("resnet18", "resnet34", "mdeq", "scn", "scn18", "sdnet18", "sdnet34"),
    "table2": ("resnet18", "scn", "sdnet18", "sdnet18-nonnegative"),
    "table3": ("resnet18", "scn", "sdnet18", "sdnet18-nonnegative"),
    "table4": ("resnet18", "sdnet18", "sdnet18-nonnegative"),
    "table5": ("sdnet18", "sdnet18-iter4", "sdnet18-iter8"),
    "table6": ("sdnet18", "sdnet18-all", "sdnet34", "sdnet34-all"),
    "readings": ("sdnet18", "sdnet18-nonnegative"),
}
FIGURES = {
    "figure1": ("sdnet18", "sdnet18-nonnegative"),
    "figure2": ("sdnet18", "sdnet18-nonnegative"),
    "figure3": ("sdnet18", "sdnet18-nonnegative"),
    "figure4": ("sdnet18-all-plain",),
    "figure5": ("sdnet18", "sdnet18-nonnegative", "sdnet18-all", "sdnet18-all-nonnegative"),
    "figure6": ("sdnet18", "sdnet18-nonnegative"),
    "figure_attacks": ("resnet18", "sdnet18", "sdnet18-nonnegative"),
    "figure_transfer": ("sdnet18", "sdnet18-nonnegative"),
    "figure_stability": ("resnet18", "sdnet18", "sdnet18-nonnegative", "sdnet18-iter4", "sdnet18-iter8"),
}
# What each reads: files of every run that it shows, for every noise where a name has a star, and speeds.
READS: dict[str, list[str]] = {
    "table1": ["accuracy.csv", "benchmark"],
    "table2": ["accuracy.csv", "sweep-*.csv", "calibration-*.csv", "adaptive-*.csv"],
    "table3": ["accuracy.csv", "sweep-*.csv", "calibration-*.csv", "adaptive-*.csv"],
    "table4": ["accuracy.csv", "attack-paper.csv", "attack-adaptive.csv", "diagnostics.csv"],
    "table5": ["accuracy.csv", "calibration-*.csv", "adaptive-*.csv"],
    "table6": ["accuracy.csv", "benchmark"],
    "readings": ["accuracy.csv", "codes.csv", "sweep-*.csv", "calibration-*.csv", "adaptive-*.csv"],
    "figure1": ["accuracy.csv", "inversion.npz"],
    "figure2": ["accuracy.csv", "sweep-*.csv"],
    "figure3": ["accuracy.csv", "calibration-*.csv", "peaks-*.csv", "lines-*.csv", "sweep-*.csv", "adaptive-*.csv"],
    "figure4": ["accuracy.csv", "inversion.csv", "inversion.npz"],
    "figure5": ["accuracy.csv", "dictionary.csv"],
    "figure6": ["accuracy.csv", "codes.csv"],
    "figure_attacks": ["accuracy.csv", "attack-adaptive.csv"],
    "figure_transfer": ["accuracy.csv", "attack-adaptive.csv"],
    "figure_stability": ["accuracy.csv", "stability.csv"],
}
# Of the first seed alone: checks of the attacks, whose pass or failure is not averaged.
OF_FIRST_SEED = ("diagnostics.csv",)
OF_ALGORITHM_1 = ("calibration", "peaks", "lines", "adaptive")  # files for each noise, of networks with a lambda


def _that_read(file: str) -> tuple[str, ...]:
    return tuple(name for name, files in READS.items() if file in files)


BENCHMARKED, SWEPT, CALIBRATED = map(_that_read, ("benchmark", "sweep-*.csv", "adaptive-*.csv"))
ATTACKED, STABLE, INVERTED = map(_that_read, ("attack-adaptive.csv", "stability.csv", "inversion.npz"))
OF_LAMBDA = (*CALIBRATED, "figure_attacks", *STABLE)  # which have nothing to show without a network with a lambda
REFERENCE = "resnet18"  # speed, memory and stability are measured against its
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
        return f"{self.dataset}/{self.system}/seed{self.seed}"

    @property
    def spec_json(self) -> str:
        """The content of its spec.json: equal experiments give equal text."""
        return json.dumps(self.spec, indent=2, sort_keys=True)


def results_folder(preset: str) -> str:
    """`results` for the preset `paper`, `results/<preset>` for any other."""
    return "results" if preset == "paper" else f"results/{preset}"


def datasets(preset: Preset, site: Site) -> list[str]:
    """The preset's data sets that can be used at this site: without any whose `imagenet_root` or `folder_root` is null.

    Raises:
        SettingsError: if the preset wants what this site does not have, or a root lacks a folder.
    """
    roots = {"imagenet": site.imagenet_root, "folder": site.folder_root}
    for name in set(roots) & set(preset.datasets):
        if roots[name] is not None and (fault := _fault_of_tree(Path(roots[name]))):
            raise SettingsError(
                f"config/config.yaml or --configfile: {name}_root: given {roots[name]!r}, which {fault}; "
                f"it must hold train/<class>/ and val/<class>/"
            )
    usable = [name for name in preset.datasets if roots.get(name, "") is not None]
    for name in usable:
        noise_source(name, preset, site)  # which refuses what cannot be
    return usable


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


def has_run(preset: Preset, run: Path) -> bool:
    """Whether a preset has the run of this folder; a results folder may hold others, of its former settings."""
    dataset, system, seed = run.parts[-3:]
    trained = dataset in preset.datasets and system in preset.systems and preset.systems[system].trains_on(dataset)
    return trained and seed in [f"seed{number}" for number in preset.seeds_of(system)]


def runs(name: str, preset: Preset, site: Site) -> list[Run]:
    """Every run of a preset at this site.

    Raises:
        SettingsError: see `datasets`; of the preset's own keys with the name of its file.
    """
    try:
        usable = datasets(preset, site)
    except SettingsError as error:
        where = f"config/presets/{name}.yaml: " if str(error).startswith("datasets") else ""
        raise SettingsError(where + str(error)) from None
    planned = []
    for dataset in usable:
        images, official_noise = preset.datasets[dataset], noise_source(dataset, preset, site)
        for system, network in preset.systems.items():
            if not network.trains_on(dataset):
                continue
            recipe = preset.recipes[network.recipe or images.recipe]
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


def targets(planned: list[Run], preset: Preset) -> tuple[list[str], list[str]]:
    """The tables and figures that a preset has runs for."""
    trained = {(run.dataset, run.system) for run in planned}
    tables, figures = (
        [name for name in kind if not nothing_to_show(name, trained, preset)] for kind in (TABLES, FIGURES)
    )
    return tables, figures


def networks(preset: Preset) -> set[tuple[str, str]]:
    """Every pair of data set and network that a preset trains, including data sets that this site lacks."""
    return {
        (dataset, name)
        for dataset in preset.datasets
        for name, network in preset.systems.items()
        if network.trains_on(dataset)
    }


def nothing_to_show(target: str, trained: set[tuple[str, str]], preset: Preset) -> str:
    """Why a table or figure cannot be made of some networks of a preset; nothing if it can.

    Args:
        target: the table or figure.
        trained: data sets and networks, as of `networks`.
        preset: theirs.
    """
    own = {one for one in trained if one[1] in systems_of(target) and shows(target, one[0], preset)}
    if not own:
        attacked = preset.adversarial.datasets
        if target in ATTACKED and set(attacked).isdisjoint(preset.datasets):
            has = ", ".join(preset.datasets)
            return f"adversarial.datasets are {', '.join(attacked) or 'none'}, and the data sets {has}; name one there"
        return (
            f"it is of {', '.join(systems_of(target))}, none of which is there on images or under noise that it shows"
        )
    measured = {dataset for dataset, name in trained if name == REFERENCE}
    if target in BENCHMARKED and (without := {dataset for dataset, _ in own} - measured):
        return f"speeds are measured against that of {REFERENCE}, which is not trained on {', '.join(sorted(without))}"
    if target in OF_LAMBDA and not any(has_lambda(preset.systems[name].model) for _, name in own):
        return f"none of its networks ({', '.join(sorted({name for _, name in own}))}) has a lambda"
    return ""


def file_of(target: str) -> str:
    """The file of a table or figure that Snakemake makes, in a results folder; others stand beside it."""
    return f"{target}.csv" if target in TABLES else f"{target}.pdf"


def has_speed(system: str) -> bool:
    """Whether some table shows the speed and memory of a network."""
    return any(system in systems_of(table) for table in BENCHMARKED)


def systems_of(target: str) -> tuple[str, ...]:
    """The networks of a table or figure, in its order."""
    return (TABLES | FIGURES)[target]


def noise_source(dataset: str, preset: Preset, site: Site) -> str | None:
    """Where the official noisy images of a data set are read from; None where noise is to be generated.

    Raises:
        SettingsError: if the preset insists on official files that this site cannot have, or their folder lacks some.
    """
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
            f"datasets.{dataset}.noise_source: given 'official', but there are no such files"
            + (
                f"; set imagenet_c_root in config/config.yaml and leave image_size at {IMAGENET_C_SIZE}, or use 'auto'"
                if dataset == "imagenet"
                else ": use 'auto'"
            )
        )
    if dataset == "imagenet" and folder is not None:
        missing = [noise for noise in noises_on(dataset, preset) if not Path(folder, f"{noise}_noise").is_dir()]
        if missing:
            raise SettingsError(
                f"config/config.yaml or --configfile: imagenet_c_root: given {folder!r}, which has no folder "
                f"{missing[0]}_noise/; it must hold <noise>_noise/<severity>/<class>/ of each noise in the preset's "
                "datasets.imagenet.noises"
            )
    return folder if images.noise_source == "official" or dataset == "imagenet" else None


def noise_options(run: Run, preset: Preset) -> str:
    """The options of `python -m sdnet sweep` that say which noise and lambdas the preset wants.

    Of official noise they end in `--official`: what follows is `run.official_noise`, on which no result depends.
    """
    images, robustness = preset.datasets[run.dataset], preset.robustness
    options = f"--lambdas {_listed(robustness.lambdas)} --scale {images.noise_scale} --noise-seed {robustness.seed}"
    options += f" --images {robustness.test_images}" if robustness.test_images else ""
    return options + (" --official" if run.official_noise else "")


def _listed(values: list[float]) -> str:
    return ",".join(f"{value:.15g}" for value in values)


def calibration_options(run: Run, preset: Preset) -> str:
    """The further options of `python -m sdnet calibrate`."""
    levels, robustness = preset.datasets[run.dataset].noise_levels, preset.robustness
    return (
        f"--levels {levels} --calibration-images {robustness.calibration_images} "
        f"--variants {','.join(robustness.variants)}"
    )


def noises_of(target: str, preset: Preset) -> list[str]:
    """The noises that a table or figure shows; Table 2 has Gaussian noise alone."""
    return {"table2": ["gaussian"], "figure_stability": [line_noise(preset)]}.get(target, preset.robustness.noises)


def noises_on(dataset: str, preset: Preset) -> list[str]:
    """The noises that networks are tested under on a data set."""
    chosen = preset.datasets[dataset].noises
    return [noise for noise in preset.robustness.noises if chosen is None or noise in chosen]


def benchmark_options(dataset: str, preset: Preset) -> str:
    """The options of `python -m sdnet benchmark`: where GPUs share a batch, the part of one is measured."""
    images = preset.datasets[dataset]
    return f"--batch-size {preset.recipes[images.recipe].batch_size // images.gpus}" if images.gpus > 1 else ""


def line_noise(preset: Preset) -> str:
    """The noise whose fitted line Algorithm 1 takes for adversarial images, and under which stability is measured."""
    return "gaussian" if "gaussian" in preset.robustness.noises else preset.robustness.noises[0]


def undefended(run: Run, planned: list[Run]) -> Run | None:
    """The run whose adversarial images are tried on a network with a lambda, if the preset has it."""
    wanted = (run.dataset, UNDEFENDED, run.seed)
    same = [other for other in planned if (other.dataset, other.system, other.seed) == wanted]
    return same[0] if same and has_lambda(run.spec["model"]["name"]) else None


def attack_options(preset: Preset, command: str) -> str:
    """The options of `python -m sdnet attack`, `attack-adaptive` and `diagnose` that say what the preset wants."""
    wanted = preset.adversarial
    lambdas, crafted = _listed(preset.robustness.lambdas), _listed(wanted.lambdas)
    options = f"--lambdas {lambdas} --linf {wanted.linf:g} --l2 {wanted.l2:g} --noise {line_noise(preset)}"
    if command == "attack":
        return options + (f" --images {wanted.paper_images}" if wanted.paper_images else "")
    if command == "diagnose":
        square = "square" if "square" in wanted.autoattack else "no-square"
        return options + f" --images {wanted.diagnostic_images} --steps {wanted.steps} --{square}"
    return options + (
        f" --images {wanted.images} --steps {wanted.steps} --restarts {wanted.restarts} --attack-lambdas {crafted}"
        f" --autoattack '{','.join(wanted.autoattack)}' --autoattack-images {wanted.autoattack_images}"
    )


def shows(target: str, dataset: str, preset: Preset) -> bool:
    """Whether a table or figure shows a data set of the preset: attacked, or tested under a noise that it shows."""
    if target in (*SWEPT, *CALIBRATED, *STABLE):
        return not set(noises_of(target, preset)).isdisjoint(noises_on(dataset, preset))
    return target not in ATTACKED or dataset in preset.adversarial.datasets


def runs_of(target: str, planned: list[Run], preset: Preset) -> list[Run]:
    """The runs that a table or figure shows."""
    return [run for run in planned if run.system in systems_of(target) and shows(target, run.dataset, preset)]
