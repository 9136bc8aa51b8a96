"""A network to be measured: its steps, what a training step keeps for its backward pass, and how fast they are."""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from sdnet.data.datasets import INFO
from sdnet.runs.device import precision_on
from sdnet.runs.network import build_model
from sdnet.runs.spec import image_size
from sdnet.training.precision import autocast
from sdnet.training.step import WARM_UP, TrainingStep

LEARNING_RATE = 0.01
SECONDS_PER_TURN = 0.1


class Contender:
    """One network with its optimiser, on random images of its data set's size."""

    def __init__(self, spec: dict, batch_size: int, device: torch.device):
        info = INFO[spec["dataset"]["name"]]
        size = image_size(spec)
        self.spec, self.device, num_classes = spec, device, info.num_classes or 1000
        self.model = build_model(spec, num_classes).to(device, memory_format=torch.channels_last)
        pixels = torch.rand(batch_size, size, size, info.channels, device=device)
        self.x, self.y = pixels.permute(0, 3, 1, 2), torch.arange(batch_size, device=device) % num_classes
        self.precision = precision_on(device, spec["training"]["precision"])
        optimiser = torch.optim.SGD(self.model.parameters(), LEARNING_RATE, momentum=0.9, nesterov=True)
        self.step = TrainingStep(self.model, self.model, optimiser, self.precision, device)

    def loss(self) -> Tensor:
        """One forward pass."""
        with autocast(self.precision, self.device):
            return F.cross_entropy(self.model(self.x).float(), self.y)

    def train_step(self) -> None:
        """One whole training step, as in a training."""
        self.model.train()
        self.step(self.x, self.y, LEARNING_RATE)

    @torch.inference_mode()
    def inference_step(self) -> None:
        """One forward pass in evaluation mode."""
        self.model.eval()
        self.loss()

    def gradient_step(self) -> None:
        """A forward pass in evaluation mode and the gradient by the images, as attacks take it."""
        self.model.eval()
        self.x.requires_grad_()
        torch.autograd.grad(self.loss(), self.x)
        self.x.requires_grad_(False)

    def saved_bytes(self) -> int:
        """What a training step keeps for its backward pass, besides the parameters; shared memory counts once."""
        own = {t.untyped_storage().data_ptr() for t in (*self.model.parameters(), *self.model.buffers())}
        seen: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                seen[storage.data_ptr()] = storage.nbytes()
            return tensor.detach()  # a step's own output would keep the step alive

        self.model.train()
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = self.loss()
        del loss
        return sum(seen.values())


def warm_up(step: Callable[[], None], contender: Contender) -> None:
    """Call a step until it is as fast as it gets: on a GPU until it is recorded."""
    for _ in range(WARM_UP + 1 if contender.device.type == "cuda" else 1):
        step()


def rates(step: Callable[[], None], contender: Contender, seconds: float = SECONDS_PER_TURN) -> tuple[float, float]:
    """Images per second of a step, over one turn: by the clock, and by the time that this process had a processor."""
    steps, started, busy, elapsed = 0, time.perf_counter(), time.process_time(), 0.0
    while elapsed < seconds:
        step()
        if contender.device.type == "cuda":
            torch.cuda.synchronize(contender.device)
        steps, elapsed = steps + 1, time.perf_counter() - started
    images = steps * len(contender.x)
    return images / elapsed, images / (time.process_time() - busy)
