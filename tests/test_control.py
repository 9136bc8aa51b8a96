"""The control for Algorithm 1: batch norms that take their statistics from the noisy images."""

import json

import pytest
import torch
from small_run import SPEC
from torch import nn

from sdnet.commands.renormalise import renormalise
from sdnet.csc import csc_layers
from sdnet.data.corruptions import SEVERITIES
from sdnet.experiments import results
from sdnet.robustness.control import renormalised, renormalised_correct
from sdnet.robustness.sweep import evaluate_at
from sdnet.runs.network import build_model, load_model
from sdnet.runs.noisy import Noise, open_split

NOISE = Noise("gaussian", "imagenet", seed=0, official=None)
IMAGES = 40


def batches(scale=1.0, shift=0.0):
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        x = torch.rand(16, 3, 8, 8, generator=generator)
        yield scale * x + shift, torch.zeros(16, dtype=torch.long)


def everything(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_the_statistics_are_those_of_the_images_and_the_network_is_left_as_it_was():
    model = nn.Sequential(nn.Dropout(), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(192, 10)).train()
    before = everything(model)
    copy = renormalised(model, batches(0.5, 2.0))
    assert not any(module.training for module in copy.modules())
    x = torch.stack([images for images, _ in batches(0.5, 2.0)])  # (batches, N, channels, H, W)
    torch.testing.assert_close(copy[1].running_mean, x.mean(dim=(0, 1, 3, 4)))
    of_batches = torch.stack([batch.transpose(0, 1).flatten(1).var(dim=1) for batch in x])
    torch.testing.assert_close(copy[1].running_var, of_batches.mean(dim=0))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert model[1].momentum == 0.1


def test_what_shifts_and_scales_all_pixels_changes_nothing_behind_them():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(192, 10))
    x = next(iter(batches()))[0]
    with torch.no_grad():
        clean = renormalised(model, batches())(x)
        noisy = renormalised(model, batches(0.3, -1.0))(0.3 * x - 1.0)
        torch.testing.assert_close(clean, noisy, rtol=1e-3, atol=1e-3)
        assert not torch.allclose(model.eval()(0.3 * x - 1.0), noisy, atol=0.1), "as it does without"


def test_every_image_counts_alike_however_they_are_batched():
    """An empty batch and a last one of a single image, as a loader of 33 images in batches of 16 gives."""
    x = torch.cat([images for images, _ in batches()])[:33]
    x[32:] += 5
    parts = [(part, torch.zeros(len(part))) for part in (x[:0], x[:16], x[16:32], x[32:], x[:0])]
    found = renormalised(nn.Sequential(nn.BatchNorm2d(3)), parts)[0]
    torch.testing.assert_close(found.running_mean, x.mean(dim=(0, 2, 3)))
    variances = torch.stack([part.var(dim=(0, 2, 3)) for part in (x[:16], x[16:32], x[32:])])
    torch.testing.assert_close(found.running_var, (16 * variances[0] + 16 * variances[1] + variances[2]) / 33)


def test_a_network_without_batch_norms_and_nothing_to_see_are_refused():
    with pytest.raises(ValueError, match="Linear has no batch norm whose statistics"):
        renormalised(nn.Linear(2, 2), batches())
    with pytest.raises(ValueError, match="there is no batch"):
        renormalised(nn.BatchNorm2d(3), [])


def trained(folder, name):
    """A run's folder, of a network whose weights are random."""
    spec = SPEC | {"system": name, "model": SPEC["model"] | {"name": name}}
    folder.mkdir()
    (folder / "spec.json").write_text(json.dumps(spec))
    torch.manual_seed(0)
    torch.save(build_model(spec, 10).state_dict(), folder / "model.pt")
    return spec


