"""A run of seconds, and what tests do with it."""

import json
import subprocess
import sys

import pandas as pd
import torch

from sdnet.experiments import results

SPEC = {  # 96 digits and an SDNet-18 of width 4
    "preset": "tiny",
    "system": "sdnet18",
    "seed": 0,
    "dataset": {"name": "digits", "checksum": None, "train_images": 96, "test_images": 60, "image_size": None},
    "model": {"name": "sdnet18", "width": 4, "options": {}},
    "training": {
        "epochs": 3,
        "batch_size": 32,
        "optimizer": "sgd",
        "learning_rate": 0.05,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 5e-4,
        "schedule": "cosine",
        "milestones": [],
        "precision": "float32",
        "deterministic": False,
    },
}


def make_spec(folder, **training):
    """The run's spec.json in a new folder, with some training settings of one's own."""
    folder.mkdir(parents=True)
    path = folder / "spec.json"
    path.write_text(json.dumps(SPEC | {"training": SPEC["training"] | training}))
    return path


def edited(path, **changes):
    """Edit a spec by hand: dataset__name="x" sets dataset.name, and None as a group removes it."""
    spec = json.loads(path.read_text())
    for name, value in changes.items():
        group, _, key = name.partition("__")
        (spec[group] if key else spec)[key or group] = value
    path.write_text(json.dumps(spec))
    return path


def start(bare, *arguments):
    command = [sys.executable, "-m", "sdnet", *map(str, arguments)]
    return subprocess.Popen(command, env=bare, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def read_until(process, text):
    """The process's messages up to the one that holds a text."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError(f"the process ended before {text!r}: {''.join(lines)}")


def weights(folder):
    return torch.load(folder / "model.pt", weights_only=True)


def history(folder):
    return results.read(folder / "history.csv", "history").drop(columns="train_seconds")


def assert_same_run(folder, expected):
    a, b = weights(folder), weights(expected)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)
    pd.testing.assert_frame_equal(history(folder), history(expected), check_exact=True)
