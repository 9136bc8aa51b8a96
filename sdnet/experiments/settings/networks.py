"""Networks: which there are, what of each can be varied, and what their names mean."""

import math
from typing import get_args

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from sdnet.experiments.labels import SYSTEMS
from sdnet.experiments.settings.datasets import GREY
from sdnet.experiments.settings.fields import Settings
from sdnet.experiments.settings.names import DatasetName, ModelName

# The widths of models that do not take any: multiples of the first number, at most the second for each image channel.
# The first layer of SCN has width / 4 atoms, no more than the numbers in a 3x3 patch.
WIDTHS = {"mdeq": (16, math.inf), "scn": (4, 36)}

# What the names of the tables' networks say behind that of the model.
NAME_SUFFIXES = {
    "iter4": ("n_iter", 4),
    "iter8": ("n_iter", 8),
    "nonnegative": ("nonnegative", True),
    "plain": ("shortcut", False),
}


class Options(Settings):
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


def check_options(key: str, options: Options, model: str) -> None:
    """Refuse options of a model that has none; `key` names the setting."""
    if (given := options.model_fields_set) and not has_lambda(model):
        raise ValueError(f"{key}: given {', '.join(sorted(given))} for {model}; only the sdnet models have options")


class System(Settings):
    """One network of the tables."""

    model: ModelName
    options: Options = Options()
    datasets: list[DatasetName] | None = Field(None, description="The data sets it is trained on; null for all.")
    recipe: str | None = Field(None, description="Which of `recipes` trains it, in place of the data set's.")

    @model_validator(mode="after")
    def _options_belong_to_the_model(self) -> "System":
        check_options("options", self.options, self.model)
        return self


def check_name(name: str, system: System) -> None:
    """Refuse another network under the name of one that tables, figures and claims are about."""
    named = (model for model in get_args(ModelName) if f"{name}-".startswith(f"{model}-"))
    model = max(named, key=len, default="")
    suffix = name.removeprefix(model).removeprefix("-")
    if not model or (suffix and suffix not in NAME_SUFFIXES):  # a label of one's own in SYSTEMS
        return
    wanted = {"model": model} | Options().model_dump(exclude={"nonnegative"})  # which may be either, but for a suffix
    wanted |= dict([NAME_SUFFIXES[suffix]] if suffix else [])
    given = system.options.model_dump() | {"model": system.model}
    if wrong := [key for key, value in wanted.items() if given[key] != value]:
        ours, theirs = (", ".join(f"{key} {str(one[key]).lower()}" for key in wrong) for one in (given, wanted))
        raise ValueError(
            f"systems.{name}: given {ours}; under this name tables and claims mean {SYSTEMS[name]}, {theirs}: give it "
            "another name"
        )
