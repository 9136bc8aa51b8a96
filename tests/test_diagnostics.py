"""Each check of an attack accepts a good one, and is set off by the fault it is there for."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from sdnet.csc import CSCConv2d
from sdnet.models.normalize import Normalize
from sdnet.robustness import diagnostics
from sdnet.robustness.pgd import PGD, attack

ATTACKS = [PGD("linf", 0.02, 20, 0.02 * 2.5 / 20), PGD("l2", 0.15, 20, 0.15 * 2.5 / 20)]
BOTH = pytest.mark.parametrize("settings", ATTACKS, ids=["linf", "l2"])


class Hidden(torch.autograd.Function):
    """The identity, with a gradient that is `scale` times too large."""

    @staticmethod
    def forward(ctx, x, scale):
        ctx.scale = scale
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return ctx.scale * gradient, None


class Masked(nn.Module):
    """A network whose gradients are wrong by a factor: -1 sends an attack the wrong way, 0 nowhere."""

    def __init__(self, inner, scale):
        super().__init__()
        self.inner, self.scale = inner, scale

    def forward(self, x):
        return self.inner(Hidden.apply(x, self.scale))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return nn.Sequential(
        Normalize([0.5], [0.05]), nn.Conv2d(1, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 16, 4)
    ).eval()


@pytest.fixture(scope="module")
def batches(model):
    """100 images (1, 6, 6), labelled as the network sees them, in two batches; the centre of the box."""
    x = 0.3 + 0.4 * torch.rand(100, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(dim=1)
    return [(x[:60], y[:60]), (x[60:], y[60:])]


def accepted(rows):
    return [row.accepted for row in rows if row.accepted is not None]


@BOTH
def test_a_working_attack_passes(model, batches, settings):
    outcome = attack(model, batches, settings)
    assert 0 <= outcome.robust_accuracy < 0.9, "the attack must do something"
    rows = [
        *diagnostics.control(attack(model, batches, replace(settings, eps=1, step_size=0.3)), settings.norm),
        *diagnostics.more_steps(model, batches, settings, steps=(4, 20, 40)),
        *diagnostics.loss_curve(
            attack(model, batches, replace(settings, steps=60, step_size=settings.eps / 10)).losses
        ),
        *diagnostics.radius_curve(model, batches, settings),
        *diagnostics.single_step(model, batches, settings, outcome),
        *diagnostics.random_noise(model, batches, settings, outcome, draws=5),
        *diagnostics.zero_gradients(model, batches),
        *diagnostics.gradient_accuracy(model, batches),
    ]
    assert [(row.check, row.what, row.value) for row in rows if row.accepted is False] == []
    assert {row.check for row in rows} == {"D1", "D2", "D3", "D4", "D5", "D8", "D9", "D10"}


@BOTH
def test_a_gradient_that_points_the_wrong_way_sets_off_the_alarms(model, batches, settings):
    masked = Masked(model, -1)
    outcome = attack(masked, batches, settings)
    genuine = attack(model, batches, settings)
    assert not any(accepted(diagnostics.control(attack(masked, batches, settings), settings.norm)))
    assert False in accepted(diagnostics.loss_curve(attack(masked, batches, settings, starts=_pixels(batches)).losses))
    assert False in accepted(diagnostics.radius_curve(masked, batches, settings))
    assert not any(accepted(diagnostics.transfer(masked, outcome, {"with true gradients": genuine.images})))
    assert not any(accepted(diagnostics.random_noise(masked, batches, settings, outcome, draws=100)))
    assert not any(accepted(diagnostics.gradient_accuracy(masked, batches)))
    assert all(accepted(diagnostics.transfer(model, genuine, {"with false gradients": outcome.images})))


def _pixels(batches):
    return torch.cat([x for x, _ in batches])


def test_a_threshold_above_every_coefficient_is_reported_as_zero_gradients(batches):
    torch.manual_seed(0)
    hidden = nn.Sequential(CSCConv2d(1, 4, 3, lmbd=50), nn.Flatten(), nn.Linear(64, 4)).eval()
    images, pixels = diagnostics.zero_gradients(hidden, batches)
    assert (images.value, images.accepted, pixels.value) == (1, False, 1)
    assert attack(hidden, batches, ATTACKS[1]).images.shape == (100, 1, 6, 6)


def test_a_step_that_is_too_small_is_noticed_by_another_step_size(model, batches):
    slow = PGD("l2", 0.5, 4, 0.02, success="last")
    rows = diagnostics.other_step_sizes(model, batches, slow, attack(model, batches, slow))
    assert [row.accepted for row in rows][1] is False
    enough = replace(slow, steps=30, step_size=0.05)
    assert all(accepted(diagnostics.other_step_sizes(model, batches, enough, attack(model, batches, enough))))


@pytest.mark.parametrize(("left", "expected"), [((31, 28.9), [True, False]), ((31.1, 29), [False, True])])
def test_a_change_by_more_than_a_point_either_way_is_one(leaving, left, expected):
    made = leaving(*left)
    rows = diagnostics.other_step_sizes(None, of(1000), ATTACKS[0], SimpleNamespace(robust_accuracy=0.3))
    assert [one.step_size / ATTACKS[0].step_size for one in made] == [0.5, 2]
    assert accepted(rows) == expected


@pytest.mark.parametrize(("by_noise", "far_fewer"), [(2, True), (3, False)])
def test_noise_that_breaks_more_than_half_as_many_images_as_the_attack_is_noticed(by_noise, far_fewer):
    """Of 10 images of one pixel, of the second class above 0.5, the attack breaks 4; one is misclassified clean."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    model.load_state_dict({"1.weight": torch.tensor([[-1.0], [1.0]]), "1.bias": torch.tensor([0.5, -0.5])})
    x = torch.full((10, 1, 1, 1), 0.6)
    x[:by_noise], x[9] = 0.501, 0.4
    y = torch.ones(10, dtype=int)
    outcome = SimpleNamespace(
        label=y.numpy(), clean_pred=np.array([1] * 9 + [0]), broken=np.array([True] * 4 + [False] * 5 + [True])
    )
    left, share = diagnostics.random_noise(model, [(x[:5], y[:5]), (x[5:], y[5:])], ATTACKS[0], outcome, draws=20)
    assert (left.value, share.value, share.accepted) == (pytest.approx(90 - 10 * by_noise), by_noise / 4, far_fewer)


