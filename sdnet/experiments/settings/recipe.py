"""How a network is trained."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from sdnet.experiments.settings.fields import Settings


class Recipe(Settings):
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
