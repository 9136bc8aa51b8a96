"""What a run's spec.json holds."""

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from sdnet.experiments.settings.datasets import Images, check_size
from sdnet.experiments.settings.fields import Settings
from sdnet.experiments.settings.names import DatasetName, ModelName
from sdnet.experiments.settings.networks import Options, check_options, check_width
from sdnet.experiments.settings.recipe import Recipe


class SpecImages(Images):
    """The images of a run."""

    name: DatasetName
    checksum: str | None = Field(
        description="Of the archive that they were downloaded in, or of the classes of `folder` and their numbers of "
        "images; null for others."
    )


class SpecModel(Settings):
    """The network of a run."""

    name: ModelName
    width: PositiveInt
    options: Options


class SpecTraining(Recipe):
    """The training of a run."""

    epochs: NonNegativeInt = Field(description="0 for imported weights.")


class Spec(Settings):
    """What a run's spec.json holds: `plan.runs` makes it of a preset."""

    preset: str
    system: str
    seed: NonNegativeInt
    dataset: SpecImages
    model: SpecModel
    training: SpecTraining

    @model_validator(mode="after")
    def _parts_fit(self) -> "Spec":
        check_size("dataset.image_size", self.dataset.image_size, self.dataset.name)
        check_options("model.options", self.model.options, self.model.name)
        check_width("model.width", self.model.width, self.model.name, self.dataset.name)
        return self
