"""SDNet: ResNets whose first convolution (SDNet-18, SDNet-34) or every one (-All) is a CSC layer (section 4)."""

from torch import nn

from sdnet.csc import replace_conv2d
from sdnet.models.resnet import BasicBlock, ResNet, resnet18, resnet34


def sdnet18(num_classes: int, **options) -> ResNet:
    """SDNet-18; options as in `ResNet`, and lmbd, n_iter, nonnegative as in `CSCConv2d`."""
    return _sdnet(resnet18, num_classes, **options)


def sdnet34(num_classes: int, **options) -> ResNet:
    """SDNet-34; options as in `sdnet18`."""
    return _sdnet(resnet34, num_classes, **options)


def sdnet18_all(num_classes: int, **options) -> ResNet:
    """SDNet-18-All, of 17 CSC layers; options as in `sdnet18`."""
    return _sdnet(resnet18, num_classes, throughout=True, **options)


def sdnet34_all(num_classes: int, **options) -> ResNet:
    """SDNet-34-All, of 33 CSC layers; options as in `sdnet18`."""
    return _sdnet(resnet34, num_classes, throughout=True, **options)


def _sdnet(
    resnet,
    num_classes: int,
    *,
    throughout: bool = False,
    lmbd: float = 0.1,
    n_iter: int = 2,
    nonnegative: bool = False,
    **options,
) -> ResNet:
    model = resnet(num_classes, **options)
    # ASSUME: "all convolution layers" (section D.2) are the stem's and the blocks' 3x3 ones. The 1x1 convolutions in
    # shortcuts stay, as in the released code: they make shapes fit, and are no layer on the way from image to code.
    blocks = [module for module in model.modules() if isinstance(module, BasicBlock)] if throughout else []
    for module, name in [(model, "conv1"), *((block, name) for block in blocks for name in ("conv1", "conv2"))]:
        layer = replace_conv2d(getattr(module, name), lmbd=lmbd, n_iter=n_iter, nonnegative=nonnegative)
        setattr(module, name, layer)
    if nonnegative:  # the authors' released code has no ReLU behind the batch norm of a CSC layer
        model.relu = nn.Identity()
        for block in blocks:
            # ASSUME: as in the released code, the ReLU behind the sum with a shortcut stays: it is not behind a batch
            # norm alone. Without shortcuts there is no sum, and so no ReLU in the whole network.
            block.relu1 = nn.Identity()
            if block.shortcut is None:
                block.relu2 = nn.Identity()
    return model
