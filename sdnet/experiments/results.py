"""Result files: tidy CSV, one observation a row. Every column of every kind is described here, and checked."""

import os
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

_RUN = {
    "dataset": "data set",
    "system": "network, as named in the preset",
    "seed": "seed of initialisation and augmentation",
}

COLUMNS: dict[str, dict[str, str]] = {
    # results/runs/<run>/history.csv
    "history": {
        "epoch": "epochs done",
        "learning_rate": "at the start of the epoch",
        "train_loss": "mean cross-entropy of the augmented training images, in nats, while training",
        "train_correct": "augmented training images classified correctly, while training",
        "train_total": "training images seen",
        "test_loss": "mean cross-entropy of the test images after the epoch, in nats",
        "test_correct": "test images classified correctly after the epoch",
        "test_total": "test images",
        "train_seconds": "wall-clock time of the epoch without evaluation",
        "peak_memory_bytes": "largest memory allocated on the GPU so far; empty on a CPU",
    },
    # results/runs/<run>/accuracy.csv
    "accuracy": _RUN
    | {
        "data_source": "official, or what the images are instead",
        "train_images": "number of training images",
        "width": "channels of the first stage; 64 in the paper",
        "epochs": "passes over the training images",
        "parameters": "trainable parameters",
        "checkpoint": "last: after the last epoch; best_on_test: the epoch that the test set itself picked",
        "epoch": "epoch of the checkpoint",
        "correct": "test images classified correctly",
        "total": "test images",
    },
    # results/runs/<run>/codes.csv
    "codes": _RUN
    | {
        "layer": "name of the CSC layer",
        "lambda": "its sparsity weight",
        "bin_low": "lower edge; equal to bin_high for the exact zeros, which no other bin counts",
        "bin_high": "upper edge, exclusive",
        "count": "code entries in the bin, over all test images",
    },
    # results/runs/<run>/dictionary.csv
    "dictionary": _RUN
    | {
        "layer": "name of the CSC layer",
        "atom": "number of the atom, c",
        "channel": "image channel, m",
        "row": "from the top",
        "column": "from the left",
        "value": "entry of the unit-norm atom",
    },
    # results/benchmark/<dataset>.csv
    "benchmark": {
        "dataset": "data set whose image size was used",
        "system": "network, as named in the preset",
        "width": "channels of the first stage; 64 in the paper",
        "device": "what it ran on",
        "precision": "bfloat16 (autocast) or float32",
        "batch_size": "images a step",
        "threads": "CPU threads",
        "train_images_per_second": "whole training steps: forward, backward, update, projection",
        "inference_images_per_second": "forward passes in evaluation mode",
        "saved_bytes": "what one training step keeps for its backward pass, counted tensor by tensor",
        "peak_memory_bytes": "largest memory allocated on the GPU in a training step; empty on a CPU",
        "train_rate_ratio": "train_images_per_second over that of resnet18 in the same run",
        "saved_bytes_ratio": "saved_bytes over that of resnet18 in the same run",
    },
}

EXTRA = {"history": "solver_"}  # columns of this prefix are allowed too: what a network's inner solver reports


def write(path: Path, kind: str, rows: Iterable[dict]) -> None:
    """Write a result file, whole or not at all.

    Raises:
        ValueError: if a row has not exactly the columns of its kind.
    """
    frame = pd.DataFrame(list(rows))
    if frame.empty:
        frame = pd.DataFrame(columns=list(COLUMNS[kind]))
    _check(path, kind, list(frame.columns))
    write_text(path, frame.to_csv(index=False))


def read(path: Path, kind: str) -> pd.DataFrame:
    """Read a result file.

    Raises:
        FileNotFoundError: if it is not there; the message says how to make it.
        ValueError: if it has not the columns of its kind.
    """
    try:
        frame = pd.read_csv(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is not there; make it with: snakemake --cores all {path}") from None
    _check(path, kind, list(frame.columns))
    return frame


def write_text(path: Path, text: str) -> None:
    """Write a text file under a temporary name and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _check(path: Path, kind: str, given: list[str]) -> None:
    extra = [name for name in given if kind in EXTRA and name.startswith(EXTRA[kind])]
    wrong = set(given) - set(extra) ^ set(COLUMNS[kind])
    if wrong:
        raise ValueError(
            f"{path} is no {kind} file: missing or unknown columns {', '.join(sorted(wrong))}; "
            f"it must have {', '.join(COLUMNS[kind])}"
        )
