"""Every network of the paper's tables, by name."""

from torch import nn

from sdnet.models.mdeq import mdeq
from sdnet.models.normalize import Normalize
from sdnet.models.resnet import resnet18, resnet34
from sdnet.models.scn import scn, scn18
from sdnet.models.sdnet import sdnet18, sdnet18_all, sdnet34, sdnet34_all

MODELS = {
    "resnet18": resnet18,
    "resnet34": resnet34,
    "mdeq": mdeq,
    "scn": scn,
    "scn18": scn18,
    "sdnet18": sdnet18,
    "sdnet34": sdnet34,
    "sdnet18-all": sdnet18_all,
    "sdnet34-all": sdnet34_all,
}

__all__ = ["MODELS", "Normalize", "build"]


def build(name: str, num_classes: int, *, width: int = 64, small_input: bool = True, **options) -> nn.Module:
    """A freshly initialised network of the paper.

    Args:
        name: one of `MODELS`.
        num_classes: size of the output.
        width: channels of the first stage; 64 is the paper's.
        small_input: CIFAR-size images and stem; else the ImageNet stem.
        **options: of the network, e.g. lmbd, n_iter, nonnegative, shortcut (SDNet), in_channels.

    Raises:
        ValueError: if the name is unknown, or a number does not suit the network.
        TypeError: for an option that the network does not have.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; the models are {', '.join(MODELS)}")
    return MODELS[name](num_classes, width=width, small_input=small_input, **options)
