"""The settings: the site's, in config/config.yaml, and the presets', in config/presets/. Each value is described here.

A preset says what to run and at what scale. It may extend another one: then its top-level keys replace those of the
other, whole; lists and tables are not merged.
"""

import math
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from sdnet.experiments.labels import SYSTEMS
from sdnet.experiments.settings_files import SettingsError, read_yaml

ModelName = Literal["resnet18", "resnet34", "mdeq", "scn", "scn18", "sdnet18", "sdnet34", "sdnet18-all", "sdnet34-all"]
Noise = Literal["gaussian", "shot", "speckle", "impulse"]
Variant = Literal["paper", "squared", "parabola", "released"]
AutoAttack = Literal["apgd-ce", "apgd-t", "fab-t", "square"]
DatasetName = Literal["digits", "cifar10", "cifar100", "imagenet", "folder"]

# The widths of models that do not take any: multiples of the first number, at most the second for each image channel.
# The first layer of SCN has width / 4 atoms, no more than the numbers in a 3x3 patch.
WIDTHS = {"mdeq": (16, math.inf), "scn": (4, 36)}
GREY = ("digits",)  # of one channel; the other data sets have three

# What the names of the tables' networks say behind that of the model.
NAME_SUFFIXES = {
    "iter4": ("n_iter", 4),
    "iter8": ("n_iter", 8),
    "nonnegative": ("nonnegative", True),
    "plain": ("shortcut", False),
}

NUMBER_OF_IMAGES = {  # to train on, and to test
    "digits": (1437, 360),
    "cifar10": (50000, 10000),
    "cifar100": (50000, 10000),
    "imagenet": (1281167, 50000),
}


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, given: Any) -> Any:
        if isinstance(given, dict) and (unknown := set(given) - set(cls.model_fields)):
            raise ValueError(
                f"unknown key {', '.join(sorted(map(repr, unknown)))}; allowed are {', '.join(cls.model_fields)}"
            )
        return given


def _checksum(value: str) -> str:
    if not re.fullmatch("md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", value):
        raise ValueError('must be "md5:" and 32, or "sha256:" and 64, hexadecimal digits')
    return value


def _distinct(values: list) -> list:
    if len(set(values)) < len(values):
        raise ValueError("must be distinct")
    return values


def _ascending(values: list[float]) -> list[float]:
    if values != sorted(set(values)):
        raise ValueError("must be ascending, each value once")
    return values


def _folder(value: str) -> str:
    """One name for each folder, as Snakemake compares names; no shell stands between to find ~."""
    return os.path.normpath(os.path.expanduser(value))


Folder = Annotated[str, AfterValidator(_folder)]


class Download(_Settings):
    """Where an archive comes from."""

    urls: list[str] = Field(min_length=1, description="Addresses (https, http, file), tried in this order.")
    checksum: Annotated[str, AfterValidator(_checksum)] = Field(description="Of the archive: md5:... or sha256:...")


class Site(_Settings):
    """What differs from one site to the next; config.yaml says for which of it something is made again."""

    data_dir: Folder = Field("data", description="Where downloaded data sets are kept.")
    downloads: dict[Literal["cifar10", "cifar100", "cifar10-c", "cifar100-c"], Download]
    imagenet_root: Folder | None = Field(None, description="A folder with train/<class>/ and val/<class>/.")
    imagenet_c_root: Folder | None = Field(None, description="A folder with <noise>_noise/<severity>/<class>/.")
    folder_root: Folder | None = Field(None, description="Any folder with train/<class>/ and val/<class>/.")
    jobs_per_gpu: PositiveInt = Field(1, description="How many jobs share one GPU.")
    mlflow_uri: str = Field("sqlite:///mlflow.db", description="MLflow's tracking address.")

    @model_validator(mode="after")
    def _all_downloads(self) -> "Site":
        if missing := {"cifar10", "cifar100", "cifar10-c", "cifar100-c"} - set(self.downloads):
            raise ValueError(f"downloads: {', '.join(sorted(missing))} missing; each needs urls and checksum")
        return self


class Images(_Settings):
    """How much of a data set is used."""

    train_images: PositiveInt | None = Field(None, description="Size of a class-balanced part; null for all.")
    test_images: PositiveInt | None = Field(None, description="Size of a class-balanced part; null for all.")
    image_size: PositiveInt | None = Field(None, description="Side in pixels, of `imagenet` and `folder` alone.")


