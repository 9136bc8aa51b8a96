"""From a layer's code back to the image, through the learned dictionaries (section B, Eqs. 12 to 14)."""

from contextlib import ExitStack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdnet.csc.layer import CSCConv2d
from sdnet.csc.network import csc_layers, evaluation_mode

POOLS = nn.MaxPool2d | nn.AvgPool2d


@torch.no_grad()
def invert(model: nn.Module, x: Tensor, layer: int) -> Tensor:
    """Reconstruct images from the code of one CSC layer: A_1(A_2(... A_l(z_l))) (Eq. 14).

    The equation knows CSC layers alone. What stands between them is treated so: a batch norm directly behind
    a CSC layer is inverted exactly, by its running statistics; a pooling is undone by repeating each value;
    a module with a method `inverse` (input normalisation) by that; anything else, ReLU and the sum with a
    shortcut among them, is taken for the identity. Only of a network without shortcuts, whose every
    convolution is a CSC layer, is this the reconstruction that Eq. 14 describes.

    Args:
        model: a network with CSC layers; evaluated in evaluation mode, and left in the mode it was in.
        x: images, (N, M, H, W).
        layer: number of the CSC layer, from 0, as in `csc_layers(model)`.

    Returns:
        images, (N, M, H, W), in the units of x.

    Raises:
        ValueError: if there is no such layer, or the network does not run it.
    """
    layers = csc_layers(model)
    if not 0 <= layer < len(layers):
        raise ValueError(f"invert: layer is {layer}; {type(model).__name__} has {len(layers)} CSC layers, from 0")
    steps, signal = _trace(model, x, layers[layer])
    for module, size in reversed(steps):
        if isinstance(module, CSCConv2d):
            if module.adjoint(signal.new_zeros(1, module.weight.shape[1], *size)).shape[1:] == signal.shape[1:]:
                signal = module.reconstruct(signal, size)
        elif isinstance(module, nn.BatchNorm2d):
            if module.num_features == signal.shape[1]:
                signal = _undo_batch_norm(signal, module)
        elif isinstance(module, POOLS):
            signal = F.interpolate(signal, size=size, mode="nearest")
        else:
            signal = module.inverse(signal)
    return signal


def _trace(model: nn.Module, x: Tensor, last: CSCConv2d) -> tuple[list[tuple[nn.Module, torch.Size]], Tensor]:
    """The modules to be undone, in the order in which they ran up to `last`, with their input sizes; its code."""
    steps: list[tuple[nn.Module, torch.Size]] = []
    outputs: list[Tensor] = []  # of CSC layers
    codes: list[Tensor] = []  # of `last`

    def record(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if codes:
            return
        behind_csc = any(args[0] is code for code in outputs)
        if not isinstance(module, nn.BatchNorm2d) or behind_csc:
            steps.append((module, args[0].shape[-2:]))
        if isinstance(module, CSCConv2d):
            outputs.append(output)
        if module is last:
            codes.append(output.clone())  # what follows may work in place

    with ExitStack() as hooks, evaluation_mode(model):
        for module in model.modules():
            if isinstance(module, CSCConv2d | nn.BatchNorm2d | POOLS) or hasattr(module, "inverse"):
                hooks.callback(module.register_forward_hook(record).remove)
        model(x)
    if not codes:
        raise ValueError(f"invert: {type(model).__name__} has that CSC layer but does not run it")
    return steps, codes[0]


def _undo_batch_norm(signal: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """The input of a batch norm in evaluation mode, from its output (N, C, H, W)."""
    mean, std = norm.running_mean, (norm.running_var + norm.eps).sqrt()
    scale, shift = (norm.weight, norm.bias) if norm.affine else (torch.ones_like(mean), torch.zeros_like(mean))
    mean, std, scale, shift = (v.view(-1, 1, 1) for v in (mean, std, scale, shift))
    return (signal - shift) / scale * std + mean
