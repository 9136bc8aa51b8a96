"""Speed and memory of networks, each against ResNet-18 of the same run (Tables 1 and 6)."""

import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from tqdm import tqdm

from sdnet.commands.experiment import build_model, choose_device, device_name, read_spec
from sdnet.csc import csc_layers
from sdnet.data.datasets import INFO
from sdnet.experiments import results
from sdnet.experiments.devices import lease

REFERENCE = "resnet18"
ROUNDS = 5  # of which the first warms up; the systems take turns, so that a busy machine slows all alike
SECONDS_PER_TURN = 0.5


class Contender:
    """One network with its optimiser, on random images of its data set's size."""

    def __init__(self, spec: dict, batch_size: int, device: torch.device):
        info = INFO[spec["dataset"]["name"]]
        size = spec["dataset"]["image_size"] or info.size
        self.spec, self.device, num_classes = spec, device, info.num_classes or 1000
        self.model = build_model(spec, num_classes).to(device, memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.01, momentum=0.9, nesterov=True)
        self.project = [m.project_ for m in self.model.modules() if hasattr(m, "project_")]
        self.project += [layer.update_step_size for layer in csc_layers(self.model)]
        pixels = torch.rand(batch_size, size, size, info.channels, device=device)
        self.x, self.y = pixels.permute(0, 3, 1, 2), torch.arange(batch_size, device=device) % num_classes
        self.autocast = spec["training"]["precision"] == "bfloat16"
        self.train_rates: list[float] = []
        self.inference_rates: list[float] = []

    def loss(self) -> Tensor:
        """One forward pass."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            return F.cross_entropy(self.model(self.x).float(), self.y)

    def train_step(self) -> None:
        """One whole training step."""
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss().backward()
        self.optimizer.step()
        for update in self.project:
            update()

    @torch.inference_mode()
    def inference_step(self) -> None:
        """One forward pass in evaluation mode."""
        self.model.eval()
        self.loss()

    def saved_bytes(self) -> int:
        """What a training step keeps for its backward pass, besides the parameters; shared memory counts once."""
        own = {t.untyped_storage().data_ptr() for t in (*self.model.parameters(), *self.model.buffers())}
        seen: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                seen[storage.data_ptr()] = storage.nbytes()
            return tensor

        self.model.train()
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = self.loss()
        del loss
        return sum(seen.values())


def benchmark(spec_paths: tuple[Path, ...], out: Path, batch_size: int | None, gpus: int) -> None:
    """Measure the networks of some runs in turns and write benchmark.csv.

    Raises:
        ValueError: if resnet18, which the ratios are taken against, is not among them, or several data sets are.
    """
    specs = [read_spec(path) for path in spec_paths]
    systems = [spec["system"] for spec in specs]
    if REFERENCE not in systems:
        raise ValueError(f"benchmark: {', '.join(systems)} given; {REFERENCE} must be among them, the ratios need it")
    if len({spec["dataset"]["name"] for spec in specs}) > 1:
        raise ValueError("benchmark: runs of several data sets given; a benchmark compares networks on one")
    with lease(gpus) as devices:
        device = choose_device(devices)
        contenders = [Contender(spec, batch_size or spec["training"]["batch_size"], device) for spec in specs]
        memory = [_memory(contender) for contender in contenders]
        for round_ in tqdm(range(ROUNDS), "benchmark", disable=None):
            for contender in contenders:
                rates = (_rate(contender.train_step, contender), _rate(contender.inference_step, contender))
                if round_ > 0:
                    contender.train_rates.append(rates[0])
                    contender.inference_rates.append(rates[1])
    rows = [_row(contender, *kept) for contender, kept in zip(contenders, memory, strict=True)]
    reference = rows[systems.index(REFERENCE)]
    for row in rows:
        row["train_rate_ratio"] = row["train_images_per_second"] / reference["train_images_per_second"]
        row["saved_bytes_ratio"] = row["saved_bytes"] / reference["saved_bytes"]
    results.write(out, "benchmark", rows)
    print(results.read(out, "benchmark").to_string(index=False, float_format="{:.3g}".format))


def _memory(contender: Contender) -> tuple[int, int | None]:
    saved = contender.saved_bytes()
    if contender.device.type != "cuda":
        return saved, None
    torch.cuda.reset_peak_memory_stats(contender.device)
    contender.train_step()
    return saved, torch.cuda.max_memory_allocated(contender.device)


def _rate(step, contender: Contender) -> float:
    """Images per second, over one turn."""
    steps, started, elapsed = 0, time.perf_counter(), 0.0
    while elapsed < SECONDS_PER_TURN:
        step()
        if contender.device.type == "cuda":
            torch.cuda.synchronize(contender.device)
        steps, elapsed = steps + 1, time.perf_counter() - started
    return steps * len(contender.x) / elapsed


def _row(contender: Contender, saved_bytes: int, peak_memory_bytes: int | None) -> dict:
    spec = contender.spec
    return {
        "dataset": spec["dataset"]["name"],
        "system": spec["system"],
        "width": spec["model"]["width"],
        "device": device_name(contender.device),
        "precision": spec["training"]["precision"],
        "batch_size": len(contender.x),
        "threads": torch.get_num_threads(),
        "train_images_per_second": statistics.median(contender.train_rates),
        "inference_images_per_second": statistics.median(contender.inference_rates),
        "saved_bytes": saved_bytes,
        "peak_memory_bytes": peak_memory_bytes,
    }