@pytest.mark.parametrize(("wrong", "expected"), [(1, [True, True]), (2, [True, False]), (6, [False, False])])
def test_one_image_in_ten_may_have_a_wrong_derivative(model, batches, wrong, expected):
    scale = torch.ones(10, 1, 1, 1)
    scale[:wrong] = -1
    ten = [tuple(part[:10] for part in batches[0])]
    assert accepted(diagnostics.gradient_accuracy(Masked(model, scale), ten)) == expected


@pytest.mark.parametrize(("lost", "ok"), [(1, True), (2, False)])
def test_the_black_box_attack_tries_what_is_left_and_its_share_is_of_all(monkeypatch, lost, ok):
    """Of 1,000 images, labelled by their number, the odd ones withstood the gradients."""
    labels, tried = np.arange(1000), []

    def square(model, kept, norm, eps, attacks):
        ((_, numbers),) = kept
        tried.extend(numbers)
        return SimpleNamespace(broken=numbers > 999 - 2 * lost)

    monkeypatch.setattr(diagnostics, "autoattack", square)
    both = [(labels[:601], labels[:601]), (labels[601:], labels[601:])]
    (row,) = diagnostics.black_box(None, SimpleNamespace(broken=labels % 2 == 0), both, "linf", 0.02)
    assert tried == list(range(1, 1000, 2))
    assert (row.value, row.accepted) == (pytest.approx(lost / 10), ok)


def test_an_attack_no_better_than_one_step_is_noticed(model, batches):
    once = PGD("linf", 0.02, 1, 0.02, success="last")
    outcome = attack(model, batches, once, starts=_pixels(batches))
    (row,) = diagnostics.single_step(model, batches, once, outcome)
    assert (row.value, row.accepted) == (0, False)