class Dataset(Images):
    """A data set, and what is done on it."""

    recipe: str = Field("default", description="Which of `recipes` trains on it.")
    noise_source: Literal["official", "generated", "auto"] = Field(
        "auto",
        description="CIFAR-10-C or ImageNet-C, or our own noise; auto is ImageNet-C where imagenet_c_root names it, "
        "else our own.",
    )
    noise_scale: Literal["cifar", "imagenet"] = Field("cifar", description="Whose severities generated noise has.")
    noise_levels: Literal["interleaved", "released"] = Field(
        "interleaved", description="The set C of Algorithm 1: ours for CIFAR-10-C, or the released code's (ImageNet-C)."
    )
    noises: Annotated[list[Noise], Field(min_length=1), AfterValidator(_distinct)] | None = Field(
        None, description="Those of robustness.noises that networks are tested under on it; null for all."
    )
    gpus: PositiveInt = Field(1, description="GPUs that share one training run.")


class Options(_Settings):
    """What of a network can be varied."""

    lmbd: NonNegativeFloat = Field(0.1, description="Sparsity weight of the CSC layers (section 4).")
    n_iter: PositiveInt = Field(2, description="FISTA iterations (section 4; Table 5).")
    nonnegative: bool = Field(False, description="The released code's reading: codes >= 0 and no ReLU behind them.")
    shortcut: bool = Field(True, description="false: blocks without shortcuts, which Eq. 14 can invert.")


def has_lambda(network: str) -> bool:
    """Whether a network has CSC layers, and so a lambda to choose; by its name, or that of the paper's tables."""
    return network.startswith("sdnet")


def check_width(key: str, width: int, model: str, dataset: str) -> None:
    """Refuse a width that a model cannot have on a data set; `key` names the setting."""
    step, per_channel = WIDTHS.get(model, (1, math.inf))
    most = per_channel * (1 if dataset in GREY else 3)
    if width % step or width > most:
        limit = "" if most == math.inf else f", at most {most}"
        raise ValueError(f"{key}: given {width}; {model} on {dataset} needs a multiple of {step}{limit}")


def _check_options(key: str, options: Options, model: str) -> None:
    if (given := options.model_fields_set) and not has_lambda(model):
        raise ValueError(f"{key}: given {', '.join(sorted(given))} for {model}; only the sdnet models have options")


def _check_size(key: str, size: int | None, dataset: str) -> None:
    if size is not None and dataset not in ("imagenet", "folder"):
        raise ValueError(f"{key}: given {size}; {dataset} has a size of its own")


class System(_Settings):
    """One network of the tables."""

    model: ModelName
    options: Options = Options()
    datasets: list[DatasetName] | None = Field(None, description="The data sets it is trained on; null for all.")
    recipe: str | None = Field(None, description="Which of `recipes` trains it, in place of the data set's.")

    @model_validator(mode="after")
    def _options_belong_to_the_model(self) -> "System":
        _check_options("options", self.options, self.model)
        return self

    def trains_on(self, dataset: str) -> bool:
        """Whether it is trained on a data set."""
        return self.datasets is None or dataset in self.datasets


def _check_name(name: str, system: System) -> None:
    """Refuse another network under the name of one that tables, figures and claims are about."""
    named = (model for model in get_args(ModelName) if f"{name}-".startswith(f"{model}-"))
    model = max(named, key=len, default="")
    suffix = name.removeprefix(model).removeprefix("-")
    if not model or (suffix and suffix not in NAME_SUFFIXES):  # a label of one's own in SYSTEMS
        return
    wanted = {"model": model, "lmbd": 0.1, "n_iter": 2, "shortcut": True}
    wanted |= dict([NAME_SUFFIXES[suffix]] if suffix else [])
    given = system.options.model_dump() | {"model": system.model}
    if wrong := [key for key, value in wanted.items() if given[key] != value]:
        ours, theirs = (", ".join(f"{key} {str(one[key]).lower()}" for key in wrong) for one in (given, wanted))
        raise ValueError(
            f"systems.{name}: given {ours}; under this name tables and claims mean {SYSTEMS[name]}, {theirs}: give it "
            "another name"
        )


