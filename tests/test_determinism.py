"""The same spec and seed give the same bits: on a CPU whatever else runs beside, on a GPU where that is asked for."""

import subprocess
import sys

import pytest
import torch
from small_run import make_spec, weights
from test_training import last, loaders, without_time

from sdnet.data.digits import load_digits_images
from sdnet.data.images import subset
from sdnet.models import build
from sdnet.runs.device import choose_device
from sdnet.runs.images import open_data
from sdnet.runs.network import build_model
from sdnet.runs.spec import read_spec
from sdnet.training.loop import fit

# In folders named <threads>-..., each in a process of its own: two runs alone, then four at once.
TRAIN = """
import os, pathlib, sys
sys.modules["mlflow"] = None  # as on a node without it
import torch
import sdnet.data.digits, torch._dynamo  # once for all, which takes seconds; every training does
from sdnet.commands.train import train

def start(folder):
    if os.fork() == 0:
        torch.set_num_threads(int(folder[0]))
        train(pathlib.Path(folder, "spec.json"), None, 0)
        os._exit(0)

for folder in sys.argv[1:3]:
    start(folder)
    os.wait()
for folder in sys.argv[3:]:
    start(folder)
for folder in sys.argv[3:]:
    os.wait()
"""


def same_bits(a, b):
    assert a.keys() == b.keys()
    return all(torch.equal(a[key], b[key]) for key in a)


def test_a_run_alone_and_beside_others_has_the_same_bits(tmp_path):
    """For the same number of threads, which environment.json names."""
    beside = ["1-beside", "1-beside-too", "2-beside", "2-beside-too"]
    runs = ["1-alone", "2-alone", *beside]
    for run in runs:
        make_spec(tmp_path / run, epochs=1, precision="bfloat16")
    subprocess.run([sys.executable, "-c", TRAIN, *runs], cwd=tmp_path, check=True, capture_output=True)
    for run in runs:
        assert f"CPU, {run[0]} thread" in (tmp_path / run / "environment.json").read_text()
    for run in beside:
        assert same_bits(weights(tmp_path / run), weights(tmp_path / f"{run[0]}-alone"))


@pytest.mark.parametrize("name", ["resnet18", "sdnet18", "scn", "scn18", "mdeq"])
def test_every_network_trains_by_deterministic_algorithms_and_on_a_cpu_they_change_nothing(tmp_path, name):
    digits = subset(load_digits_images(), 20, 20, seed=0)
    width = 16 if name == "mdeq" else 4
    options = {"epochs": 1, "learning_rate": 0.05, "precision": "float32", "device": torch.device("cpu")}
    trained = {}
    for deterministic in (False, True):
        torch.manual_seed(0)
        model = build(name, 10, width=width, in_channels=1)
        seen = set()
        model.register_forward_pre_hook(
            lambda module, _, seen=seen: seen.add((module.training, torch.are_deterministic_algorithms_enabled()))
        )
        folder = tmp_path / str(deterministic)
        history = last(fit(model, *loaders(digits, 10), checkpoints=folder, deterministic=deterministic, **options))
        assert seen == {(True, deterministic), (False, deterministic)}, "trained and tested alike"
        trained[deterministic] = model.state_dict(), without_time(history)
    assert same_bits(trained[True][0], trained[False][0])
    assert trained[True][1] == trained[False][1]
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("name", ["resnet18", "sdnet18", "scn", "scn18", "mdeq"])
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_repeats_its_bits_where_that_is_asked_for(tmp_path, name):
    """What it does otherwise is printed: pytest -s."""
    trained, losses = {}, {}
    for deterministic in (True, False):
        for attempt in (1, 2):
            spec = read_spec(make_spec(tmp_path / f"{deterministic}-{attempt}", deterministic=deterministic))
            spec["model"] |= {"name": name, "width": 16}
            device = choose_device((0,))
            data = open_data(spec, None, device)
            model = build_model(spec, len(data.classes))
            recipe = {key: value for key, value in spec["training"].items() if key != "batch_size"}
            folder = tmp_path / f"{deterministic}-{attempt}" / "checkpoints"
            history = last(fit(model, data.train, data.test, checkpoints=folder, device=device, **recipe))
            losses[deterministic, attempt] = [(row["train_loss"], row["test_loss"]) for row in history]
            trained[deterministic, attempt] = {key: value.cpu() for key, value in model.state_dict().items()}
    assert same_bits(trained[True, 1], trained[True, 2])
    assert losses[True, 1] == losses[True, 2]
    spread = [
        float((trained[False, 1][key].double() - trained[False, 2][key].double()).abs().max())
        for key in trained[False, 1]
    ]
    print(f"{name}: largest difference of a weight after 3 epochs without it: {max(spread):.3g}")
