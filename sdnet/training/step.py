"""One step of the projected SGD of section 3.2; a GPU records it once, as a CUDA graph, and then replays it.

At the sizes of CIFAR the kernels of a step are done before the host has issued the next one's: replayed, they follow
each other at once.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdnet.csc import update_dictionaries
from sdnet.training import distributed
from sdnet.training.precision import autocast

RECORDING = ("cuda",)  # kinds of device that record
WARM_UP = 3  # steps before it is recorded, in which libraries choose their algorithms, and momentum comes to be


class TrainingStep:
    """Forward and backward pass, optimiser step, and what every module with constraints does after it.

    On a GPU, steps of the first batch's shape are replayed after the first few. Replaying computes the same numbers.
    This needs a network that issues the same kernels in every step, whatever the data. One that does not must set
    `waits_for_gpu = True`; its steps are then not recorded, and neither are those of processes that share a training
    and of other optimisers than SGD.

    Args:
        model: the network, in training mode; its modules' `project_` and `update_step_size` follow each step.
        network: computes what `model` does, and makes processes that share the training agree on its gradients.
        optimiser: of the network's parameters.
        precision: "bfloat16" (autocast) or "float32".
        device: where the network is.
    """

    def __init__(
        self,
        model: nn.Module,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        precision: str,
        device: torch.device,
    ):
        self.model, self.network, self.optimiser = model, network, optimiser
        self.precision, self.device = precision, device
        self._recording = (
            device.type in RECORDING
            and isinstance(optimiser, torch.optim.SGD)
            and distributed.size() == 1
            and not any(getattr(module, "waits_for_gpu", False) for module in model.modules())
        )
        self._graph, self._shape, self._seen = None, None, 0
        if self._recording:  # what is replayed reads the learning rate on the device
            for group in optimiser.param_groups:
                group |= {"lr": torch.full((), group["lr"], device=device), "fused": True, "foreach": False}

    def __call__(self, x: Tensor, y: Tensor, learning_rate: float) -> Tensor:
        """Train on a batch of images (N, M, H, W) in [0, 1] and labels (N,).

        Returns:
            the sum of the losses in nats, the hits and the images of the batch, over all processes: (3,), float64,
            good until the next step.

        Raises:
            RuntimeError: from the network; also if a step of it cannot be recorded.
        """
        for group in self.optimiser.param_groups:
            if self._recording:
                group["lr"].fill_(learning_rate)
            else:
                group["lr"] = learning_rate
        self._shape = self._shape or x.shape
        if not self._recording or x.shape != self._shape:
            return self._issue(x, y)
        self._seen += 1
        if self._seen <= WARM_UP:
            return self._issue(x, y)
        if self._graph is None:
            self._record(x, y)
        self._x.copy_(x)
        self._y.copy_(y)
        self._graph.replay()
        return self._counts

    def _issue(self, x: Tensor, y: Tensor) -> Tensor:
        self.optimiser.zero_grad(set_to_none=True)
        with autocast(self.precision, self.device):
            logits = self.network(x).float()
        losses = F.cross_entropy(logits, y, reduction="none")
        hits = logits.argmax(1) == y
        counts = distributed.total(torch.stack([losses.detach(), hits, torch.ones_like(hits)]).sum(1).double())
        # The mean over the whole batch; the gradients are averaged over the processes.
        (losses.sum() * distributed.size() / counts[2].float()).backward()
        self.optimiser.step()
        update_dictionaries(self.model)
        return counts

    def _record(self, x: Tensor, y: Tensor) -> None:
        self._x, self._y, self._graph = x.clone(), y.clone(), torch.cuda.CUDAGraph()
        try:
            # Other threads go on meanwhile: one pins the memory of the images that are read.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._counts = self._issue(self._x, self._y)
        except RuntimeError as error:
            cause = error.__context__ or error  # recording that fails ends with an error of its own
            if isinstance(cause, torch.OutOfMemoryError):
                raise cause from None
            reason = str(cause).strip().partition("\n")[0]
            raise RuntimeError(
                f"a training step of this network cannot be recorded on the GPU ({reason}); if it waits for numbers "
                "from the GPU, give the module that does so the attribute waits_for_gpu = True"
            ) from error
