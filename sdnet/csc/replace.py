"""Put CSC layers into an existing network (section 3.2)."""

from typing import Literal

from torch import nn

from sdnet.csc.layer import CSCConv2d


def replace_conv2d(model: nn.Module, which: Literal["first", "all"] = "first", **csc_options) -> nn.Module:
    """Replace the first, or every, `nn.Conv2d` of a network by a CSC layer of the same shapes.

    The dictionaries start anew, and a bias is dropped: a code has none. All other layers stay; those with
    `inplace = True` copy from now on, since the codes are needed for the gradient. (What works in place in a `forward`
    of your own, as `x += 1`, has to be changed there.) With "all", have normalisations between the convolutions: a
    layer whose input is small beside lmbd has a code of zeros, and learns nothing. Call `update_dictionaries(model)`
    after each optimiser step when training.

    Args:
        model: any network; changed in place. If it is itself an `nn.Conv2d`, the layer is returned.
        which: "first" in the order of `model.modules()` (as in SDNet), or "all", shortcuts of 1x1 too, which SDNet-All
            leaves as they are.
        **csc_options: lmbd, n_iter and nonnegative of `CSCConv2d`.

    Returns:
        the network.

    Raises:
        ValueError: if `which` or an option is unknown, there is no `nn.Conv2d` to replace, or one of those to be
            replaced is grouped, dilated or not zero-padded by a number, which the model of Eq. 3 has not, or of a class
            with a forward of its own.
    """
    if wrong := csc_options.keys() - {"lmbd", "n_iter", "nonnegative"}:
        raise ValueError(f"replace_conv2d: given {', '.join(sorted(wrong))}; allowed are lmbd, n_iter and nonnegative")
    if which not in ("first", "all"):
        raise ValueError(f'replace_conv2d: which is {which!r}; allowed are "first" and "all"')
    places: dict[nn.Conv2d, list[str]] = {}  # a convolution may stand in several
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, nn.Conv2d):
            places.setdefault(module, []).append(name)
    if not places:
        raise ValueError(f"replace_conv2d: {type(model).__name__} has no nn.Conv2d to replace")
    chosen = list(places)[:1] if which == "first" else list(places)
    layers = [(places[conv], _csc_layer(places[conv][0], conv, csc_options)) for conv in chosen]
    for module in model.modules():
        if getattr(module, "inplace", False):
            module.inplace = False
    for name, layer in ((name, layer) for names, layer in layers for name in names):
        if name == "":
            return layer
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer)
    return model


def _csc_layer(name: str, conv: nn.Conv2d, csc_options: dict) -> CSCConv2d:
    plain = conv.groups == 1 and conv.dilation == (1, 1) and conv.padding_mode == "zeros"
    changed = any(getattr(type(conv), f) is not getattr(nn.Conv2d, f) for f in ("forward", "_conv_forward"))
    if not plain or changed or isinstance(conv.padding, str):
        raise ValueError(
            f"replace_conv2d: {name or 'the convolution'} is {conv}{', with a forward of its own' if changed else ''}; "
            "only undilated, ungrouped convolutions with zero padding in pixels can be replaced; call replace_conv2d "
            "on a part of the network that has no others"
        )
    layer = CSCConv2d(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, **csc_options)
    return layer.to(conv.weight).train(conv.training)
