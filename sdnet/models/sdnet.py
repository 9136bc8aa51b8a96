"""SDNet-18 and SDNet-34: ResNets whose first convolution is a CSC layer (section 4)."""

from torch import nn

from sdnet.csc import replace_conv2d
from sdnet.models.resnet import ResNet, resnet18, resnet34


def sdnet18(num_classes: int, **options) -> ResNet:
    """SDNet-18; options as in `ResNet`, and lmbd, n_iter, nonnegative as in `CSCConv2d`."""
    return _with_csc_stem(resnet18, num_classes, **options)


def sdnet34(num_classes: int, **options) -> ResNet:
    """SDNet-34; options as in `ResNet`, and lmbd, n_iter, nonnegative as in `CSCConv2d`."""
    return _with_csc_stem(resnet34, num_classes, **options)


def _with_csc_stem(
    resnet, num_classes: int, *, lmbd: float = 0.1, n_iter: int = 2, nonnegative: bool = False, **options
) -> ResNet:
    model = resnet(num_classes, **options)
    replace_conv2d(model, "first", lmbd=lmbd, n_iter=n_iter, nonnegative=nonnegative)
    if nonnegative:  # the authors' released code has no ReLU behind the batch norm of a CSC layer
        model.relu = nn.Identity()
    return model
