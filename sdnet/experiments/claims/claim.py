"""The paper's claims, config/claims.yaml: what each is about, and the tests that judge it."""

import operator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from sdnet.experiments import catalogue
from sdnet.experiments.labels import DATASETS, NORMS, SYSTEMS
from sdnet.experiments.settings.files import SettingsError, read_yaml
from sdnet.experiments.settings.names import Noise

# The least scale at which the size of an effect is judged. After 24 epochs effects have another size than after 100,
# one of them (C4) another sign: docs/results/.
SIZE_WIDTH, SIZE_EPOCHS = 64, 100
TEXT, RELEASED = "sdnet18", "sdnet18-nonnegative"  # SDNet-18 with the layer of the paper's text, of the authors' code
# What effects measure; the column `quantity` of effects.csv says in which unit.
QUANTITIES = (
    *("accuracy", "robust", "speed", "memory", "parameters", "lambda", "zeros", "new"),
    *("noise_to_signal", "correlation", "kendall", "spearman", "inversions", "r_squared"),
)
# What may stand behind "over" in place of a network.
OTHERS = ("severity", "depth", "residual", "noise variance", "the lines of other noises", "both ends of the grid")
COSTS = ("parameters", "speed", "memory")  # which no training changes
MEASURED_ONCE = ("speed of ", "memory of ")  # effects that are measured once for each network, not for each seed
COMPARE = {"above": operator.gt, "at_least": operator.ge, "below": operator.lt, "at_most": operator.le}


def as_text(name: str) -> str:
    """What an effect is of, with SDNet-18 in the released reading under the text's name."""
    return " ".join(TEXT if word == RELEASED else word for word in name.split())


def as_released(name: str) -> str:
    """What an effect is of, with SDNet-18 in the released reading in place of the text's."""
    return " ".join(RELEASED if word == TEXT else word for word in name.split())


def networks_of(name: str) -> set[str]:
    """The networks that an effect is of."""
    return set(name.split()) & set(SYSTEMS)


def _listed(given: Any) -> Any:
    """A single value stands for a list of one; effects.csv has severities and depths as text."""
    return [str(one) if isinstance(one, int) else one for one in (given if isinstance(given, list) else [given])]


def _effect(name: str) -> str:
    """An effect of known networks; or a misspelt one would pass for one that is not measured yet."""
    quantity, _, compared = name.partition(" of ")
    subject, *over = compared.split(" over ")
    known = all(one in OTHERS or one.split(" ")[0] in SYSTEMS for one in over)
    if quantity not in QUANTITIES or subject.split(" ")[0] not in SYSTEMS or not known:
        raise ValueError(
            f"given {name!r}; must be <quantity> of <network> ... [over <network> ...], with a quantity of "
            f"{', '.join(QUANTITIES)} and networks of SYSTEMS in sdnet/experiments/labels.py, {', '.join(SYSTEMS)}; or "
            f"over {', '.join(OTHERS)}"
        )
    return name


Texts = Annotated[list[str], BeforeValidator(_listed)]
Effect = Annotated[str, AfterValidator(_effect)]
Conditions = Annotated[list[Literal["any", "clean", *get_args(Noise), *NORMS]], BeforeValidator(_listed)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Which(_Strict):
    """Effects: rows of effects.csv."""

    effects: list[Effect] = Field([], description='Each "<quantity> of <subject> [over <another>]".')
    condition: Conditions = Field(["any"], description="A noise, or the norm of an attack.")
    level: Texts = Field(["any"], description="Severity, mean; depth; paper or worst, of attacks.")
    without: dict[str, Texts] = Field({}, alias="except", description="Conditions and levels left out.")
    where_better_than: str | None = Field(None, description="Only where the subject is surely more accurate than this.")


class Test(Which):
    """A bound that each of some effects has to keep."""

    what: str = Field(description="What is bounded, in words.")
    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    near_paper: float | None = Field(None, description="Largest distance from the paper's number.")
    share_of_paper: float | None = Field(None, description="At least this share of the paper's number.")
    fails: float | None = Field(None, description="Beyond it the bound is surely broken; by default, beyond the bound.")
    share: float = Field(1, gt=0, le=1, description="Of the effects that must keep the bound.")
    pool: Literal["mean", "size"] | None = Field(
        None,
        description="The bound is for the mean of the effects, or of their sizes whatever the sign; else for each.",
    )
    sure: bool = Field(True, description="The whole interval must keep the bound, not the estimate alone.")

    @model_validator(mode="after")
    def _one_bound(self) -> "Test":
        given = [name for name in (*COMPARE, "near_paper", "share_of_paper") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"must have one of {', '.join(COMPARE)}, near_paper, share_of_paper; has {', '.join(given) or 'none'}"
            )
        return self

    @property
    def bound(self) -> tuple[str, float] | None:
        """A key of `COMPARE` and its value; None of a test relative to the paper."""
        return next(((name, getattr(self, name)) for name in COMPARE if getattr(self, name) is not None), None)


class Claim(Which):
    """What the paper claims, and how that is judged."""

    id: str
    topic: str
    statement: str
    place: str
    paper: str = Field("", description="What the paper says in place of a number.")
    implied: bool = Field(False, description="The paper does not say it: it follows, or is the next question.")
    quantity: str = Field(description="In words, what the effects are the mean of.")
    about: list[Literal[tuple(DATASETS)]] = Field(min_length=1, description="Data sets that it is claimed of.")
    stand_in: bool = Field(True, description="Whether another data set may stand in for these.")
    needs: list[Literal[tuple(catalogue.SYSTEMS_OF)]] = Field(min_length=1)
    direction: list[Test] = Field(min_length=1)
    size: list[Test] = []

    @field_validator("direction")
    @classmethod
    def _bounds_of_its_kind(cls, tests: list[Test]) -> list[Test]:
        if relative := [test.what for test in tests if test.bound is None]:
            raise ValueError(f"{relative[0]}: near_paper and share_of_paper belong under size")
        return tests

    def which(self, test: Test) -> Which:
        """The effects that a test bounds: the claim's, but for what the test says otherwise."""
        own = {name: getattr(test, name) for name in Which.model_fields if name in test.model_fields_set}
        return self.model_copy(update=own)


class Claims(_Strict):
    """config/claims.yaml."""

    claims: list[Claim]


def load_claims(path: Path) -> list[Claim]:
    """The claims, in the order of the file.

    Raises:
        SettingsError: naming the file, the key and what is wrong with it.
    """
    given = read_yaml(path)
    try:
        claims = Claims.model_validate(given).claims
    except ValidationError as error:
        raise SettingsError("\n".join(_sentence(path, given, item) for item in error.errors())) from None
    ids = [claim.id for claim in claims]
    if twice := [name for name in dict.fromkeys(ids) if ids.count(name) > 1]:
        raise SettingsError(f"{path}: ids must be distinct; given twice: {', '.join(twice)}")
    return claims


def _sentence(path: Path, given: dict, item: dict) -> str:
    where, message = item["loc"], item["msg"].removeprefix("Value error, ")
    if len(where) < 3:  # nothing of a claim
        return f"{path}: {'.'.join(map(str, where))}: {message}"
    claim = given["claims"][where[1]]
    return f"{path}: claim {claim.get('id', where[1] + 1)}: {'.'.join(map(str, where[2:]))}: {message}"
