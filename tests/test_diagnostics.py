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
    assert diagnostics.zero_gradients(hidden, batches, "margin")[0].value == 1


def test_a_step_that_is_too_small_is_noticed_by_another_step_size(model, batches):
    slow = PGD("l2", 0.5, 4, 0.02, success="last")
    rows = diagnostics.other_step_sizes(model, batches, slow, attack(model, batches, slow))
    assert [row.accepted for row in rows][1] is False
    enough = replace(slow, steps=30, step_size=0.05)
    assert all(accepted(diagnostics.other_step_sizes(model, batches, enough, attack(model, batches, enough))))


def test_an_attack_no_better_than_one_step_is_noticed(model, batches):
    once = PGD("linf", 0.02, 1, 0.02, success="last")
    outcome = attack(model, batches, once, starts=_pixels(batches))
    (row,) = diagnostics.single_step(model, batches, once, outcome)
    assert (row.value, row.accepted) == (0, False)


def test_a_flat_or_falling_loss_curve_is_told_from_one_that_still_rises():
    steps = np.arange(41)
    saturating, rising = 1 - np.exp(-steps / 4), steps / 40
    assert accepted(diagnostics.loss_curve(saturating[None])) == [True, True]
    assert accepted(diagnostics.loss_curve(rising[None])) == [True, False]
    assert accepted(diagnostics.loss_curve(-rising[None])) == [False, False]
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
def test_what_is_accepted_is_accepted_whatever_the_rounding(left, ok):
    """One image of 50 is 2%, of which 1 - 49 / 50 is a little more."""
    broken = SimpleNamespace(robust_accuracy=1 - (50 - left) / 50)
    assert accepted(diagnostics.control(broken, "l2")) == [ok]
