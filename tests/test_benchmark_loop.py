"""The plain loop, which speeds are compared with: it trains the same network in the same way."""

import json
import re
from dataclasses import replace

import pytest
import torch
from small_run import edited, make_spec

from sdnet.__main__ import cli
from sdnet.commands.benchmark_loop import compare
from sdnet.data.datasets import INFO, load
from sdnet.data.images import subset
from sdnet.data.loaders import DeviceLoader
from sdnet.runs.network import build_model
from sdnet.runs.spec import read_spec
from sdnet.training.loop import fit
from sdnet.training.plain import fit_plainly

pytestmark = pytest.mark.usefixtures("untracked")

RECIPE = {"learning_rate": 0.002, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}


@pytest.mark.parametrize("model", ["resnet18", "sdnet18"])
def test_where_nothing_is_random_both_loops_end_in_the_same_weights(tmp_path, model):
    """Batches of all images, none of them moved: then only rounding differs."""
    spec = read_spec(make_spec(tmp_path / "run"))
    spec["model"]["name"] = model
    images = subset(load("digits", None), 40, 20, seed=0)
    info, device = replace(INFO["digits"], crop_padding=0), torch.device("cpu")
    start, ours, plain = (build_model(spec, 10) for _ in range(3))
    loaders = [
        DeviceLoader(*of, batch_size=40, device=device, augment=augment)
        for of, augment in (
            ((images.train_images, images.train_labels), True),
            ((images.test_images, images.test_labels), False),
        )
    ]
    options = {"checkpoints": tmp_path / "checkpoints", "precision": "float32", "device": device, "epochs": 3}
    *_, history = fit(ours, *loaders, **options, **RECIPE)
    *_, accuracy = fit_plainly(plain, images, info, epochs=3, batch_size=40, seed=1, workers=0, **RECIPE)
    assert accuracy == history[-1]["test_correct"] / 20
    before, a, b = (torch.cat([p.flatten() for p in m.parameters()]) for m in (start, ours, plain))
    assert (a - b).norm() < 0.01 * (a - before).norm(), "they differ by rounding alone"


@pytest.mark.parametrize(("seeds", "spread"), [(1, r" %"), (2, r" ± \d+\.\d\d % over 2 seeds")])
def test_both_loops_are_trained_and_compared(tmp_path, capsys, monkeypatch, seeds, spread):
    options, seen = ["--seeds", str(seeds)], []

    def watched(model, images, info, *, seed, **recipe):
        seen.append((len(images.train_images), len(images.test_images), seed))
        return fit_plainly(model, images, info, seed=seed, **recipe)

    monkeypatch.setattr("sdnet.commands.benchmark_loop.fit_plainly", watched)
    cli.main(["benchmark-loop", str(make_spec(tmp_path / "run", epochs=1)), *options], standalone_mode=False)
    *turns, title, ours, plain, ratio = capsys.readouterr().out.splitlines()
    expected = [f"seed {seed}, {name}" for seed in range(seeds) for name in ("ours", "plain")]
    assert [turn.split(":")[0] for turn in turns] == expected
    assert title.startswith("digits, sdnet18, width 4, 1 epochs")
    for name, line in {"ours": ours, "plain": plain}.items():
        assert re.match(rf"{name} +accuracy \d+\.\d\d{spread}, ", line), line
    assert seen == [(96, 60, seed) for seed in range(seeds)]
    accuracies = [float(re.search(r"([\d.]+)%", turn)[1]) for turn in turns]
    means = [sum(accuracies[k::2]) / seeds for k in (0, 1)]
    assert [float(re.search(r"accuracy ([\d.]+)", line)[1]) for line in (ours, plain)] == pytest.approx(means, abs=0.02)
    clock = [float(re.search(r"([\d.]+) s by the clock", line)[1]) for line in (ours, plain)]
    faster = float(re.search(r"ours is ([\d.]+) times as fast by the clock", ratio)[1])
    assert (faster - 0.01) * (clock[0] - 0.06) <= clock[1] + 0.06, "as the times say, but for rounding"
    assert (faster + 0.01) * (clock[0] + 0.06) >= clock[1] - 0.06
    assert "by processor time" in ratio


def test_a_run_that_the_plain_loop_cannot_train_is_refused(tmp_path):
    spec = make_spec(tmp_path / "run")
    training = json.loads(spec.read_text())["training"] | {"optimizer": "adam"}
    with pytest.raises(ValueError, match="a cosine schedule and images in memory; given adam, cosine and digits"):
        compare(edited(spec, training=training), None, 1)
    training |= {"optimizer": "sgd", "schedule": "multistep", "milestones": [0.5]}
    with pytest.raises(ValueError, match="a cosine schedule and images in memory; given sgd, multistep and digits"):
        compare(edited(spec, training=training), None, 1)
    spec = make_spec(tmp_path / "other")
    imagenet = json.loads(spec.read_text())["dataset"] | {"name": "imagenet"}
    with pytest.raises(ValueError, match="images in memory; given sgd, cosine and imagenet"):
        compare(edited(spec, dataset=imagenet), None, 1)
    spec = make_spec(tmp_path / "imported", epochs=0)
    with pytest.raises(ValueError, match="its weights are imported; name another run"):
        compare(spec, None, 1)