@pytest.fixture
def leaving(monkeypatch):
    """Attacks that leave these percentages of the images, one after another; gives the list of their settings."""

    def leave(*percentages):
        left, made = iter(percentages), []

        def attack(model, batches, settings):
            made.append(settings)
            return SimpleNamespace(robust_accuracy=next(left) / 100)

        monkeypatch.setattr(diagnostics, "attack", attack)
        return made

    return leave


def of(images):
    return [(torch.zeros(images - 1, 1, 1, 1), np.zeros(images - 1)), (torch.zeros(1, 1, 1, 1), np.zeros(1))]


@pytest.mark.parametrize(
    ("images", "left", "expected"),
    [
        (1000, (40, 20, 20.5, 20), [True, True]),
        (1000, (40, 20, 20.6, 20), [False, True]),
        (1000, (40, 20, 20, 18.9), [True, False]),
        (1000, (40, 20, 20, 21.1), [False, False]),
        (20, (40, 20, 25, 30), [True, True]),  # one image more, or less, is no change
        (20, (40, 20, 30, 30), [False, True]),
    ],
)
def test_more_steps_that_leave_more_images_or_go_on_breaking_them_are_noticed(leaving, images, left, expected):
    made = leaving(*left)
    rows = diagnostics.more_steps(None, of(images), ATTACKS[0], steps=(5, 10, 20, 40))
    assert [one.steps * one.step_size for one in made] == pytest.approx([2.5 * 0.02] * 4), "all cross the ball"
    assert [row.value for row in rows[:4]] == pytest.approx(left)
    assert accepted(rows) == expected


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        ((99, 80, 60, 40.5, 41, 10, 0.5), [True, True]),
        ((99, 80, 60, 40.4, 41, 10, 0.5), [False, True]),
        ((99, 80, 60, 40, 30, 10, 0.6), [True, False]),
    ],
)
def test_a_larger_ball_that_leaves_more_images_and_a_very_large_one_that_leaves_any_are_noticed(
    leaving, left, expected
):
    made = leaving(*left)
    rows = diagnostics.radius_curve(None, of(1000), ATTACKS[1])
    assert [one.steps * one.step_size for one in made] == pytest.approx([2.5 * one.eps for one in made])
    assert [row.value for row in rows[:7]] == pytest.approx(left)
    assert accepted(rows) == expected


def test_a_flat_or_falling_loss_curve_is_told_from_one_that_still_rises():
    steps = np.arange(41)
    saturating, rising = 1 - np.exp(-steps / 4), steps / 40
    assert accepted(diagnostics.loss_curve(saturating[None])) == [True, True]
    assert accepted(diagnostics.loss_curve(rising[None])) == [True, False]
    assert accepted(diagnostics.loss_curve(-rising[None])) == [False, False]
    for late, flat in ((0.09, True), (0.11, False)):
        curve = np.interp(steps, [0, 30, 40], [0, 1 - late, 1])
        assert accepted(diagnostics.loss_curve(curve[None])) == [True, flat]
    assert accepted(diagnostics.loss_curve(rising[None, :3])) == [True, False], "of so few steps, too"


def test_a_black_box_attack_breaks_what_masked_gradients_hid(model, batches):
    pytest.importorskip("pyautoattack")
    some = [(x[:6], y[:6]) for x, y in batches]
    masked, settings = Masked(model, 0), ATTACKS[0]
    outcome = attack(masked, some, settings)
    (row,) = diagnostics.black_box(masked, outcome, some, settings.norm, 2 * settings.eps)
    assert not row.accepted
    weak = replace(settings, eps=settings.eps / 8, step_size=settings.step_size / 8)
    genuine = attack(model, some, weak)
    assert not genuine.broken.all(), "the black-box attack must have images to try"
    (row,) = diagnostics.black_box(model, genuine, some, weak.norm, weak.eps)
    assert row.accepted


@pytest.mark.parametrize(("left", "ok"), [(1, True), (2, False)])
@pytest.mark.parametrize(("norm", "images"), [("l2", 50), ("linf", 200)])
def test_what_is_accepted_is_accepted_whatever_the_rounding(norm, images, left, ok):
    """One image of 50 is 2%, of which 1 - 49 / 50 is a little more."""
    broken = SimpleNamespace(robust_accuracy=1 - (images - left) / images)
    assert accepted(diagnostics.control(broken, norm)) == [ok]
