"""The training loop (Eq. 5 and section 4, "Network training")."""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from sdnet.data.loaders import Loader
from sdnet.training import distributed
from sdnet.training.checkpoint import latest_checkpoint, save_checkpoint
from sdnet.training.deterministic import deterministic_algorithms
from sdnet.training.evaluate import evaluate
from sdnet.training.schedule import learning_rate_factor
from sdnet.training.step import TrainingStep


class TrainingDiverged(ArithmeticError):
    """The loss or a weight became infinite or not a number."""


def fit(
    model: nn.Module,
    train: Loader,
    test: Loader,
    *,
    checkpoints: Path,
    epochs: int,
    learning_rate: float = 0.1,
    optimizer: str = "sgd",
    momentum: float = 0.9,
    nesterov: bool = True,
    weight_decay: float = 5e-4,
    schedule: str = "cosine",
    milestones: Sequence[float] = (),
    precision: str = "bfloat16",
    deterministic: bool = False,
    provenance: dict | None = None,
    device: torch.device,
) -> Iterator[list[dict]]:
    """Train a network, epoch by epoch, from its last checkpoint if there is one.

    The projected SGD of section 3.2: after each optimiser step every module that has a `project_`
    method is projected, and every CSC layer renews its step size. A run that was killed goes on from
    the last whole epoch; on the CPU it ends in the very same weights. Processes that share a training
    (`distributed`) call this alike, each with its shard of the images; the first one writes.

    Args:
        model: maps images in [0, 1] to logits; moved to `device` and trained in place.
        train: of augmented images.
        test: of test images, evaluated after each epoch. Nothing is chosen by it.
        checkpoints: folder of this run's checkpoints, and of no other run's.
        epochs: number of passes over the training images.
        learning_rate: the initial one.
        optimizer: "sgd" or "adam"; momentum and nesterov are those of "sgd".
        momentum: of SGD.
        nesterov: Nesterov's form of the momentum.
        weight_decay: on every parameter. ASSUME: on dictionaries, too, which are projected afterwards.
        schedule: "cosine", or "multistep" with a tenth of the rate after each milestone.
        milestones: as shares of the training, 0 to 1.
        precision: "bfloat16" (autocast) or "float32".
        deterministic: the same weights and scores each time on a GPU, too, to the bit, see `deterministic_algorithms`.
        provenance: what the checkpoints shall say of this process, in plain values. Their `trained_by` lists the first
            epoch of each process that trained them, with its provenance.
        device: where to train, in this process.

    Yields:
        after each epoch the whole history, one dict per epoch (columns as in a run's history.csv);
        once at the start if there is a checkpoint to go on from.

    Raises:
        ValueError: if a loader has no image, the optimizer, schedule or precision is none of those above, a batch has
            fewer images than there are processes to share it, these go on from different epochs, or more than
            `epochs` are trained.
        TrainingDiverged: if the loss or a weight is not finite; the last good checkpoint stays.
    """
    optimizers = {"sgd": partial(torch.optim.SGD, momentum=momentum, nesterov=nesterov), "adam": torch.optim.Adam}
    if optimizer not in optimizers:
        raise ValueError(f"optimizer {optimizer!r} is unknown; choose {' or '.join(optimizers)}")
    for name, loader in {"train": train, "test": test}.items():
        if not loader.num_images:
            raise ValueError(f"fit: {name} has no image")
    if distributed.size() > (fewest := train.num_images % train.batch_size or train.batch_size):
        raise ValueError(
            f"the last batch of an epoch, of {fewest}, cannot be shared by {distributed.size()} processes; "
            "choose another batch_size, or fewer processes"
        )
    model.to(device, memory_format=torch.channels_last).train()
    optimiser = optimizers[optimizer](model.parameters(), lr=learning_rate, weight_decay=weight_decay)

    def rate(progress: float) -> float:
        return learning_rate * learning_rate_factor(schedule, progress, milestones)

    history, processes = _resume(model, optimiser, checkpoints, device)
    distributed.agree(len(history), device)
    if len(history) > epochs:
        raise ValueError(f"{checkpoints} holds a training of {len(history)} epochs; asked for are {epochs}")
    if history:
        yield history
    processes = [*processes, (len(history) + 1, provenance or {})]
    train_step = TrainingStep(model, distributed.shared(model, device), optimiser, precision, device)

    for epoch in range(len(history), epochs):
        started = time.perf_counter()
        with deterministic_algorithms(deterministic):
            counts = _train_epoch(model, train_step, train, epoch, epochs, rate)
        seconds = time.perf_counter() - started
        if counts["diverged_at"] is not None:
            remedy = "a lower learning_rate" + ("" if precision == "float32" else " or precision float32")
            raise TrainingDiverged(
                f"the loss or a weight is not finite at epoch {epoch + 1}, step {counts['diverged_at'] + 1} of "
                f"{len(train)} (learning rate {rate(epoch / epochs):.3g}, {precision}); try {remedy}. "
                f"The checkpoints up to epoch {epoch} are in {checkpoints}"
            )
        with deterministic_algorithms(deterministic):
            score = evaluate(model, test, device=device, precision=precision)
        history = [
            *history,
            {
                "epoch": epoch + 1,
                "learning_rate": rate(epoch / epochs),
                "train_loss": counts["loss"],
                "train_correct": counts["correct"],
                "train_total": counts["total"],
                "test_loss": score.loss,
                "test_correct": score.correct,
                "test_total": score.total,
                "train_seconds": seconds,
                "peak_memory_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
            }
            | counts["solver"],
        ]
        state = {
            "model": model.state_dict(),
            "optimizer": optimiser.state_dict(),
            "random": _random_state(device),
            "history": history,
            "trained_by": processes,
        }
        if distributed.rank() == 0:
            save_checkpoint(checkpoints, epoch + 1, state)
        yield history


