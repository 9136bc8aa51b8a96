"""From a layer's code back to the image, through the learned dictionaries (section B, Eqs. 12 to 14)."""

from contextlib import ExitStack

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sdnet.csc.layer import CSCConv2d
from sdnet.csc.network import csc_layers, evaluation_mode, uncompiled

POOLS = nn.MaxPool2d | nn.AvgPool2d


@torch.no_grad()
def invert(model: nn.Module, x: Tensor, layer: int) -> Tensor:
    """Reconstruct images from the code of one CSC layer: A_1(A_2(... A_l(z_l))) (Eq. 14).

    The equation knows CSC layers alone. What stands between them is treated so: a batch norm is inverted exactly, by
    its running statistics; a pooling is undone by repeating each value; a module with a method `inverse` (input
    normalisation) by that; a ReLU is taken for the identity, since what it cut off is lost. Nothing else may stand
    there, so that a layer behind a shortcut, whose sum no equation takes apart, is refused. A network without
    shortcuts and without ReLU (`shortcut=False, nonnegative=True` of the -All networks) is the one that Eq. 14
    describes: what its images lose is what its codes do not reconstruct.

    Args:
        model: a network with CSC layers; evaluated in evaluation mode, and left in the mode it was in.
        x: images, (N, M, H, W).
        layer: number of the CSC layer, from 0, as in `csc_layers(model)`.

    Returns:
        images, (N, M, H, W), in the units of x.

    Raises:
        ValueError: if there is no such layer, the network does not run it, or something between the image and
            its code cannot be undone.
    """
    layers = csc_layers(model)
    if not 0 <= layer < len(layers):
        raise ValueError(f"invert: layer is {layer}; {type(model).__name__} has {len(layers)} CSC layers, from 0")
    steps, signal = _trace(model, x, layers[layer])
    for module, size in reversed(steps):
        if isinstance(module, CSCConv2d):
            signal = module.reconstruct(signal, size)
        elif isinstance(module, _BatchNorm):
            signal = _undo_batch_norm(signal, module)
        elif isinstance(module, POOLS):
            signal = F.interpolate(signal, size=size, mode="nearest")
        elif hasattr(module, "inverse"):
            signal = module.inverse(signal)
    return signal


def _trace(model: nn.Module, x: Tensor, last: CSCConv2d) -> tuple[list[tuple[nn.Module, torch.Size]], Tensor]:
    """The modules to be undone, in the order in which they ran up to `last`, with their input sizes; its code."""
    names = {module: name for name, module in model.named_modules()}
    steps: list[tuple[nn.Module, torch.Size]] = []
    codes: list[Tensor] = []  # of `last`
    newest, version = x, _version(x)

    def check(module: nn.Module, args: tuple, kwargs: dict) -> None:
        given = next(iter((*args, *kwargs.values())), None)
        if not codes and (given is not newest or _version(newest) != version):
            before = names[steps[-1][0]] if steps else "the image"
            raise ValueError(
                f"invert: {names[module]} leaves the chain of layers that Eq. 14 undoes (its input is not what "
                f"{before} gave); nothing behind a shortcut can be undone: take an earlier layer, or shortcut=False"
            )

    def record(module: nn.Module, args: tuple, kwargs: dict, output: Tensor) -> None:
        nonlocal newest, version
        if codes:
            return
        undone = isinstance(module, CSCConv2d | _BatchNorm | POOLS | nn.ReLU) or hasattr(module, "inverse")
        if not (undone or _passes_on(module)) or not isinstance(output, Tensor):
            raise ValueError(f"invert: {names[module]}, a {type(module).__name__}, cannot be undone")
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            raise ValueError(f"invert: {names[module]} keeps no running statistics, by which batch norm is undone")
        if isinstance(module, _BatchNorm) and module.affine and not module.weight.all():
            raise ValueError(f"invert: {names[module]} scales a channel by 0, which cannot be undone")
        steps.append((module, newest.shape[-2:]))
        newest, version = output, _version(output)
        if module is last:
            codes.append(output.clone())  # what follows may work in place

    with ExitStack() as hooks, evaluation_mode(model), uncompiled():
        for module in model.modules():
            if not list(module.children()):
                hooks.callback(module.register_forward_pre_hook(check, with_kwargs=True).remove)
                hooks.callback(module.register_forward_hook(record, with_kwargs=True).remove)
        model(x)
    if not codes:
        raise ValueError(f"invert: {type(model).__name__} has that CSC layer but does not run it")
    return steps, codes[0]


def _passes_on(module: nn.Module) -> bool:
    """Whether a module returns its input unchanged. Dropout counts: it does so in evaluation mode."""
    empty = isinstance(module, nn.Sequential) and not len(module)
    return empty or isinstance(module, nn.Identity | nn.modules.dropout._DropoutNd)


def _version(signal: Tensor) -> int:
    """How often it was changed in place, where torch counts that."""
    return 0 if signal.is_inference() else signal._version


def _undo_batch_norm(signal: Tensor, norm: _BatchNorm) -> Tensor:
    """The input of a batch norm in evaluation mode, from its output (N, C, H, W)."""
    mean, std = norm.running_mean, (norm.running_var + norm.eps).sqrt()
    scale, shift = (norm.weight, norm.bias) if norm.affine else (torch.ones_like(mean), torch.zeros_like(mean))
    mean, std, scale, shift = (v.view(-1, 1, 1) for v in (mean, std, scale, shift))
    return (signal - shift) / scale * std + mean
