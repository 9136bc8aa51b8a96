"""The training loop: what it learns, how it resumes, and how it stops."""

import math
from itertools import islice

import numpy as np
import pytest
import torch
from torch import nn

from sdnet.csc import csc_layers
from sdnet.csc.step_size import power_iteration
from sdnet.data.digits import load_digits_images
from sdnet.data.images import subset
from sdnet.data.loaders import DeviceLoader
from sdnet.models import build
from sdnet.training.evaluate import evaluate
from sdnet.training.loop import TrainingDiverged, fit
from sdnet.training.precision import autocast
from sdnet.training.schedule import learning_rate_factor
from sdnet.training.step import TrainingStep

CPU = torch.device("cpu")
WALL_CLOCK = "train_seconds"  # the one column that differs between equal runs


@pytest.fixture(scope="module")
def digits():
    return subset(load_digits_images(), 96, 60, seed=0)


def loaders(digits, batch_size=32):
    train = DeviceLoader(
        digits.train_images, digits.train_labels, batch_size=batch_size, device=CPU, augment=True, crop_padding=2
    )
    return train, DeviceLoader(digits.test_images, digits.test_labels, batch_size=60, device=CPU, augment=False)


def network(name="sdnet18", seed=0):
    torch.manual_seed(seed)
    return build(name, 10, width=4, in_channels=1)


def train(model, digits, folder, epochs=4, **options):
    """The history of each yield."""
    options = {"learning_rate": 0.05, "precision": "float32"} | options
    return fit(model, *loaders(digits), checkpoints=folder, epochs=epochs, device=CPU, **options)


def last(histories):
    *_, history = histories
    return history


def without_time(history):
    return [{key: value for key, value in row.items() if key != WALL_CLOCK} for row in history]


@pytest.mark.parametrize(
    ("model", "options", "killed_after"),
    [
        ("sdnet18", {}, 1),
        ("sdnet18", {"precision": "bfloat16"}, 3),
        ("resnet18", {"optimizer": "adam", "learning_rate": 0.01}, 2),
        ("sdnet18", {"schedule": "multistep", "milestones": [0.5]}, 2),
        ("scn18", {}, 2),
    ],
)
def test_a_resumed_training_ends_in_the_same_weights_bit_for_bit(digits, tmp_path, model, options, killed_after):
    straight = network(model)
    expected = last(train(straight, digits, tmp_path / "straight", **options))
    for _ in islice(train(network(model), digits, tmp_path / "killed", **options), killed_after):
        pass
    resumed = network(model, seed=1)  # so that only the checkpoint can bring the weights
    histories = list(train(resumed, digits, tmp_path / "killed", **options))
    assert [len(history) for history in histories] == list(range(killed_after, 5))
    assert without_time(histories[-1]) == without_time(expected)
    weights = straight.state_dict()
    assert resumed.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[key]) for key, value in resumed.state_dict().items())


def test_a_model_that_draws_random_numbers_resumes_with_the_same_ones(digits, tmp_path):
    def model():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(256, 16), nn.Dropout(0.5), nn.Linear(16, 10))

    straight, resumed = model(), model()
    last(train(straight, digits, tmp_path / "straight", epochs=3))
    next(train(model(), digits, tmp_path / "killed", epochs=3))
    torch.manual_seed(1)  # as in a new process
    last(train(resumed, digits, tmp_path / "killed", epochs=3))
    assert torch.equal(straight[1].weight, resumed[1].weight)


def test_a_finished_training_yields_its_history_and_trains_no_more(digits, tmp_path):
    model = network()
    expected = last(train(model, digits, tmp_path, epochs=2))
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    assert list(train(model, digits, tmp_path, epochs=2)) == [expected]
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


def test_atoms_stay_on_the_unit_sphere_and_the_step_size_follows_them(digits, tmp_path):
    model = network()
    (layer,) = csc_layers(model)
    before = layer.weight.detach().clone()
    for _ in train(model, digits, tmp_path, epochs=3):
        norms = layer.weight.detach().double().flatten(1).norm(dim=1)
        torch.testing.assert_close(norms, torch.ones_like(norms), rtol=0, atol=1e-6)  # float32 atoms of 9 entries
        start = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        exact, _ = power_iteration(layer.weight.double(), start, padding=1, n_iter=1000, tolerance=None)
        # The warm-started power iteration trails the moving atoms a little; it must stay below 1 / L to converge.
        assert 0.9 <= float(layer.step_size) * float(exact) < 0.95
    assert (layer.weight - before).abs().max() > 0.01, "the dictionary must have been trained"


