"""Train a run in bfloat16 on a processor without it: convolutions and matrix products of bfloat16 numbers in float32.

A processor with bfloat16 sums products in float32 and rounds the result; so does this. All else is as PyTorch has it.
Try it on a folder that holds a run's spec.json alone:

    python docs/results/small-bfloat16/emulate.py trial/resnet18/seed1/spec.json
"""

import sys
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from sdnet.commands import experiment, train

HEAVY = {"convolution", "convolution_backward", "mm", "addmm", "bmm"}


class InFloat32(TorchDispatchMode):
    """Computes what is heavy in float32 and rounds it to bfloat16, if that is what it is given."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = [one for one in args if isinstance(one, torch.Tensor)]
        if func.overloadpacket._qualified_op_name.split("::")[1] not in HEAVY or given[0].dtype != torch.bfloat16:
            return func(*args, **(kwargs or {}))
        args, kwargs = tree_map_only(torch.Tensor, lambda one: one.float(), (args, kwargs or {}))
        return tree_map_only(torch.Tensor, lambda one: one.bfloat16(), func(*args, **kwargs))


if __name__ == "__main__":
    experiment.precision_on = lambda device, wanted: wanted
    with InFloat32():
        train.train(Path(sys.argv[1]), None, gpus=0)