class Recipe(_Settings):
    """How a network is trained; the defaults are the paper's for CIFAR (section 4, "Network training")."""

    epochs: PositiveInt = 220
    batch_size: PositiveInt = 128
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: PositiveFloat = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = True
    weight_decay: NonNegativeFloat = 5e-4
    schedule: Literal["cosine", "multistep"] = "cosine"
    milestones: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        [], description="Of `multistep`: a tenth of the learning rate after each, as shares of the training."
    )
    # ASSUME: the paper does not say in which precision it trained.
    precision: Literal["bfloat16", "float32"] = Field(
        "bfloat16", description="bfloat16 is by autocast, and float32 on a device without its instructions."
    )
    deterministic: bool = Field(
        False, description="On a GPU, the same bits each time, at a price in speed; a CPU gives them by itself."
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if (self.schedule == "multistep") != bool(self.milestones):
            raise ValueError(
                f"milestones: given {self.milestones} with schedule {self.schedule}; "
                "multistep needs at least one, cosine allows none"
            )
        if self.optimizer == "sgd" and self.nesterov and self.momentum == 0:
            raise ValueError("nesterov: given true with momentum 0; give a momentum, or nesterov: false")
        return self


class Robustness(_Settings):
    """How networks are tested under noise (section 4.2)."""

    noises: Annotated[list[Noise], Field(min_length=1), AfterValidator(_distinct)] = [
        "gaussian",
        "shot",
        "speckle",
        "impulse",
    ]
    seed: NonNegativeInt = Field(0, description="Of generated noise.")
    lambdas: Annotated[list[NonNegativeFloat], Field(min_length=2), AfterValidator(_ascending)] = Field(
        [round(0.1 * k, 1) for k in range(1, 16)],
        description="The set Lambda of Algorithm 1 (section 4.2: 0.1 to 1.5).",
    )
    test_images: PositiveInt | None = Field(None, description="Size of a class-balanced part; null for all.")
    # ASSUME: 2,000 are enough for a line through ten levels or so; Algorithm 1 has the whole training set.
    calibration_images: PositiveInt = Field(2000, description="Training images that Algorithm 1 is fitted on.")
    variants: Annotated[list[Variant], Field(min_length=1), AfterValidator(_distinct)] = Field(
        ["paper", "squared", "parabola", "released"],
        description="paper: Algorithm 1 as printed. squared: of the residual. parabola: a smoother arg max. "
        "released: the fit of the authors' code, on test images.",
    )

    @model_validator(mode="after")
    def _has_paper(self) -> "Robustness":
        if "paper" not in self.variants:
            raise ValueError(f"variants: given {self.variants}; must contain paper, which the tables show")
        return self


class Adversarial(_Settings):
    """How networks are attacked (section 4.3); sdnet/robustness/ladder.py describes the attacks."""

    datasets: Annotated[list[DatasetName], AfterValidator(_distinct)] = Field(
        ["cifar10"], description="Whose networks are attacked; the paper attacks those of CIFAR-10."
    )
    linf: Annotated[float, Field(gt=0, le=255)] = Field(8, description="Radius in the L-inf norm, grey levels of 255.")
    l2: PositiveFloat = Field(0.5, description="Radius in the L2 norm, for pixels of 0 to 1.")
    paper_images: PositiveInt | None = Field(
        None, description="Test images for the paper's protocol: a class-balanced part; null for all."
    )
    images: PositiveInt = Field(1000, description="The same for attacks that know the defence.")
    lambdas: Annotated[list[PositiveFloat], Field(min_length=1), AfterValidator(_ascending)] = Field(
        [0.1, 0.3, 0.5, 0.7, 0.9, 1.1, 1.3, 1.5],
        description="Where images are crafted, besides the lambda of training and the tuned one.",
    )
    steps: PositiveInt = Field(50, description="Of gradient descent; twice as many where it is to be strong.")
    restarts: PositiveInt = Field(5, description="Of the strong descent, for each of two losses.")
    autoattack: Annotated[list[AutoAttack], AfterValidator(_distinct)] = Field(
        ["apgd-ce", "apgd-t", "fab-t", "square"], description="Its attacks; [] for none."
    )
    autoattack_images: PositiveInt = Field(1000, description="How many of `images` it is tried on.")
    diagnostic_images: PositiveInt = Field(200, description="How many of `images` the checks of the attacks take.")

    @property
    def radii(self) -> dict[str, float]:
        """The radius in each norm, for pixels of [0, 1]."""
        return {"linf": self.linf / 255, "l2": self.l2}

    @model_validator(mode="after")
    def _parts_are_parts(self) -> "Adversarial":
        for name in ("autoattack_images", "diagnostic_images"):
            if (given := getattr(self, name)) > self.images:
                raise ValueError(f"{name}: given {given}; must be at most images, {self.images}")
        return self


class Preset(_Settings):
    """What to run, and at what scale."""

    description: str = Field(
        min_length=1, description="What it is for, in a sentence or more, with which its report begins."
    )
    extends: str | None = Field(None, description="The preset whose keys hold where this one has none.")
    width: PositiveInt = Field(description="Channels of the first stage of every network; 64 in the paper.")
    imported: bool = Field(False, description="Weights are from `python -m sdnet import-released`; nothing is trained.")
    seeds: Annotated[list[NonNegativeInt], Field(min_length=1), AfterValidator(_distinct)]
    more_seeds: dict[str, Annotated[list[NonNegativeInt], Field(min_length=1)]] = Field(
        {}, description="Further seeds of single networks, besides `seeds`."
    )
    datasets: dict[DatasetName, Dataset] = Field(min_length=1)
    systems: dict[Annotated[str, Field(pattern="^[a-z0-9-]+$")], System] = Field(min_length=1)
    recipes: dict[str, Recipe]
    robustness: Robustness = Robustness()
    adversarial: Adversarial = Adversarial()

    @model_validator(mode="after")
    def _known_names_mean_what_they_say(self) -> "Preset":
        for name in self.systems.keys() & SYSTEMS:
            _check_name(name, self.systems[name])
        return self

    @model_validator(mode="after")
    def _noises_are_some_of_all(self) -> "Preset":
        for name, dataset in self.datasets.items():
            if further := [noise for noise in dataset.noises or [] if noise not in self.robustness.noises]:
                raise ValueError(
                    f"datasets.{name}.noises: given {', '.join(further)}; allowed are those of robustness.noises: "
                    f"{', '.join(self.robustness.noises)}"
                )
        return self

    @model_validator(mode="after")
    def _sizes_can_be_chosen(self) -> "Preset":
        for name, dataset in self.datasets.items():
            _check_size(f"datasets.{name}.image_size", dataset.image_size, name)
        return self

    @model_validator(mode="after")
    def _there_are_so_many_images(self) -> "Preset":
        for name, dataset in self.datasets.items():
            wanted = {"train_images": dataset.train_images, "test_images": dataset.test_images}
            for (split, count), size in zip(wanted.items(), NUMBER_OF_IMAGES.get(name, ()), strict=False):
                if count is not None and count > size:
                    raise ValueError(f"datasets.{name}.{split}: given {count}; must be at most {size}")
        return self

    @model_validator(mode="after")
    def _width_fits_the_models(self) -> "Preset":
        for system in self.systems.values():
            for dataset in self.datasets:
                if system.trains_on(dataset):
                    check_width("width", self.width, system.model, dataset)
        return self

    @model_validator(mode="after")
    def _more_seeds_are_more(self) -> "Preset":
        for system in self.more_seeds:
            if system not in self.systems:
                raise ValueError(f"more_seeds: given {system!r}; allowed are {', '.join(self.systems)}")
            if len(set(self.seeds_of(system))) < len(self.seeds_of(system)):
                raise ValueError(
                    f"more_seeds.{system}: given {self.more_seeds[system]}; must be distinct, and none of seeds"
                )
        return self

    def seeds_of(self, system: str) -> list[int]:
        """The seeds that a network is trained with; the first is the same for all."""
        return self.seeds + self.more_seeds.get(system, [])

    @model_validator(mode="after")
    def _recipes_exist(self) -> "Preset":
        for kind, members in {"datasets": self.datasets, "systems": self.systems}.items():
            for name, member in members.items():
                if member.recipe is not None and member.recipe not in self.recipes:
                    raise ValueError(
                        f"{kind}.{name}.recipe is {member.recipe!r}; allowed are {', '.join(self.recipes)}"
                    )
        return self

    @model_validator(mode="after")
    def _each_gpu_has_part_of_a_batch(self) -> "Preset":
        for name, dataset in self.datasets.items():
            recipes = [one.recipe or dataset.recipe for one in self.systems.values() if one.trains_on(name)]
            smallest = min((self.recipes[recipe].batch_size for recipe in recipes), default=dataset.gpus)
            if dataset.gpus > smallest:
                raise ValueError(
                    f"datasets.{name}.gpus: given {dataset.gpus}; must be at most the batch size, {smallest}"
                )
        return self

    @model_validator(mode="after")
    def _lambdas_of_training_are_tried(self) -> "Preset":
        for name, system in self.systems.items():
            lmbd, tried = system.options.lmbd, self.robustness.lambdas
            if has_lambda(system.model) and lmbd not in tried:
                raise ValueError(
                    f"robustness.lambdas: given {tried}; must contain {lmbd:g}, which systems.{name} is trained at"
                )
        return self


class SpecImages(Images):
    """The images of a run."""

    name: DatasetName
    checksum: str | None = Field(
        description="Of the archive that they were downloaded in, or of the classes of `folder` and their numbers of "
        "images; null for others."
    )


class SpecModel(_Settings):
    """The network of a run."""

    name: ModelName
    width: PositiveInt
    options: Options


class SpecTraining(Recipe):
    """The training of a run."""

    epochs: NonNegativeInt = Field(description="0 for imported weights.")


class Spec(_Settings):
    """What a run's spec.json holds: `plan.runs` makes it of a preset."""

    preset: str
    system: str
    seed: NonNegativeInt
    dataset: SpecImages
    model: SpecModel
    training: SpecTraining

    @model_validator(mode="after")
    def _parts_fit(self) -> "Spec":
        _check_size("dataset.image_size", self.dataset.image_size, self.dataset.name)
        _check_options("model.options", self.model.options, self.model.name)
        check_width("model.width", self.model.width, self.model.name, self.dataset.name)
        return self


def load_site(values: dict, source: str = "config/config.yaml") -> Site:
    """The site settings from what the YAML file (and `--configfile`) hold; `source` names them in errors.

    Raises:
        SettingsError: naming each wrong key, what was given and what is allowed.
    """
    return _validate(Site, values, source)


def load_presets(folder: Path) -> dict[str, Preset]:
    """All presets of a folder, by name, each with the keys that it extends.

    Raises:
        SettingsError: naming file and key, what was given and what is allowed.
    """
    return {name: load_preset(folder, name) for name in preset_files(folder)}


def load_preset(folder: Path, name: str) -> Preset:
    """One preset of a folder, with the keys that it extends; the other files are not read.

    Raises:
        SettingsError: see `load_presets`.
    """
    files = preset_files(folder)
    if name not in files:
        raise SettingsError(f"preset: given {name!r}; allowed are {', '.join(files)}")
    return _validate(Preset, _extended(name, files, ()), str(files[name]))


def preset_files(folder: Path) -> dict[str, Path]:
    """The files of a folder's presets, by name; unread.

    Raises:
        SettingsError: if there is none, or a name that cannot be typed as a target.
    """
    files = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    if not files:
        raise SettingsError(f"{folder} holds no preset (*.yaml)")
    for name, path in files.items():
        if not re.fullmatch("[A-Za-z0-9_-]+", name):  # it is typed as a target, and names folders
            raise SettingsError(f"{path}: a preset's name may have letters, digits, - and _ alone; rename the file")
    return files


def check_spec(values: dict, source: str) -> None:
    """Refuse values that a run's spec.json cannot hold; `source` names the file in errors.

    Raises:
        SettingsError: naming each wrong key, what was given and what is allowed.
    """
    _validate(Spec, values, source)


def _extended(name: str, files: dict[str, Path], below: tuple[str, ...]) -> dict:
    values = read_yaml(files[name])
    parent = values.get("extends")
    if parent is None:
        return values
    if not isinstance(parent, str) or parent not in files or parent in (*below, name):
        others = ", ".join(sorted(set(files) - {*below, name})) or "none"
        raise SettingsError(f"{files[name]}: extends: given {parent!r}; allowed are {others}")
    return {**_extended(parent, files, (*below, name)), **values}


def _validate(model: type[_Settings], values: dict, source: str) -> Any:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise SettingsError("\n".join(_sentence(source, item) for item in error.errors())) from None


def _sentence(source: str, item: dict) -> str:
    path = ".".join(str(part) for part in item["loc"] if part != "[key]")
    message = item["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    given = item["input"]
    if item["type"] == "missing":
        return f"{source}: {path}: is missing and has no default"
    if item["type"] == "model_type" and given is None:
        return f"{source}: {path}: given None (NoneType); write {{}} for its defaults, or a table of keys and values"
    if isinstance(given, str) and re.fullmatch(r"\d+e[+-]?\d+", given):
        message += "; YAML takes that for text, write it with a point, as in 5.0e-4"
    if isinstance(given, dict | BaseModel):
        return ": ".join(filter(None, (source, path, message)))
    return f"{source}: {path}: given {given!r} ({type(given).__name__}); {message}"