def test_every_module_with_a_projection_is_projected_and_told_the_progress(digits, tmp_path):
    class Solver(nn.Module):
        def solver_report(self):
            return {"residual": 0.25}

    class Recorder(nn.Linear):
        def __init__(self):
            super().__init__(256, 10)
            self.another = Solver()
            self.progress, self.projections = [], 0

        def set_progress(self, progress):
            self.progress.append(progress)

        def project_(self):
            self.projections += 1

        def solver_report(self):
            return {"residual": 0.5}

        def forward(self, x):
            return super().forward(x.flatten(1))

    model = Recorder()
    history = last(train(model, digits, tmp_path, epochs=2))
    assert model.progress == pytest.approx([k / 6 for k in range(6)]), "3 steps an epoch, 2 epochs"
    assert model.projections == 6
    assert [row["solver_residual"] for row in history] == [0.5, 0.5], "the largest of several"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_network_learns_digits(tmp_path, precision):
    images = subset(load_digits_images(), 480, 60, seed=0)
    history = last(train(network(), images, tmp_path, epochs=6, precision=precision))
    assert history[-1]["train_loss"] < history[0]["train_loss"] / 2
    assert history[-1]["train_correct"] > 0.6 * 480, "chance is a tenth"
    assert history[-1]["test_correct"] > 0.4 * 60
    assert all(row["train_total"] == 480 and row["test_total"] == 60 for row in history)


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_weights(digits, tmp_path):
    model = network()
    seen = set()
    model.layer1[0].conv1.register_forward_hook(lambda module, args, out: seen.add(out.dtype))
    last(train(model, digits, tmp_path, epochs=1, precision="bfloat16"))
    assert seen == {torch.bfloat16}
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_losses_are_computed_in_float32_whatever_the_network_computes_in(digits):
    images = DeviceLoader(digits.test_images, digits.test_labels, batch_size=60, device=CPU, augment=False)
    ((x, y),) = images.epoch(0)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 10))
    with torch.no_grad(), autocast("bfloat16", CPU):
        logits = model(x)
    assert logits.dtype == torch.bfloat16
    expected = float(nn.functional.cross_entropy(logits.float(), y))
    step = TrainingStep(model, model, torch.optim.SGD(model.parameters()), "bfloat16", CPU)
    trained = float(step(x, y, 0.0)[0]) / len(x)
    tested = evaluate(model, images, device=CPU, precision="bfloat16").loss
    assert (trained, tested) == (pytest.approx(expected, rel=1e-6), pytest.approx(expected, rel=1e-6))


def test_weights_and_batches_are_channels_last(digits, tmp_path):
    model = network()
    seen = []
    model.layer2.register_forward_pre_hook(
        lambda module, args: seen.append(args[0].is_contiguous(memory_format=torch.channels_last))
    )
    last(train(model, digits, tmp_path, epochs=1))
    assert seen
    assert all(seen)
    filters = [p for p in model.parameters() if p.dim() == 4]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in filters)


