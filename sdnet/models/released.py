"""Networks in the layout of the authors' released checkpoints (github.com/Delay-Xili/SDNet), which is not ours.

Their -All networks for ImageNet have a CSC layer in place of the max pooling. None was released, and none is read here.
"""

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sdnet.csc import CSCConv2d, csc_layers, evaluation_mode

DEPTHS = {8: 18, 16: 34}  # of a ResNet, by its number of blocks
NAMED = 3  # how many wrong keys an error names


@dataclass(frozen=True)
class Variant:
    """The network that a released state is of, as `build` makes it."""

    name: str
    num_classes: int
    width: int
    small_input: bool
    in_channels: int
    options: dict


def variant_of(state: dict[str, Tensor]) -> Variant:
    """Which network of ours a released state is of.

    ASSUME: lambda and the number of iterations are not in it; they are 0.1 and 2, as in the released configuration,
    which has non-negative codes and no ReLU behind them.

    Raises:
        ValueError: if it is no SDNet-18 or SDNet-34 in the released layout.
    """
    state = _plain_names(state)
    wanted = ("layer0.0.dn.weight", "linear.weight", "layer1.0.bn2.weight")
    if missing := [key for key in wanted if not isinstance(state.get(key), Tensor)]:
        raise ValueError(f"no SDNet in the released layout: without {_first(missing)}; it has {_first(list(state))}")
    blocks = sum(bool(re.fullmatch(r"layer[1-4]\.\d+\.bn2\.weight", key)) for key in state)
    if blocks not in DEPTHS:
        raise ValueError(f"no SDNet-18 or SDNet-34: it has {blocks} blocks, they have {' or '.join(map(str, DEPTHS))}")
    every = "layer1.0.conv1.dn.weight" in state
    stem, linear = state["layer0.0.dn.weight"], state["linear.weight"]
    if (stem.dim(), linear.dim()) != (4, 2) or not (stem.numel() and linear.numel()):
        raise ValueError(
            f"no SDNet in the released layout: layer0.0.dn.weight is {tuple(stem.shape)} and linear.weight "
            f"{tuple(linear.shape)}; they must be (atoms, channels, k, k) and (classes, features)"
        )
    options = {"nonnegative": True} | ({} if any(".shortcut." in key for key in state) else {"shortcut": False})
    return Variant(
        name=f"sdnet{DEPTHS[blocks]}{'-all' if every else ''}",
        num_classes=len(linear),
        width=len(stem),
        small_input=stem.shape[-1] == 3,
        in_channels=stem.shape[1],
        options=options,
    )


def load_released(network: nn.Module, state: dict[str, Tensor], image_size: tuple[int, int]) -> None:
    """Give a network, built as `variant_of` says, the weights of a released state.

    The step sizes are computed anew from the dictionaries: the released layer goes on with its power iteration in
    evaluation, from a vector that its checkpoints lack.

    Args:
        network: one of `build`.
        state: the released one.
        image_size: height and width of the images that it is for.

    Raises:
        ValueError: if keys are missing or unknown, or shapes differ; the first few are named.
    """
    given = {key: value for key, value in _plain_names(state).items() if not key.endswith(".dn.step_size")}
    ours = {key: value for key, value in network.state_dict().items() if not key.endswith(("step_size", "eigenvector"))}
    csc = {name for name, module in network.named_modules() if isinstance(module, CSCConv2d)}
    names = {_released_name(key, csc): key for key in ours}
    shapes = {name: (tuple(given[name].shape), tuple(ours[key].shape)) for name, key in names.items() if name in given}
    wrong = {
        "missing": [name for name in names if name not in given],
        "unknown": [name for name in given if name not in names],
        "of another shape": [f"{name} {a} for {b}" for name, (a, b) in shapes.items() if a != b],
    }
    if any(wrong.values()):
        raise ValueError("; ".join(f"{what}: {_first(keys)}" for what, keys in wrong.items() if keys))
    network.load_state_dict(network.state_dict() | {key: given[name] for name, key in names.items()})
    with torch.no_grad(), evaluation_mode(network):
        for layer in csc_layers(network):
            layer.train()  # in this mode it takes note of the size of its images
        network(torch.zeros(1, network.conv1.weight.shape[1], *image_size))
    for layer in csc_layers(network):
        layer.project_()
        layer.update_step_size()


def _plain_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The -All networks keep each stage's blocks in a module `layers`."""
    return {key.replace(".layers.", "."): value for key, value in state.items()}


def _released_name(key: str, csc: set[str]) -> str:
    module, _, entry = key.rpartition(".")
    name = {"conv1": "layer0.0", "bn1": "layer0.1", "fc": "linear"}.get(module, module)
    return f"{name}.dn.{entry}" if module in csc else f"{name}.{entry}"


def _first(keys: list[str]) -> str:
    more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
    return (", ".join(map(str, keys[:NAMED])) or "nothing") + more
