"""How networks are tested under noise, and attacked."""

from typing import Annotated

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from sdnet.experiments.settings.fields import Settings, ascending, distinct
from sdnet.experiments.settings.names import AutoAttack, DatasetName, Noise, Variant


class Robustness(Settings):
    """How networks are tested under noise (section 4.2)."""

    noises: Annotated[list[Noise], Field(min_length=1), AfterValidator(distinct)] = Field(
        ["gaussian", "shot", "speckle", "impulse"], description="Of those that CIFAR-10-C and ImageNet-C have."
    )
    seed: NonNegativeInt = Field(0, description="Of generated noise.")
    lambdas: Annotated[list[NonNegativeFloat], Field(min_length=2), AfterValidator(ascending)] = Field(
        [round(0.1 * k, 1) for k in range(1, 16)],
        description="The set Lambda of Algorithm 1; the paper prints the range of Figure 2, 0.1 to 1.5.",
    )
    test_images: PositiveInt | None = Field(None, description="Size of a class-balanced part; null for all.")
    # ASSUME: 2,000 are enough for a line through ten levels or so; Algorithm 1 has the whole training set.
    calibration_images: PositiveInt = Field(2000, description="Training images that Algorithm 1 is fitted on.")
    variants: Annotated[list[Variant], Field(min_length=1), AfterValidator(distinct)] = Field(
        ["paper", "squared", "parabola", "released"],
        description="paper: Algorithm 1 as printed. squared: of the residual. parabola: a smoother arg max. "
        "released: the fit of the authors' code, on test images.",
    )

    @model_validator(mode="after")
    def _has_paper(self) -> "Robustness":
        if "paper" not in self.variants:
            raise ValueError(f"variants: given {self.variants}; must contain paper, which the tables show")
        return self


class Adversarial(Settings):
    """How networks are attacked (section 4.3); sdnet/robustness/ladder.py describes the attacks."""

    datasets: Annotated[list[DatasetName], AfterValidator(distinct)] = Field(
        ["cifar10"], description="Whose networks are attacked; the paper attacks those of CIFAR-10."
    )
    linf: Annotated[float, Field(gt=0, le=255)] = Field(8, description="Radius in the L-inf norm, grey levels of 255.")
    l2: PositiveFloat = Field(0.5, description="Radius in the L2 norm, for pixels of 0 to 1.")
    paper_images: PositiveInt | None = Field(
        None, description="Test images for the paper's protocol: a class-balanced part; null for all."
    )
    images: PositiveInt = Field(1000, description="The same for attacks that know the defence.")
    lambdas: Annotated[list[PositiveFloat], Field(min_length=1), AfterValidator(ascending)] = Field(
        [0.1, 0.3, 0.5, 0.7, 0.9, 1.1, 1.3, 1.5],
        description="Where images are crafted, besides the lambda of training and the tuned one.",
    )
    steps: PositiveInt = Field(50, description="Of gradient descent; twice as many where it is to be strong.")
    restarts: PositiveInt = Field(5, description="Of the strong descent, for each of two losses.")
    autoattack: Annotated[list[AutoAttack], AfterValidator(distinct)] = Field(
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