class Poisoned:
    """A loader whose batches are fit to train on, except one that holds a NaN."""

    num_images, batch_size = 8, 2

    def __init__(self, epoch, step):
        self.where = (epoch, step)

    def __len__(self):
        return 4

    def epoch(self, k):
        generator = torch.Generator().manual_seed(k)
        for step in range(4):
            x = torch.rand(2, 1, 8, 8, generator=generator)
            if (k, step) == self.where:
                x[0, 0, 0, 0] = math.nan
            yield x, torch.tensor([0, 1])


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    options = {"checkpoints": tmp_path, "epochs": 4, "precision": "float32", "device": CPU}
    histories = fit(linear(), Poisoned(2, 1), Poisoned(None, None), **options)
    with pytest.raises(TrainingDiverged) as stopped:
        list(histories)
    message = str(stopped.value)
    assert "epoch 3, step 2 of 4" in message
    assert "lower learning_rate" in message
    assert str(tmp_path) in message
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["epoch0001.pt", "epoch0002.pt"]
    model = linear()
    assert len(next(fit(model, Poisoned(None, None), Poisoned(None, None), **options))) == 2
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_a_buffer_that_is_infinite_by_design_stops_no_training_and_a_statistic_does(tmp_path):
    clean, options = Poisoned(None, None), {"epochs": 1, "precision": "float32", "device": CPU}
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 2))
    model.register_buffer("mask", torch.full((2, 2), -math.inf))
    assert len(last(fit(model, clean, clean, checkpoints=tmp_path / "mask", **options))) == 1
    model[1].running_mean.fill_(math.inf)
    with pytest.raises(TrainingDiverged):
        last(fit(model, clean, clean, checkpoints=tmp_path / "statistic", **options))


def test_weights_that_the_very_last_step_ruins_are_no_finished_training(tmp_path):
    class Overflow(torch.autograd.Function):
        """Finite forward, infinite backward."""

        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * math.inf

    class Fragile(nn.Linear):
        steps = 0

        def forward(self, x):
            self.steps += self.training
            return super().forward(x.flatten(1)) if self.steps < 8 else Overflow.apply(super().forward(x.flatten(1)))

    histories = fit(
        Fragile(64, 2),
        Poisoned(None, None),
        Poisoned(None, None),
        checkpoints=tmp_path,
        epochs=2,
        precision="float32",
        device=CPU,
    )
    with pytest.raises(TrainingDiverged, match="epoch 2, step 4 of 4"):
        list(histories)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch0001.pt"]


def test_a_learning_rate_far_too_large_is_reported_as_such(digits, tmp_path):
    with pytest.raises(TrainingDiverged, match="lower learning_rate"):
        list(train(network(), digits, tmp_path, learning_rate=1e30))
    assert not list(tmp_path.glob("*.pt"))


@pytest.mark.parametrize(
    ("option", "allowed"),
    [
        ({"optimizer": "lbfgs"}, "choose sgd or adam"),
        ({"schedule": "linear"}, "choose cosine or multistep"),
        ({"precision": "float16"}, "choose float32 or bfloat16"),
    ],
)
def test_an_unknown_choice_is_refused_before_any_step(digits, tmp_path, option, allowed):
    (given,) = option.values()
    with pytest.raises(ValueError, match=f"'{given}' is unknown; {allowed}"):
        next(train(network(), digits, tmp_path, **option))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("empty", ["train", "test"])
def test_no_image_is_refused(digits, tmp_path, empty):
    without = dict(zip(("train", "test"), loaders(digits), strict=True))
    without[empty] = DeviceLoader(
        digits.test_images[:0], digits.test_labels[:0], batch_size=8, device=CPU, augment=False
    )
    with pytest.raises(ValueError, match=f"fit: {empty} has no image"):
        next(fit(network(), *without.values(), checkpoints=tmp_path, epochs=1, device=CPU))


def test_the_cosine_goes_from_one_to_zero_and_only_down():
    factors = [learning_rate_factor("cosine", k / 100) for k in range(101)]
    assert factors[0] == 1
    assert factors[50] == pytest.approx(0.5, abs=1e-15)
    assert factors[100] == pytest.approx(0, abs=1e-15)
    assert all(np.diff(factors) < 0)


@pytest.mark.parametrize(
    ("epoch", "factor"), [(0, 1), (29, 1), (30, 0.1), (59, 0.1), (60, 0.01), (89, 0.01), (90, 0.001), (99, 0.001)]
)
def test_multistep_falls_to_a_tenth_at_the_papers_epochs(epoch, factor):
    """Section 4: decayed by a factor of 0.1 at the 30th, 60th and 90th of 100 epochs."""
    assert learning_rate_factor("multistep", epoch / 100, [0.3, 0.6, 0.9]) == pytest.approx(factor, rel=1e-12)


def test_milestones_in_epochs_are_refused():
    with pytest.raises(ValueError, match="milestones are 30, 60; give shares of the training"):
        learning_rate_factor("multistep", 0.5, [30, 60])


