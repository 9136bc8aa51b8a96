"""The command line's types of values, and the options that several commands have."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import click

from sdnet.experiments.settings.names import AutoAttack, Downloaded, Noise, NoiseLevels, NoiseScale, Variant

PathType = click.Path(path_type=Path)
OutFile = click.Path(path_type=Path, dir_okay=False)
ExistingFile = click.Path(path_type=Path, exists=True, dir_okay=False)
AtLeast1 = click.IntRange(1)
ExistingFolder = click.Path(path_type=Path, exists=True, file_okay=False)
NoiseName = click.Choice(get_args(Noise))
GreyLevels = click.FloatRange(0, 255, min_open=True)
Positive = click.FloatRange(0, min_open=True)
ScaleName = click.Choice(get_args(NoiseScale))
LevelsName = click.Choice(get_args(NoiseLevels))
DownloadedName = click.Choice(get_args(Downloaded))
VARIANTS = get_args(Variant)
AUTOATTACK = get_args(AutoAttack)
ATTACKED_AT = "0.1,0.3,0.5,0.7,0.9,1.1,1.3,1.5"


class Numbers(click.ParamType):
    """A list of numbers with commas between."""

    name = "numbers"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> list[float]:
        """The numbers; click names the option if they are none."""
        try:
            return [float(part) for part in value.split(",")]
        except ValueError:
            self.fail(f"given {value!r}; must be numbers with commas between, such as 0.1,0.5,1", param, ctx)


class Names(click.ParamType):
    """A list of some of certain names, with commas between."""

    name = "names"

    def __init__(self, allowed: tuple[str, ...], needed: str | None = None) -> None:
        self.allowed = allowed
        self.needed = needed

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        """The names; click names the option if one is not allowed, or one is missing."""
        given = [part.strip() for part in value.split(",")] if value else []
        if not set(given) <= set(self.allowed) or (self.needed and self.needed not in given):
            needed = f", {self.needed} among them" if self.needed else ""
            allowed = ", ".join(self.allowed)
            self.fail(f"given {value!r}; must be some of {allowed}, with commas between{needed}", param, ctx)
        return given


class PictureFile(click.Path):
    """A .png to write."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path; click names the option if it is of another format."""
        path = super().convert(value, param, ctx)
        if path.suffix != ".png":
            self.fail(f"given {value!r}; must end in .png", param, ctx)
        return path


class SpecFile(click.Path):
    """A run's spec.json, or its folder."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The spec.json, which need not be there in a folder."""
        path = super().convert(value, param, ctx)
        return path / "spec.json" if path.is_dir() else path


OutPicture = PictureFile(path_type=Path, dir_okay=False)
ExistingSpec = SpecFile(path_type=Path, exists=True)

data_option = click.option(
    "--data",
    "data_path",
    type=PathType,
    help="The .npz of CIFAR, or the folder of ImageNet or your own images.  [default: as config/config.yaml says]",
)
gpus_option = click.option(
    "--gpus", type=click.IntRange(0), default=1, show_default=True, help="GPUs to hold; 0 for the CPU."
)


def _together(*options: Callable) -> Callable:
    """Some options as one decorator, in the order in which --help lists them."""
    return lambda command: functools.reduce(lambda below, option: option(below), reversed(options), command)


lambdas_option = click.option(
    "--lambdas", required=True, type=Numbers(), help="Sparsity weights to try, ascending, with commas between."
)
# Which noise is meant, and on how many images.
noise_options = _together(
    click.option("--noise", required=True, type=NoiseName, help="Which type of noise."),
    click.option(
        "--scale", type=ScaleName, default="cifar", show_default=True, help="Whose severities generated noise has."
    ),
    click.option("--noise-seed", type=click.IntRange(0), default=0, show_default=True, help="Of generated noise."),
    click.option("--official", type=ExistingFolder, help="Folder of CIFAR-10-C or ImageNet-C; else generated."),
    click.option("--images", type=AtLeast1, help="Test images, class-balanced.  [default: all]"),
)
# Of every attack.
attack_options = _together(
    click.option("--lambdas", default=ATTACKED_AT, show_default=True, type=Numbers(), help="To predict at."),
    click.option("--linf", default=8.0, show_default=True, type=GreyLevels, help="L-inf radius, in grey levels."),
    click.option("--l2", default=0.5, show_default=True, type=Positive, help="L2 radius, in pixels of 0 to 1."),
    click.option(
        "--noise", default="gaussian", show_default=True, type=NoiseName, help="Whose fitted line Algorithm 1 takes."
    ),
)
# Further ones, of attackers who know the defence.
adaptive_options = _together(
    click.option("--images", type=AtLeast1, default=1000, show_default=True, help="Test images, class-balanced."),
    click.option("--steps", type=AtLeast1, default=50, show_default=True, help="Of gradient descent."),
    click.option("--reference", type=ExistingFolder, help="An attacked ResNet-18, whose images are tried here."),
)