def calibrated(folder, lambdas, **changes):
    """The file of Algorithm 1, as if it had chosen these lambdas."""
    columns = {"dataset": "digits", "system": "sdnet18", "seed": 0, "data_source": "official", "noise": "gaussian"}
    common = columns | {"noise_source": "generated, imagenet severities", "total": IMAGES} | changes
    rest = dict.fromkeys(set(results.COLUMNS["adaptive"]) - set(common), 1)
    rows = [
        rest | common | {"variant": variant, "severity": severity, "lambda": lmbd}
        for variant in ("paper", "squared")
        for severity, lmbd in {"0": 0.05, **lambdas, "mean": None}.items()
    ]
    for row in rows:
        row["lambda"] = row["lambda"] and row["lambda"] + (row["variant"] == "squared")
        row["total"] *= 5 if row["severity"] == "mean" else 1
    results.write(folder / "adaptive-gaussian.csv", "adaptive", rows)


def test_the_command_tries_the_lambda_of_training_and_those_of_algorithm_1(tmp_path):
    run = tmp_path / "run"
    spec = trained(run, "sdnet18")
    chosen = {str(severity): 0.2 * severity for severity in SEVERITIES}
    calibrated(run, chosen)
    renormalise(run, None, NOISE, IMAGES, gpus=0)
    found = results.read(run / "renormalised-gaussian.csv", "renormalised")
    assert len(found) == 2 * 5
    assert (found.total == IMAGES).all()
    lambdas = found.pivot(index="severity", columns="choice", values="lambda")
    assert (lambdas.trained == 0.1).all()
    assert lambdas.algorithm1.tolist() == pytest.approx(list(chosen.values()))

    images = open_split(spec, None, "test", IMAGES)
    model = load_model(run, spec, 10, torch.device("cpu"))
    before = everything(model)
    for row in found.itertuples():
        for layer in csc_layers(model):
            layer.lmbd = row[found.columns.get_loc("lambda") + 1]
        expected = renormalised(model, images.at_severity(NOISE, row.severity))
        correct = evaluate_at(expected, images.at_severity(NOISE, row.severity), [expected[1].conv1.lmbd]).correct
        assert row.correct == correct.sum()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_of_a_network_without_lambda_nothing_else_is_needed(tmp_path):
    run = tmp_path / "run"
    trained(run, "resnet18")
    renormalise(run, None, NOISE, IMAGES, gpus=0)
    found = results.read(run / "renormalised-gaussian.csv", "renormalised")
    assert found.choice.tolist() == 5 * ["trained"]
    assert found["lambda"].isna().all()


def test_what_shifts_all_images_costs_no_accuracy():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(192, 2, bias=False))
    with torch.no_grad():
        model[2].weight[0], model[2].weight[1] = 1.0, -1.0
    for shift in (0.0, 5.0):
        x, labels = next(iter(batches(shift=shift)))
        labels = (x.mean(dim=(1, 2, 3)) < x.mean()).long()  # half of the images, wherever they are
        assert renormalised_correct(model, lambda x=x, labels=labels: [(x, labels)], None) >= 15
        assert evaluate_at(model, [(x, labels)], [0.1]).correct.sum() == labels.eq(0).sum(), "all taken for one class"


@pytest.mark.parametrize("changes", [{"total": IMAGES + 1}, {"noise_source": "official"}])
def test_lambdas_chosen_for_other_images_or_noise_are_refused(tmp_path, changes):
    run = tmp_path / "run"
    trained(run, "sdnet18")
    calibrated(run, dict.fromkeys(map(str, SEVERITIES), 0.2), **changes)
    with pytest.raises(ValueError, match=r"adaptive-gaussian\.csv is of .*given are 40 and generated, imagenet"):
        renormalise(run, None, NOISE, IMAGES, gpus=0)
    assert not (run / "renormalised-gaussian.csv").exists()
    (run / "adaptive-gaussian.csv").unlink()
    with pytest.raises(FileNotFoundError, match="python -m sdnet calibrate"):
        renormalise(run, None, NOISE, IMAGES, gpus=0)
