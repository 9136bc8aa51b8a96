"""What is done to all CSC layers of a network at once."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn

from sdnet.csc.layer import CSCConv2d


def csc_layers(model: nn.Module) -> list[CSCConv2d]:
    """The CSC layers of a network, in the order of `model.modules()`; empty if it has none."""
    return [module for module in model.modules() if isinstance(module, CSCConv2d)]


def required_csc_layers(model: nn.Module, caller: str) -> list[CSCConv2d]:
    """The CSC layers of a network, for a function that needs some.

    Raises:
        ValueError: if it has none.
    """
    layers = csc_layers(model)
    if not layers:
        raise ValueError(
            f"{caller}: {type(model).__name__} has no CSC layer, so there is no lambda and no residual; "
            f"give it one with replace_conv2d"
        )
    return layers


def training_lambda(model: nn.Module) -> float | None:
    """The sparsity weight that a network is trained at; None without CSC layers.

    Raises:
        ValueError: if its layers have different ones.
    """
    values = sorted({layer.lmbd for layer in csc_layers(model)})
    if len(values) > 1:
        raise ValueError(
            f"{type(model).__name__} has CSC layers of lambda {' and '.join(f'{value:g}' for value in values)}; "
            "give lambda0, the one for all at which residuals are measured"
        )
    return values[0] if values else None


def update_dictionaries(model: nn.Module) -> None:
    """Project every module that has a `project_` and renew the step sizes: call it after each optimiser step.

    The step sizes follow small changes. After a large one, such as other weights, call each layer's `update_step_size`.
    """
    for module in model.modules():
        if hasattr(module, "project_"):
            module.project_()
    for layer in csc_layers(model):
        layer.update_step_size(warm=True)


@contextmanager
def use_lambda(model: nn.Module, value: float) -> Iterator[None]:
    """Evaluate every CSC layer at another sparsity weight (section 3.3); the previous ones return at the end.

    The weight is the network's: threads that share a network share it, and where their times overlap, the previous one
    need not return; give each its own copy. Where layers are checkpointed, go backward
    within, too: their codes are computed again then.

    Raises:
        ValueError: if the network has no CSC layer, or value is negative or not finite.
    """
    layers = required_csc_layers(model, "use_lambda")
    previous = [layer.lmbd for layer in layers]
    try:
        for layer in layers:
            layer.lmbd = value
        yield
    finally:
        for layer, lmbd in zip(layers, previous, strict=True):
            layer.lmbd = lmbd


@contextmanager
def record_residuals(model: nn.Module) -> Iterator[list[Tensor]]:
    """Record the residual ||x - A(z)||_2 of each image at each CSC layer (section 3.3).

    Yields:
        a list with one tensor per CSC layer, in the order of `csc_layers`. Each holds one norm per
        image, in the units of that layer's input, and grows by N with each forward pass of N images.

    Raises:
        ValueError: if the network has no CSC layer.
    """
    layers = required_csc_layers(model, "record_residuals")
    residuals = [
        layer.weight.new_empty(0, dtype=torch.promote_types(layer.weight.dtype, torch.float32)) for layer in layers
    ]

    @torch.no_grad()
    def record(i: int, layer: CSCConv2d, x: Tensor, z: Tensor) -> None:
        norms = (x - layer.reconstruct(z, x.shape[-2:])).flatten(1).norm(dim=1)
        residuals[i] = torch.cat([residuals[i], norms.to(residuals[i])])

    with after_each_code(layers, record):
        yield residuals


@contextmanager
def after_each_code(
    layers: list[CSCConv2d], function: Callable[[int, CSCConv2d, Tensor, Tensor], Tensor | None]
) -> Iterator[None]:
    """Call a function whenever one of some layers has computed a code; what it returns, if anything, takes its place.

    Compiled networks run uncompiled meanwhile: compiled code ignores hooks that were registered after it.

    Args:
        layers: whose codes.
        function: of the number of the layer among these, the layer, its input and its code.
    """

    def call(i: int, layer: CSCConv2d, args: tuple, kwargs: dict[str, Tensor], z: Tensor) -> Tensor | None:
        (x,) = (*args, *kwargs.values())
        return function(i, layer, x, z)

    handles = [layer.register_forward_hook(partial(call, i), with_kwargs=True) for i, layer in enumerate(layers)]
    try:
        with uncompiled():
            yield
    finally:
        for handle in handles:
            handle.remove()


def uncompiled() -> AbstractContextManager:
    """Compiled networks run uncompiled for a while."""
    # Where nothing is compiled, to ask torch would import what compiles, which takes seconds.
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; afterwards every module is in the mode it was in."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode
