"""Presets: what to run, and at what scale. Each is a file of config/presets/."""

from typing import Annotated

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, model_validator

from sdnet.experiments.labels import SYSTEMS
from sdnet.experiments.settings.datasets import NUMBER_OF_IMAGES, Dataset, check_size
from sdnet.experiments.settings.fields import Settings, distinct
from sdnet.experiments.settings.names import DatasetName
from sdnet.experiments.settings.networks import System, check_name, check_width, has_lambda
from sdnet.experiments.settings.recipe import Recipe
from sdnet.experiments.settings.robustness import Adversarial, Robustness


class Preset(Settings):
    """What to run, and at what scale."""

    description: str = Field(
        min_length=1, description="What it is for, in a sentence or more, with which its report begins."
    )
    extends: str | None = Field(None, description="The preset whose keys hold where this one has none.")
    width: PositiveInt = Field(description="Channels of the first stage of every network; 64 in the paper.")
    imported: bool = Field(False, description="Weights are from `python -m sdnet import-released`; nothing is trained.")
    seeds: Annotated[list[NonNegativeInt], Field(min_length=1), AfterValidator(distinct)]
    more_seeds: dict[str, Annotated[list[NonNegativeInt], Field(min_length=1)]] = Field(
        {}, description="Further seeds of single networks, besides `seeds`."
    )
    datasets: dict[DatasetName, Dataset] = Field(min_length=1)
    systems: dict[Annotated[str, Field(pattern="^[a-z0-9-]+$")], System] = Field(min_length=1)
    recipes: dict[str, Recipe]
    robustness: Robustness = Robustness()
    adversarial: Adversarial = Adversarial()

    def systems_on(self, dataset: str) -> list[str]:
        """The networks that are trained on a data set."""
        return [name for name, one in self.systems.items() if one.datasets is None or dataset in one.datasets]

    def recipe_of(self, system: str, dataset: str) -> Recipe:
        """What trains a network on a data set."""
        return self.recipes[self.systems[system].recipe or self.datasets[dataset].recipe]

    def seeds_of(self, system: str) -> list[int]:
        """The seeds that a network is trained with; the first is the same for all."""
        return self.seeds + self.more_seeds.get(system, [])

    def noises_on(self, dataset: str) -> list[str]:
        """The noises that networks are tested under on a data set."""
        chosen = self.datasets[dataset].noises
        return [noise for noise in self.robustness.noises if chosen is None or noise in chosen]

    @property
    def line_noise(self) -> str:
        """Whose fitted line Algorithm 1 takes for adversarial images, and under which stability is measured."""
        return "gaussian" if "gaussian" in self.robustness.noises else self.robustness.noises[0]

    @model_validator(mode="after")
    def _known_names_mean_what_they_say(self) -> "Preset":
        for name in self.systems.keys() & SYSTEMS:
            check_name(name, self.systems[name])
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
            check_size(f"datasets.{name}.image_size", dataset.image_size, name)
        return self

    @model_validator(mode="after")
    def _there_are_so_many_images(self) -> "Preset":
        for name, dataset in self.datasets.items():
            for key, size in NUMBER_OF_IMAGES.get(name, {}).items():
                if (given := getattr(dataset, key)) is not None and given > size:
                    raise ValueError(f"datasets.{name}.{key}: given {given}; must be at most {size}")
        return self

    @model_validator(mode="after")
    def _width_fits_the_models(self) -> "Preset":
        for dataset in self.datasets:
            for system in self.systems_on(dataset):
                check_width("width", self.width, self.systems[system].model, dataset)
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
            batches = [self.recipe_of(system, name).batch_size for system in self.systems_on(name)]
            smallest = min(batches, default=dataset.gpus)
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
