"""AutoAttack (Croce and Hein, 2020) through the optional package pyautoattack, with the records of our own PGD."""

import importlib.util
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from sdnet.robustness.batches import Batches, labelled
from sdnet.robustness.outcome import Outcome, check_radius, checked_batch, frozen_in_float32, judge

STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
TARGETS = 9  # target classes of the standard version, where there are as many
MIN_CLASSES = 4  # of apgd-t: the targeted DLR loss divides by a difference to the fourth largest logit


def check(attacks: Sequence[str]) -> None:
    """Refuse what could not be run, before hours of other work.

    Raises:
        ModuleNotFoundError: if the optional package is not there; the message says how to get it, or do without.
        ValueError: for an unknown attack.
    """
    if unknown := sorted(set(attacks) - set(STANDARD)):
        raise ValueError(f"autoattack: {', '.join(unknown)} is not among the attacks {', '.join(STANDARD)}")
    if attacks and importlib.util.find_spec("pyautoattack") is None:
        raise ModuleNotFoundError(
            "AutoAttack needs the package pyautoattack; install it with: pip install pyautoattack==0.2.0 "
            "(or leave it out: --autoattack '', of diagnose --no-square; in a preset autoattack: [])"
        )


def check_classes(attacks: Sequence[str], classes: int) -> None:
    """Refuse a targeted attack on a network of too few classes.

    Raises:
        ValueError: if there are fewer than 4.
    """
    if "apgd-t" in attacks and classes < MIN_CLASSES:
        raise ValueError(
            f"autoattack: apgd-t needs at least {MIN_CLASSES} classes, and the network has {classes}; leave it out: "
            f"--autoattack {','.join(name for name in STANDARD if name != 'apgd-t')}"
        )


@dataclass(frozen=True)
class AutoAttacked(Outcome):
    """The fate of N images under AutoAttack."""

    broken_by: np.ndarray  # the attack, "clean", or "" for an image that withstood them all
    flags: tuple[str, ...]  # the warnings of AutoAttack that its result may be unreliable


def autoattack(
    model: nn.Module,
    batches: Batches,
    norm: str,
    eps: float,
    *,
    attacks: Sequence[str] = STANDARD,
    seed: int = 0,
    batch_size: int = 250,
    indices: Sequence[int] | None = None,
) -> AutoAttacked:
    """Run the attacks of the standard version one after the other, each on the images that are left.

    Args:
        model: as `pgd.attack` takes it; attacked at the lambda that it has.
        batches: of images and labels, as `pgd.attack` takes them; all are held on the device.
        norm: "linf" or "l2".
        eps: radius of the ball, in pixels of [0, 1].
        attacks: of STANDARD, in this order.
        seed: of every attack and batch. AutoAttack starts its generator anew for each batch, so that results
            depend on `batch_size`: report both. The global generator's state is restored.
        batch_size: images at a time.
        indices: position of each image in its data set, if not 0, 1, ...

    Raises:
        ModuleNotFoundError: if pyautoattack is not installed.
        ValueError: for an unknown norm or attack, a radius that is none, apgd-t on fewer than 4 classes, images not in
            [0, 1], or a network that does not compute in float32.
    """
    check(attacks)
    from pyautoattack import AutoAttack

    names = {"linf": "Linf", "l2": "L2"}
    if norm not in names:
        raise ValueError(f"autoattack: norm {norm!r} is unknown; choose 'linf' or 'l2'")
    check_radius("autoattack", eps, norm)
    with frozen_in_float32(model), _untouched_globals(model), _captured_flags() as flags:
        if not (parts := [checked_batch(model, *labelled(batch, "autoattack")) for batch in batches]):
            raise ValueError("autoattack: there is no batch; give images, and no iterator that is used up already")
        x, y, clean = (torch.cat(part).contiguous() for part in zip(*parts, strict=True))
        check_classes(attacks, classes := clean.shape[1])
        if x.dtype != torch.float32:
            raise ValueError(f"autoattack: the network computes in {x.dtype}; convert it with model.float()")
        adversarial, broken_by = x.clone(), np.full(len(x), "", dtype=object)
        broken_by[(clean.argmax(dim=1) != y).cpu().numpy()] = "clean"
        runner = AutoAttack(model, norm=names[norm], eps=eps, seed=seed, device=x.device)
        runner.apgd_targeted.n_target_classes = runner.fab.n_target_classes = min(TARGETS, classes - 1)
        for name in attacks:
            left = np.flatnonzero(broken_by == "")
            if not len(left):
                break
            runner.attacks_to_run = [name]
            rows = torch.from_numpy(left).to(x.device)
            moved, predicted = runner.run_standard_evaluation(x[rows], y[rows], batch_size=batch_size)
            adversarial[rows] = moved
            broken_by[left[(predicted != y[rows]).cpu().numpy()]] = name
        judged = [
            judge(model, *batch, norm, eps)
            for batch in zip(*(t.split(batch_size) for t in (x, y, clean, adversarial)), strict=True)
        ]
    columns = {name: np.concatenate([one[name] for one in judged]) for name in judged[0]}
    index = np.arange(len(x)) if indices is None else np.asarray(indices)[np.arange(len(x))]
    return AutoAttacked(index=index, **columns, broken_by=broken_by.astype(str), flags=tuple(dict.fromkeys(flags)))


@contextmanager
def _untouched_globals(model: nn.Module) -> Iterator[None]:
    """Give back what AutoAttack takes: the state of torch's generators, and the trace function of a debugger."""
    trace, device = sys.gettrace(), next(model.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            sys.settrace(trace)


@contextmanager
def _captured_flags() -> Iterator[list[str]]:
    flags: list[str] = []
    handler = logging.Handler(level=logging.WARNING)
    handler.emit = lambda record: flags.append(record.getMessage())
    logger = logging.getLogger("auto-attack")
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield flags
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
