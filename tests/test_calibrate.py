"""`python -m sdnet calibrate` on a run: Algorithm 1 is paired with a sweep of the same images, noise and weights."""

import sys
from dataclasses import replace

import pytest
import torch
from test_commands import make_spec

from sdnet.commands.calibrate import calibrate
from sdnet.commands.noisy import Noise
from sdnet.commands.sweep import sweep
from sdnet.commands.train import train
from sdnet.experiments import results

NOISE = Noise("gaussian", "cifar", seed=0, official=None)
LAMBDAS = [0.1, 0.4]
IMAGES = 20


def calibrated(run, noise=NOISE, limit=IMAGES):
    options = {"levels": "interleaved", "images": IMAGES, "limit": limit, "variants": ["paper"]}
    calibrate(run, None, noise, LAMBDAS, **options, gpus=0)
    return results.read(run / "adaptive-gaussian.csv", "adaptive")


@pytest.fixture
def swept(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    run = make_spec(tmp_path / "run", epochs=1).parent
    train(run / "spec.json", None, 0)
    sweep(run, None, NOISE, LAMBDAS, IMAGES, gpus=0)
    return run


def test_algorithm_1_refuses_a_sweep_of_other_images_noise_or_weights(swept):
    refused = pytest.raises(ValueError, match=r"sweep-gaussian\.npz is of other weights, images or noise .*sweep again")
    with refused:
        calibrated(swept, limit=IMAGES + 10)
    for other in (replace(NOISE, scale="imagenet"), replace(NOISE, seed=1)):
        with refused:
            calibrated(swept, other)
    assert set(calibrated(swept).total) == {IMAGES, 5 * IMAGES}
    weights = torch.load(swept / "model.pt", weights_only=True)
    torch.save({name: 2 * value for name, value in weights.items()}, swept / "model.pt")
    with refused:
        calibrated(swept)


def test_a_damaged_sweep_is_named(swept):
    (swept / "sweep-gaussian.npz").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"sweep-gaussian\.npz is damaged"):
        calibrated(swept)
