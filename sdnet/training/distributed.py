"""Training shared among processes: each has the network and a part of every batch (DistributedDataParallel, torchrun).

Whatever the number of processes, a run ends in the same weights, to within rounding: the gradient is that of the mean
loss over the whole batch, and batch norms take the statistics of the whole batch. So the number of GPUs is no part of
an experiment, and a run that got fewer of them this time goes on where it was. (MDEQ alone draws random numbers as
it trains, its dropout masks: each process draws the same ones, for its own images, until a batch that does not divide
evenly; what is resumed after one has other masks than a training that never stopped.)
ASSUME: the paper does not say how its 4 GPUs shared the batch norms; usual is statistics of each GPU's own part, whose
results depend on the number of GPUs.
"""

import logging
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sdnet.processes import end_with


def launched() -> bool:
    """Whether this is one of torchrun's processes."""
    return dist.is_available() and dist.is_torchelastic_launched()


def launch(count: int, function: Callable, *args) -> None:
    """Call a function in `count` new processes, and wait for them. torchrun does it, as a library.

    Should one fail, all are stopped; should this process end, however it ends, they end with it (on Linux).

    Args:
        count: how many.
        function: of a module; what it does first is to enter `joined`.
        *args: its arguments.

    Raises:
        ChildProcessError: if one of them failed or was killed; the message says which, and why.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher import LaunchConfig, elastic_launch

    logging.disable()  # it prints in many lines what is raised here in one
    try:
        with tempfile.TemporaryDirectory(prefix="sdnet-") as folder:
            config = LaunchConfig(
                min_nodes=1,
                max_nodes=1,
                nproc_per_node=count,
                run_id="sdnet",
                rdzv_backend="c10d",
                rdzv_endpoint="localhost:0",  # any free port
                local_addr="localhost",
                max_restarts=0,
                logs_specs=DefaultLogsSpecs(folder),
            )
            threads = max(1, torch.get_num_threads() // count)
            elastic_launch(config, _start)(os.getpid(), threads, function, *args)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            reason = f"was killed ({failure.signal_name()}); the same command goes on from the last checkpoint"
        elif isinstance(failure.message, dict):
            reason = f"failed: {' '.join(failure.message['message'].split())}"
        else:
            reason = f"ended with exit code {failure.exitcode}"
        raise ChildProcessError(f"process {rank + 1} of {count} {reason}") from error
    except SignalException:
        raise KeyboardInterrupt from None
    finally:
        logging.disable(logging.NOTSET)


def _start(launcher: int, threads: int, function: Callable, *args) -> None:
    end_with(launcher)
    # On Ctrl-C end at once: Python's handler would run after a collective operation, whose other processes are gone.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    multiprocessing.set_start_method(None, force=True)  # the loader's workers start in the platform's usual way
    torch.set_num_threads(threads)
    try:
        function(*args)
    except RuntimeError:  # as of a collective operation whose other process is gone: let that one be found first
        time.sleep(5)
        raise


@contextmanager
def joined(gpu: bool) -> Iterator[torch.device]:
    """Be one of torchrun's processes for a while; yields the device of this one, the CPU or the GPU of its number.

    Raises:
        ValueError: if there is no such GPU.
    """
    if gpu:
        device, found = torch.device("cuda", int(os.environ["LOCAL_RANK"])), torch.cuda.device_count()
        if device.index >= found:
            raise ValueError(f"torchrun started {os.environ['LOCAL_WORLD_SIZE']} processes here, for {found} GPUs")
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", device_id=device)
    else:
        device = torch.device("cpu")
        dist.init_process_group("gloo")
    yield device
    dist.destroy_process_group()  # not after an error, when it could wait for processes that are gone


def size() -> int:
    """How many processes share the training; 1 outside `joined`."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0; the first one writes and reports."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def agree(epochs: int, device: torch.device) -> None:
    """Raise unless all processes have seen as many epochs; they would end in the weights of none of them.

    Raises:
        ValueError: in every process.
    """
    if size() == 1:
        return
    ends = torch.tensor([epochs, -epochs], device=device)
    dist.all_reduce(ends, dist.ReduceOp.MAX)
    most, least = ends[0].item(), -ends[1].item()
    if least < most:
        raise ValueError(
            f"the processes found checkpoints of different epochs, {least} to {most}: all must see the same folder"
        )


def total(values: Tensor) -> Tensor:
    """The sum over all processes, exact for counts; gradients pass through."""
    return _Total.apply(values) if size() > 1 else values


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        values = values.clone()
        dist.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return _Total.apply(gradient)


def shared(model: nn.Module, device: torch.device) -> nn.Module:
    """What to call in place of a network while training, so that all processes keep the same weights.

    A backward pass averages the gradients over the processes. Batch norms are replaced in place by ones whose
    statistics are those of all processes. Parameters, buffers and their names stay as they are; a process alone gets
    the network back unchanged.
    """
    if size() == 1:
        return model
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    else:
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.__class__ = _BatchNormOfAll
    return nn.parallel.DistributedDataParallel(model)


class _BatchNormOfAll(_BatchNorm):
    """What torch's `SyncBatchNorm` does, which needs a GPU, in plain operations for the CPU."""

    def _check_input_dim(self, x: Tensor) -> None:
        """Torch asks for it; any number of dimensions will do."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        signal = x.to(torch.promote_types(x.dtype, torch.float32))
        summed, shape = (0, *range(2, x.dim())), (-1, *(1 for _ in x.shape[2:]))
        count = total(signal.new_tensor(signal.numel() / signal.shape[1]))
        mean = total(signal.sum(summed)) / count
        centred = signal - mean.view(shape)
        variance = total(centred.square().sum(summed)) / count
        if self.track_running_stats:
            with torch.no_grad():
                self.num_batches_tracked += 1
                share = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean, share)
                self.running_var.lerp_(variance * count / (count - 1), share)
        out = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(x)
