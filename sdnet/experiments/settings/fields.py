"""What every table of settings is made of."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from sdnet.experiments.settings.files import expanded


class Settings(BaseModel):
    """A table of settings: of the types that it says, finite, and without any other key."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, given: Any) -> Any:
        if isinstance(given, dict) and (unknown := set(given) - set(cls.model_fields)):
            raise ValueError(
                f"unknown key {', '.join(sorted(map(repr, unknown)))}; allowed are {', '.join(cls.model_fields)}"
            )
        return given


def distinct(values: list) -> list:
    """The same list; each value may be there once."""
    if len(set(values)) < len(values):
        raise ValueError("must be distinct")
    return values


def ascending(values: list[float]) -> list[float]:
    """The same list, which must be ascending."""
    if values != sorted(set(values)):
        raise ValueError("must be ascending, each value once")
    return values


Folder = Annotated[str, AfterValidator(expanded)]