def test_a_longer_training_is_not_taken_for_a_shorter_one(digits, tmp_path):
    last(train(network("resnet18"), digits, tmp_path, epochs=2))
    with pytest.raises(ValueError, match="holds a training of 2 epochs; asked for are 1"):
        last(train(network("resnet18"), digits, tmp_path, epochs=1))


def test_the_optimizer_gets_the_schedules_rate_at_every_step(digits, tmp_path, monkeypatch):
    rates = []
    step = torch.optim.SGD.step

    def spy(self, *args, **kwargs):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", spy)
    history = last(train(network(), digits, tmp_path, epochs=2, learning_rate=0.2))
    expected = [0.2 * learning_rate_factor("cosine", k / 6) for k in range(6)]
    assert rates == pytest.approx(expected, rel=1e-12)  # (1 + 2/3) / 2 and 5/6 may differ in the last bit
    assert [row["learning_rate"] for row in history] == [rates[0], rates[3]]


def test_the_paper_s_sgd_is_what_is_built(digits, tmp_path, monkeypatch):
    built = []
    start = torch.optim.SGD.__init__

    def spy(self, parameters, **options):
        built.append(options)
        start(self, parameters, **options)

    monkeypatch.setattr(torch.optim.SGD, "__init__", spy)
    next(fit(network(), *loaders(digits), checkpoints=tmp_path, epochs=1, device=CPU))
    assert built == [{"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}]


def test_the_loss_and_hits_of_a_training_are_those_of_its_images(digits, tmp_path):
    """At a learning rate of 0 no weight changes; the last batch is smaller than the others."""
    images, labels = digits.train_images, digits.train_labels
    train = DeviceLoader(images, labels, batch_size=40, device=CPU, augment=False)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(images[0].size, 10))
    options = {"checkpoints": tmp_path, "epochs": 1, "learning_rate": 0, "precision": "float32", "device": CPU}
    (history,) = last(fit(model, train, train, **options))
    with torch.no_grad():
        logits, y = model(torch.tensor(images).permute(0, 3, 1, 2) / 255), torch.tensor(labels)
    assert history["train_loss"] == pytest.approx(float(nn.functional.cross_entropy(logits, y)), rel=1e-5)
    assert (history["train_correct"], history["train_total"]) == (int((logits.argmax(1) == y).sum()), 96)


@pytest.mark.parametrize("training", [True, False])
def test_evaluate_counts_as_a_recount_does_and_restores_the_mode(digits, training):
    model = network("resnet18").train(training)
    test = DeviceLoader(digits.test_images, digits.test_labels, batch_size=7, device=CPU, augment=False)
    score = evaluate(model, test, device=CPU)
    assert all(module.training == training for module in model.modules())
    model.eval()
    x = torch.tensor(digits.test_images).permute(0, 3, 1, 2) / 255
    y = torch.tensor(digits.test_labels)
    with torch.no_grad():
        logits = model(x)
    assert (score.correct, score.total) == (int((logits.argmax(1) == y).sum()), 60)
    assert score.loss == pytest.approx(float(nn.functional.cross_entropy(logits, y)), rel=1e-5)  # float32 sums


def test_evaluate_leaves_the_batch_statistics_alone(digits):
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    _, test = loaders(digits)
    assert evaluate(model, test, device=CPU) == evaluate(model, test, device=CPU)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_the_recipe_s_own_settings_are_what_is_built(digits, tmp_path, monkeypatch):
    built = []
    for name in ("SGD", "Adam"):
        start = getattr(torch.optim, name).__init__

        def spy(self, parameters, start=start, **options):
            built.append(options)
            start(self, parameters, **options)

        monkeypatch.setattr(getattr(torch.optim, name), "__init__", spy)
    options = {"epochs": 1, "learning_rate": 0.02, "weight_decay": 1e-3}
    next(train(network(), digits, tmp_path / "sgd", **options, momentum=0.8, nesterov=False))
    next(train(network(), digits, tmp_path / "adam", **options, optimizer="adam"))
    common = {"lr": 0.02, "weight_decay": 1e-3}
    assert built == [common | {"momentum": 0.8, "nesterov": False}, common]
