"""Convolutional sparse coding: the layer of the paper, for any network. Imports torch alone."""

from sdnet.csc.fista import fista, soft_threshold
from sdnet.csc.inversion import invert
from sdnet.csc.layer import CSCConv2d
from sdnet.csc.network import (
    csc_layers,
    evaluation_mode,
    record_residuals,
    training_lambda,
    update_dictionaries,
    use_lambda,
)
from sdnet.csc.operators import adjoint, reconstruct
from sdnet.csc.replace import replace_conv2d
from sdnet.csc.step_size import power_iteration

__all__ = [
    "CSCConv2d",
    "adjoint",
    "csc_layers",
    "evaluation_mode",
    "fista",
    "invert",
    "power_iteration",
    "reconstruct",
    "record_residuals",
    "replace_conv2d",
    "soft_threshold",
    "training_lambda",
    "update_dictionaries",
    "use_lambda",
]