def _resume(
    model: nn.Module, optimiser: torch.optim.Optimizer, checkpoints: Path, device: torch.device
) -> tuple[list[dict], list[tuple[int, dict]]]:
    """Go on from the last checkpoint, if there is one: its history, and the processes that trained it."""
    state = latest_checkpoint(checkpoints, device)
    if state is None:
        return [], []
    model.load_state_dict(state["model"])
    settings = optimiser.state_dict()["param_groups"]  # those of this device, and not of the one that wrote it
    optimiser.load_state_dict({"state": state["optimizer"]["state"], "param_groups": settings})
    _set_random_state(state["random"], device)
    return state["history"], state["trained_by"]


def _train_epoch(model, train_step, train, epoch, epochs, rate) -> dict:
    """One pass over the training images; what is counted stays on the device, so that no step waits for a number."""
    set_progress = [m.set_progress for m in model.modules() if hasattr(m, "set_progress")]
    _solver_report(model, train_step.device)  # forgets what evaluation did
    counts = torch.empty(len(train), 3, dtype=torch.float64, device=train_step.device)  # loss, hits and images
    title = f"epoch {epoch + 1}/{epochs}"
    batches = tqdm(train.epoch(epoch), title, len(train), leave=False, disable=distributed.rank() > 0 or None)
    for step, (x, y) in enumerate(batches):
        progress = (epoch + step / len(train)) / epochs
        for tell in set_progress:
            tell(progress)
        counts[step] = train_step(x, y, rate(progress))
    finite = torch.stack([value.isfinite().all() for value in _trained(model)]).all()  # after the last step
    diverged = (~counts[:, 0].isfinite()).nonzero().flatten().tolist() or ([] if finite else [step])
    loss, correct, total = counts.sum(0).tolist()
    return {
        "correct": int(correct),
        "total": int(total),
        "loss": loss / total,
        "diverged_at": diverged[0] if diverged else None,
        "solver": _solver_report(model, train_step.device),
    }


def _trained(model: nn.Module) -> Iterator[torch.Tensor]:
    """Parameters and statistics of batch norms; other buffers, as the mask of an attention, may be infinite."""
    yield from model.parameters()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            yield from module.buffers()


def _solver_report(model: nn.Module, device: torch.device) -> dict[str, float]:
    """Each statistic that the network's inner solvers recorded since the last call; of several layers the largest.

    Of several processes the mean, as each has its part of the images.
    """
    reports = [m.solver_report() for m in model.modules() if hasattr(m, "solver_report")]
    if not reports:
        return {}
    keys = list(reports[0])
    largest = torch.tensor([max(report[key] for report in reports) for key in keys], dtype=torch.float64)
    means = distributed.total(largest.to(device)) / distributed.size()
    return {f"solver_{key}": value for key, value in zip(keys, means.tolist(), strict=True)}


def _random_state(device: torch.device) -> dict[str, torch.Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _set_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
