"""Data sets: which there are, and how much of each is used."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveInt

from sdnet.experiments.settings.fields import Settings, distinct
from sdnet.experiments.settings.names import Noise, NoiseLevels, NoiseScale

GREY = ("digits",)  # of one channel; the other data sets have three

NUMBER_OF_IMAGES = {
    "digits": {"train_images": 1437, "test_images": 360},
    "cifar10": {"train_images": 50000, "test_images": 10000},
    "cifar100": {"train_images": 50000, "test_images": 10000},
    "imagenet": {"train_images": 1281167, "test_images": 50000},
}


class Images(Settings):
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
    noise_scale: NoiseScale = Field("cifar", description="Whose severities generated noise has.")
    noise_levels: NoiseLevels = Field(
        "interleaved", description="The set C of Algorithm 1: ours for CIFAR-10-C, or the released code's (ImageNet-C)."
    )
    noises: Annotated[list[Noise], Field(min_length=1), AfterValidator(distinct)] | None = Field(
        None, description="Those of robustness.noises that networks are tested under on it; null for all."
    )
    gpus: PositiveInt = Field(1, description="GPUs that share one training run.")


def check_size(key: str, size: int | None, dataset: str) -> None:
    """Refuse a size of images that have their own; `key` names the setting."""
    if size is not None and dataset not in ("imagenet", "folder"):
        raise ValueError(f"{key}: given {size}; {dataset} has a size of its own")
