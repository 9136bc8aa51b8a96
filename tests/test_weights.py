"""Weights are those of the run's description, whole, and nothing but weights."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from small_run import edited, make_spec

from sdnet.commands.evaluate import evaluate
from sdnet.experiments import results
from sdnet.runs.network import load_model
from sdnet.runs.spec import read_spec

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("untracked")


def damaged(content):
    return content[: len(content) // 2]


def foreign(content):
    return b"no weights at all"


def empty(content):
    return b""


def test_weights_of_a_training_of_another_length_are_refused(trained, tmp_path, error_of):
    folder = shutil.copytree(trained, tmp_path / "copy")
    done = len(results.read(folder / "history.csv", "history"))
    edited(folder / "spec.json", training__epochs=done + 1)
    assert error_of("evaluate", folder, "--gpus", "0") == (
        f"{folder} is of {done} epochs, and its spec.json asks for {done + 1}; train the run with: "
        f"python -m sdnet train {folder}/spec.json"
    )


@pytest.mark.parametrize("changed", [{"seed": 7}, {"training__learning_rate": 0.5}, {"model__options": {"lmbd": 0.5}}])
def test_weights_of_a_training_with_other_settings_are_refused(trained, tmp_path, error_of, changed):
    folder = shutil.copytree(trained, tmp_path / "copy")
    before = (folder / "spec.json").read_text()
    edited(folder / "spec.json", **changed)
    assert error_of("evaluate", folder, "--gpus", "0") == (
        f"{folder}/spec.json is not what its weights were trained by; put that back, or train the run with: "
        f"python -m sdnet train {folder}/spec.json"
    )
    (folder / "spec.json").write_text(before)
    evaluate(folder, None, 0)


def test_weights_are_loaded_without_a_change_of_the_random_numbers_that_follow(trained):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    load_model(trained, read_spec(trained / "spec.json"), 10, CPU)
    assert torch.equal(torch.rand(3), expected)


def flipped(content):
    middle = len(content) // 2  # among the weights
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [damaged, foreign, empty, flipped])
def test_damaged_weights_are_refused(tmp_path, trained, error_of, damage):
    folder = make_spec(tmp_path / "run").parent
    (folder / "model.pt").write_bytes(damage((trained / "model.pt").read_bytes()))
    message = error_of("evaluate", folder, "--gpus", 0)
    assert re.fullmatch(rf"{folder}/model\.pt does not hold the weights of this run \(.*\); remove it .*", message)
    assert not (folder / "accuracy.csv").exists()


def test_weights_of_another_network_are_refused(tmp_path, trained, error_of):
    spec = edited(make_spec(tmp_path / "run"), model__width=8)
    (spec.parent / "model.pt").write_bytes((trained / "model.pt").read_bytes())
    assert "does not hold the weights of this run (Error(s) in loading" in error_of("evaluate", spec.parent)


def test_weights_that_would_run_code_are_refused_unread(tmp_path, error_of):
    class Malicious:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    folder = make_spec(tmp_path / "run").parent
    torch.save({"weight": Malicious()}, folder / "model.pt")
    assert "does not hold the weights of this run" in error_of("evaluate", folder, "--gpus", 0)
    assert not (tmp_path / "executed").exists()
