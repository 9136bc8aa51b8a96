"""The attacks stay within their rules, find what a closed form or another library finds, and leave no trace."""

import copy
import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from small_network import small_network, trained_on
from torch import nn

from sdnet.csc import CSCConv2d, csc_layers, use_lambda
from sdnet.models.normalize import Normalize
from sdnet.robustness.adaptive_attacks import AlgorithmOne, softer_backward
from sdnet.robustness.autoattack import autoattack
from sdnet.robustness.calibration import Calibration
from sdnet.robustness.outcome import judge, margin
from sdnet.robustness.pgd import LOSSES, PGD, attack, direction, project, random_start

LINF = PGD("linf", eps=0.1, steps=10, step_size=0.025)
L2 = PGD("l2", eps=0.6, steps=10, step_size=0.15)
NORMS = pytest.mark.parametrize("settings", [LINF, L2], ids=["linf", "l2"])


@pytest.fixture(scope="module")
def trained(digits):
    return trained_on(digits, small_network(atoms=8))


@pytest.fixture
def few(digits):
    """40 images that the network was not trained on, in one batch."""
    return [(digits[0][1200:1240], digits[1][1200:1240])]


def linear(classes=2, pixels=12, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes)).double()


def grey(n=6, shape=(3, 2, 2), seed=0):
    """Images (n, *shape) far from 0 and 1, where a small ball does not meet the box."""
    return 0.4 + 0.2 * torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def clean_pixels(batches):
    return torch.cat([torch.from_numpy(images).permute(0, 3, 1, 2) / 255.0 for images, _ in batches])


@NORMS
@pytest.mark.parametrize("factor", [0.1, 1, 5])
def test_adversarial_images_are_finite_and_within_the_ball_and_the_box(trained, few, settings, factor):
    settings = replace(settings, eps=factor * settings.eps, step_size=factor * settings.step_size, restarts=2)
    outcome = attack(trained, few, settings)
    delta = (outcome.images - clean_pixels(few).numpy()).reshape(40, -1).astype(np.float64)
    assert np.isfinite(outcome.images).all()
    assert outcome.images.min() >= 0
    assert outcome.images.max() <= 1
    if settings.norm == "linf":
        assert np.abs(delta).max() <= settings.eps + 1e-6  # float32 pixels are known to 6e-8
    else:
        assert np.linalg.norm(delta, axis=1).max() <= settings.eps * (1 + 1e-5)  # rounding of the norm
    np.testing.assert_allclose(outcome.linf, np.abs(delta).max(axis=1), rtol=1e-6)
    np.testing.assert_allclose(outcome.l2, np.linalg.norm(delta, axis=1), rtol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
def test_one_step_on_a_linear_classifier_reaches_the_closed_form_optimum(norm, dual, loss):
    """The margin of two classes grows by eps times the dual norm of the difference of their weights."""
    model, x, y = linear(), grey(), torch.tensor([0, 1, 0, 1, 0, 1])
    outcome = attack(model, [(x, y)], PGD(norm, 0.05, steps=1, step_size=0.05, loss=loss), starts=x)
    weight = model[1].weight.detach()
    best = margin(model(x).detach(), y) + 0.05 * (weight[0] - weight[1]).norm(dual)
    expected = best if loss == "margin" else nn.functional.softplus(best)
    np.testing.assert_allclose(outcome.loss_end, expected.numpy(), rtol=1e-12)
    np.testing.assert_allclose(outcome.margin, best.numpy(), rtol=1e-12)


@NORMS
def test_a_direction_is_of_unit_length_however_small_or_large_the_gradient_and_zero_where_it_is(settings):
    gradient = torch.randn(6, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    scale = torch.tensor([1, 1e-16, 1e-20, 1e-40, 1e30, 0]).view(-1, 1, 1, 1)
    lengths = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    expected = (scale > 0) * (gradient.sign() if settings.norm == "linf" else gradient / lengths)
    towards = direction(scale * gradient, settings.norm)
    torch.testing.assert_close(towards, expected, rtol=0, atol=1e-5)  # denormals such as 1e-40 have five digits


@NORMS
def test_a_ball_of_radius_zero_leaves_the_clean_accuracy(trained, few, settings):
    outcome = attack(trained, few, replace(settings, eps=0, step_size=0))
    assert np.array_equal(outcome.images, clean_pixels(few).numpy())
    assert np.array_equal(outcome.broken, outcome.clean_pred != few[0][1])


@NORMS
def test_an_image_without_a_gradient_stays_where_it_started_and_is_no_nan(settings):
    model = linear(classes=3)
    nn.init.zeros_(model[1].weight)
    x = grey()
    outcome = attack(model, [(x, torch.zeros(6))], settings, starts=x)
    np.testing.assert_allclose(outcome.images, x, rtol=1e-15)


def test_distances_are_in_pixels_whatever_the_network_normalises_by():
    mean, std = [0.4, 0.5, 0.6], [0.1, 0.2, 0.5]
    normalize = Normalize(mean, std).double()
    x = grey()
    outcome = attack(nn.Sequential(normalize, *linear()), [(x, torch.zeros(6))], PGD("linf", 0.05, 1, 0.05), starts=x)
    moved = (normalize(torch.from_numpy(outcome.images)) - normalize(x)).abs()
    # Every pixel is at an end of the ball, which normalisation stretches by 1 / std; std is float32.
    np.testing.assert_allclose(moved, (0.05 / normalize.std).expand(6, 3, 2, 2), rtol=1e-6)


def test_an_attack_in_the_l2_norm_uses_its_budget(trained, few):
    outcome = attack(trained, few, replace(L2, steps=20, success="last"))
    assert outcome.l2.mean() > 0.95 * L2.eps


@pytest.mark.parametrize(("settings", "name"), [(LINF, "LinfPGD"), (L2, "L2PGD")], ids=["linf", "l2"])
def test_robust_accuracy_agrees_with_foolbox(trained, digits, settings, name):
    foolbox = pytest.importorskip("foolbox")
    batches = [(digits[0][1200:1700], digits[1][1200:1700])]
    x, y = clean_pixels(batches), torch.from_numpy(batches[0][1])
    ours = attack(trained, batches, replace(settings, success="last"), starts=x)
    theirs = getattr(foolbox.attacks, name)(abs_stepsize=settings.step_size, steps=settings.steps, random_start=False)
    model = copy.deepcopy(trained)  # foolbox leaves gradients in the parameters
    _, _, broken = theirs(foolbox.PyTorchModel(model, bounds=(0, 1)), x, y, epsilons=settings.eps)
    assert 0.05 < ours.robust_accuracy < 0.95, "the test problem must be neither hopeless nor trivial"
    # The same algorithm from the same point; images at a tie may fall to either side.
    assert abs(ours.robust_accuracy - (1 - float(broken.float().mean()))) <= 0.015


@NORMS
def test_an_image_starts_at_a_point_of_its_own_whatever_the_batch(trained, digits, settings):
    images, labels = digits[0][1200:1240], digits[1][1200:1240]
    whole = attack(trained, [(images, labels)], settings)
    parts = attack(trained, [(images[i : i + 7], labels[i : i + 7]) for i in range(0, 40, 7)], settings)
    alone = attack(trained, [(images[11:12], labels[11:12])], settings, indices=[11])
    other = attack(trained, [(images, labels)], replace(settings, seed=1))
    assert np.array_equal(whole.broken, parts.broken)
    # Convolutions may sum in another order in another batch; a random start differs by eps.
    np.testing.assert_allclose(whole.losses[:, 0], parts.losses[:, 0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(whole.losses[11, 0], alone.losses[0, 0], rtol=1e-4, atol=1e-6)
    assert np.array_equal(whole.index, parts.index)
    assert np.abs(whole.losses[:, 0] - other.losses[:, 0]).max() > 1e-3


@NORMS
def test_random_starts_fill_the_ball_evenly_and_differ_between_restarts(settings):
    """A share r^n of a ball's volume lies within a share r of its radius; of a cube, along one axis, a share r."""
    starts = torch.stack([random_start((1, 2, 2), settings, 0, i) for i in range(2000)]).flatten(1)
    radius = starts.norm(dim=1) ** 4 if settings.norm == "l2" else starts.abs().flatten()
    shares = radius / (settings.eps**4 if settings.norm == "l2" else settings.eps)
    assert stats.kstest(shares.numpy(), "uniform").pvalue > 1e-3
    assert starts.mean(dim=0).abs().max() < 0.1 * settings.eps  # 4 standard errors of the mean are 0.05 eps
    assert not torch.equal(random_start((1, 2, 2), settings, 1, 0), random_start((1, 2, 2), settings, 0, 0))
    assert torch.equal(project(starts.view(-1, 1, 2, 2), settings.norm, settings.eps).flatten(1), starts)


@NORMS
def test_the_last_iterate_is_returned_where_it_alone_counts(trained, few, settings):
    outcome = attack(trained, few, replace(settings, success="last", step_size=settings.eps))
    again = nn.functional.cross_entropy(
        trained(torch.from_numpy(outcome.images)), torch.from_numpy(outcome.label), reduction="none"
    )
    np.testing.assert_allclose(outcome.loss_end, again.detach(), rtol=1e-5, atol=1e-6)  # float32
    assert (outcome.losses.max(axis=1) > outcome.loss_end + 1e-3).any(), "the last iterate must not always be the best"


def test_an_image_misclassified_before_the_attack_counts_as_broken():
    x, y = grey(), torch.zeros(6, dtype=torch.int64)
    model = linear()
    model[1].bias.data = torch.tensor([100.0, 0], dtype=torch.float64)  # class 0, whatever the image
    wrong = torch.tensor([[0.0, 1.0]]).repeat(6, 1)
    assert not judge(model, x, y, model(x).detach(), x, "linf", 0.1)["broken"].any()
    judged = judge(model, x, y, wrong, x, "linf", 0.1)
    assert judged["broken"].all()
    assert (set(judged["clean_pred"]), set(judged["adv_pred"])) == ({1}, {0})


@pytest.mark.parametrize(
    ("shift", "norm", "eps"), [(0.101, "linf", 0.1), (0.05, "l2", 0.1), (-0.9, "linf", 1), (0.9, "linf", 1)]
)
def test_images_outside_the_ball_or_the_box_are_no_result(shift, norm, eps):
    """Of 12 pixels each, of 0.4 to 0.6."""
    model, x, y = linear(), grey(), torch.zeros(6, dtype=torch.int64)
    with pytest.raises(RuntimeError, match=rf"an image left the {norm} ball of radius {eps} or \[0, 1\]"):
        judge(model, x, y, model(x).detach(), x + shift, norm, eps)


@NORMS
def test_more_restarts_and_more_candidates_never_break_fewer_images(trained, few, settings):
    short = replace(settings, steps=3)
    once, thrice = attack(trained, few, short), attack(trained, few, replace(short, restarts=3))
    last = attack(trained, few, replace(short, success="last"))
    assert (thrice.broken >= once.broken).all()
    assert (thrice.margin >= once.margin).all()
    assert (once.broken >= last.broken).all()
    assert 0 < once.broken.mean() < 1, "the test problem must be neither hopeless nor trivial"


@NORMS
def test_an_image_that_is_broken_is_left_alone_by_further_restarts(trained, few, settings):
    short = replace(settings, steps=3)
    once, thrice = attack(trained, few, short), attack(trained, few, replace(short, restarts=3))
    assert 0 < once.broken.sum() < len(once.broken)
    assert np.array_equal(thrice.images[once.broken], once.images[once.broken])


@NORMS
def test_robust_accuracy_falls_with_the_radius_and_with_steps(trained, few, settings):
    by_radius = [
        attack(trained, few, replace(settings, eps=f * settings.eps, step_size=f * settings.step_size)).robust_accuracy
        for f in (0.1, 0.5, 1, 2, 6)
    ]
    assert np.all(np.diff(by_radius) <= 0)
    assert by_radius[0] > by_radius[-1] == 0
    by_steps = [attack(trained, few, replace(settings, steps=n)).robust_accuracy for n in (1, 5, 25)]
    assert np.all(np.diff(by_steps) <= 0)  # the iterates of a short attack are the first ones of a long attack
    assert by_steps[-1] < by_steps[0]


def test_the_record_tells_when_an_image_was_broken(trained, few):
    outcome = attack(trained, few, replace(LINF, restarts=2))
    reached = outcome.first_broken_step
    assert outcome.losses.shape == (40, LINF.steps + 1)
    assert np.array_equal(outcome.broken, (outcome.adv_pred != outcome.label) | (outcome.clean_pred != outcome.label))
    assert np.array_equal(reached >= 0, outcome.adv_pred != outcome.label)
    assert np.array_equal(outcome.margin > 0, outcome.adv_pred != outcome.label)
    assert reached.max() <= LINF.steps
    assert outcome.loss_end.mean() > outcome.loss_start.mean()


@pytest.mark.parametrize("training", [False, True])
def test_an_attack_leaves_the_network_and_torch_as_they_were(trained, few, training):
    trained.train(training)
    trained[-1].weight.requires_grad_(False)
    default, seen = torch.backends.cudnn.conv.fp32_precision, []
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    watch = trained[0].register_forward_hook(
        lambda layer, x, z: seen.append((torch.backends.cudnn.conv.fp32_precision, layer.training))
    )
    try:
        before = {name: value.clone() for name, value in trained.state_dict().items()}
        generator = torch.get_rng_state()
        with use_lambda(trained, 0.25):
            attack(trained, few, LINF)
            assert trained[0].lmbd == 0.25
        assert all(module.training == training for module in trained.modules())
        assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())
        assert all(parameter.grad is None for parameter in trained.parameters())
        required = [parameter.requires_grad for parameter in trained.parameters()]
        assert required == [True, True, True, False, True]
        assert torch.equal(torch.get_rng_state(), generator)
        assert torch.backends.cudnn.conv.fp32_precision == "tf32"
        assert set(seen) == {("ieee", False)}
    finally:
        watch.remove()
        torch.backends.cudnn.conv.fp32_precision = default
        trained.eval().requires_grad_(True)


class ReadsSwitches(nn.Sequential):
    """A network whose forward reads torch's switches of precision, the older ones, too, and sets them for a while."""

    def forward(self, x):
        assert [operation.fp32_precision for operation in OPERATIONS] == ["ieee"] * len(OPERATIONS)
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cuda.matmul.allow_tf32
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=torch.backends.cudnn.allow_tf32):
            logits = super().forward(x)
        torch.backends.cudnn.conv.fp32_precision = torch.backends.cudnn.rnn.fp32_precision = "ieee"
        return logits


CUDNN, MKLDNN = torch.backends.cudnn, torch.backends.mkldnn
OPERATIONS = CUDNN.conv, CUDNN.rnn, torch.backends.cuda.matmul, MKLDNN.conv, MKLDNN.rnn, MKLDNN.matmul


@pytest.mark.parametrize("tf32", [True, False])
@pytest.mark.parametrize("operations", [(), (MKLDNN.matmul, MKLDNN.conv), (CUDNN.conv, CUDNN.rnn)])
@pytest.mark.parametrize("matmul", ["highest", "medium"])
def test_an_attack_is_in_full_float32_whichever_switch_allows_less(trained, few, tf32, operations, matmul):
    def switches():
        found = [operation.fp32_precision for operation in OPERATIONS]
        for operation in OPERATIONS:  # where they are alike, the older switches can be read, or raise for what they are
            operation.fp32_precision = "ieee"
        try:
            found += [torch.get_float32_matmul_precision(), CUDNN.allow_tf32]
        except RuntimeError:
            found.append("tf32")
        for operation, precision in zip(OPERATIONS, found, strict=False):
            operation.fp32_precision = precision
        return found

    default = [operation.fp32_precision for operation in OPERATIONS]
    try:
        CUDNN.allow_tf32 = tf32
        torch.set_float32_matmul_precision(matmul)
        for operation in operations:
            operation.fp32_precision = "bf16" if operation in (MKLDNN.matmul, MKLDNN.conv) else "ieee"
        before = switches()
        attack(ReadsSwitches(*trained), few[:1], replace(LINF, steps=1))
        assert switches() == before
    finally:
        CUDNN.allow_tf32 = True
        torch.set_float32_matmul_precision("highest")
        for operation, precision in zip(OPERATIONS, default, strict=True):
            operation.fp32_precision = precision


def test_autocast_does_not_reach_the_attacked_network(trained, few):
    with torch.autocast("cpu", torch.bfloat16):
        inside = attack(trained, few, LINF)
    assert np.array_equal(inside.losses, attack(trained, few, LINF).losses)


def test_an_attack_can_start_from_given_images_which_are_projected(trained, few):
    first = attack(trained, few, LINF)
    again = attack(trained, few, LINF, starts=first.images)
    np.testing.assert_allclose(
        again.loss_start,
        nn.functional.cross_entropy(
            trained(torch.from_numpy(first.images)), torch.from_numpy(first.label), reduction="none"
        ).detach(),
        rtol=1e-5,
        atol=1e-6,
    )  # float32
    assert (again.margin >= first.margin - 1e-5).all()
    smaller = replace(LINF, eps=LINF.eps / 2)
    assert attack(trained, few, smaller, starts=first.images).linf.max() <= smaller.eps + 1e-6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": "L1"}, "norm 'L1' is unknown; choose 'linf' or 'l2'"),
        ({"loss": "ce"}, "loss 'ce' is unknown; choose 'cross-entropy' or 'margin'"),
        ({"success": "first"}, "choose 'any' or 'last'"),
        ({"eps": -0.1}, "eps is -0.1"),
        ({"eps": 8}, "8 grey levels are 8/255"),
        ({"eps": float("nan")}, "eps is nan"),
        ({"norm": "l2", "eps": float("inf")}, "eps is inf"),
        ({"steps": 0}, "steps is 0; give a whole number of at least 1"),
        ({"steps": 2.5}, "steps is 2.5"),
        ({"steps": 2.0}, "steps is 2.0; give a whole number"),
        ({"steps": float("nan")}, "steps is nan"),
        ({"restarts": 0}, "restarts is 0"),
        ({"seed": -1}, "seed is -1; give a whole number of at least 0"),
        ({"step_size": 0}, "step_size is 0; give a positive length"),
    ],
)
def test_an_impossible_attack_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(LINF, **change)


class Broken(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.inner, self.change = linear(classes=3), forward

    def forward(self, x):
        return self.change(self.inner(x), x)


@pytest.mark.parametrize(
    ("model", "x", "y", "message"),
    [
        (linear(), grey() * 3, [0] * 6, "let the network normalise them"),
        (linear(), grey() * float("nan"), [0] * 6, "pixels range from nan"),
        (linear(), grey(), [2] * 6, "the network has 2 classes"),
        (linear(), grey(), [0, 1, 0, 1, 0, -1], "labels range from -1 to 1; the network has 2 classes"),
        (linear(classes=1), grey(), [0] * 6, "the network has one class"),
        (linear(), grey()[:0], [], "a batch is empty"),
        (linear(), grey(), [0] * 5, r"6 images have labels of shape \(5,\); give each image the number of its class"),
        (linear(), grey(), [[0]] * 6, r"6 images have labels of shape \(6, 1\)"),
        (linear(), 255 * grey(), [0] * 6, r"pixels reach 1\d\d; give floats in \[0, 1\]"),
        (linear(), (255 * grey()).int(), [0] * 6, r"images are torch\.int32; give uint8"),
        (linear().bfloat16(), grey(), [0] * 6, "model.float"),
        (
            Broken(lambda logits, x: logits.where(torch.arange(6)[:, None] < 5, float("inf"))),
            grey(),
            [0] * 6,
            "not finite on clean images",
        ),
        (
            Broken(lambda logits, x: (x.mean() - x.mean().detach()).sqrt() + logits),
            grey(),
            [0] * 6,
            "gradient is not finite",
        ),
        (Broken(lambda logits, x: logits.detach()), grey(), [0] * 6, "have no gradient in the image"),
    ],
)
def test_what_cannot_be_attacked_is_refused_in_a_sentence(model, x, y, message):
    with pytest.raises(ValueError, match=message):
        attack(model, [(x, torch.tensor(y))], LINF)


def test_a_radius_beyond_every_image_and_no_image_at_all_are_refused():
    with pytest.raises(ValueError, match="is it in grey levels"):
        attack(linear(), [(grey(), torch.zeros(6))], replace(L2, eps=8))
    with pytest.raises(ValueError, match="there is no batch"):
        attack(linear(), [], L2)
    with pytest.raises(ValueError, match="lambdas is empty"):
        attack(linear(), [(grey(), torch.zeros(6))], L2, lambdas=[])
    with pytest.raises(ValueError, match=r"starts of shape \(6, 1, 2, 2\) for images of \(6, 3, 2, 2\)"):
        attack(linear(), [(grey(), torch.zeros(6))], L2, starts=grey()[:, :1])
    with pytest.raises(ValueError, match="there are 5 starts for 6 images"):
        attack(linear(), [(grey(), torch.zeros(6))], L2, starts=grey()[:5])
    with pytest.raises(ValueError, match="there are 6 indices for 12 images"):
        attack(linear(), 2 * [(grey(), torch.zeros(6))], L2, indices=range(6))


def test_an_attack_needs_no_gradients_of_its_caller(trained, few):
    expected = attack(trained, few, LINF)
    with torch.no_grad():
        assert (attack(trained, few, LINF).images == expected.images).all()


def test_gradients_are_softened_in_a_network_that_ran_compiled_before(trained, few):
    x, y = clean_pixels(few), torch.from_numpy(few[0][1])

    def gradient(model):
        (image := x.clone()).requires_grad_()
        with use_lambda(trained, 0.3):
            return torch.autograd.grad(nn.functional.cross_entropy(model(image), y), image)[0]

    compiled = torch.compile(trained, backend="eager", dynamic=False)  # as with several sizes, of other tests
    plain = gradient(compiled)
    with softer_backward(trained, 0):
        expected = gradient(trained)
    with softer_backward(compiled, 0):
        torch.testing.assert_close(gradient(compiled), expected)
    assert not torch.allclose(plain, expected)


def test_the_sum_over_lambdas_is_ascended_and_judged_at_the_networks_own(trained, few):
    x, y = clean_pixels(few), torch.from_numpy(few[0][1])
    outcome = attack(trained, few, replace(LINF, steps=1, success="last"), lambdas=[0.1, 0.6], starts=x)
    expected = 0
    for lmbd in (0.1, 0.6):
        with use_lambda(trained, lmbd):
            expected = expected + nn.functional.cross_entropy(trained(x), y, reduction="none").detach()
    np.testing.assert_allclose(outcome.loss_start, expected, rtol=1e-5, atol=1e-6)  # float32
    adversarial = torch.from_numpy(outcome.images)
    np.testing.assert_allclose(outcome.margin, margin(trained(adversarial), y).detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("nonnegative", [False, True])
def test_a_softer_backward_pass_changes_the_gradient_and_not_the_codes(nonnegative):
    layer = CSCConv2d(3, 5, 3, padding=1, lmbd=0.2, nonnegative=nonnegative).double().eval()
    x = grey(2, (3, 6, 6)).requires_grad_()

    def gradient():
        return torch.autograd.grad(layer(x).pow(2).sum(), x)[0]

    plain, codes = gradient(), layer(x)
    with softer_backward(layer, 1):
        assert torch.equal(gradient(), plain)
    for factor in (0, 0.25):
        with softer_backward(layer, factor):
            assert torch.equal(layer(x), codes)
            assert not torch.allclose(gradient(), plain)
    assert torch.equal(gradient(), plain)


@pytest.mark.parametrize("nonnegative", [False, True])
def test_straight_through_finds_the_gradient_that_a_high_threshold_hides(nonnegative):
    """Without a threshold the code is linear in the image, so its gradient does not depend on lambda."""
    layer = CSCConv2d(3, 5, 3, padding=1, lmbd=100, nonnegative=nonnegative).double().eval()
    x = grey(2, (3, 6, 6)).requires_grad_()
    weights = torch.randn(layer(x).shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert not torch.autograd.grad((layer(x) * weights).sum(), x)[0].any()
    with softer_backward(layer, 0):
        straight = torch.autograd.grad((layer(x) * weights).sum(), x)[0]
    layer.nonnegative = False
    with use_lambda(layer, 0):
        torch.testing.assert_close(straight, torch.autograd.grad((layer(x) * weights).sum(), x)[0])


def test_a_softer_backward_pass_needs_a_threshold_and_a_share(trained):
    with pytest.raises(ValueError, match="factor is 4"), softer_backward(trained, 4):
        pass
    with pytest.raises(ValueError, match="no CSC layer"), softer_backward(linear(), 0):
        pass


def line(slope, intercept):
    return Calibration(slope, intercept, 1.0, 0.05, 1.5, 0, 10, lambda0=0.1, definition="norm")


def test_algorithm_one_as_a_network_predicts_and_is_attacked_at_its_lambda(trained, few):
    defended = AlgorithmOne(trained, line(slope=0, intercept=0.5))
    outcome = attack(defended, few, LINF)
    with pytest.raises(ValueError, match="AlgorithmOne chooses another"):
        attack(defended, few, LINF, lambdas=[0.1, 0.5])
    with use_lambda(trained, 0.5):
        assert np.array_equal(outcome.images, attack(trained, few, LINF).images)
    assert not np.array_equal(outcome.images, attack(trained, few, LINF).images)
    assert [layer.lmbd for layer in csc_layers(trained)] == [0.1]


@pytest.mark.parametrize(("every", "estimates"), [(1, 10), (4, 3), (10, 1)])
def test_algorithm_one_is_renewed_as_often_as_asked_and_always_when_judged(trained, few, every, estimates, monkeypatch):
    seen = []
    lambda_for = Calibration.lambda_for
    monkeypatch.setattr(Calibration, "lambda_for", lambda self, r: seen.append(r) or lambda_for(self, r))
    attack(AlgorithmOne(trained, line(slope=0.3, intercept=0), every), few, LINF)
    # Without gradients: the clean images, the last iterate, and the images that are returned.
    assert len(seen) == estimates + 3
    assert len(set(seen)) >= estimates


def test_algorithm_one_refuses_to_be_renewed_never(trained):
    with pytest.raises(ValueError, match="every is 0"):
        AlgorithmOne(trained, line(0, 0.5), 0)


def test_autoattack_repeats_itself_takes_any_memory_layout_and_restores_the_generator(trained, few):
    pytest.importorskip("pyautoattack")
    x, y = clean_pixels(few), few[0][1]
    generator = torch.get_rng_state()
    first = autoattack(trained, [(x[:30], y[:30]), (x[30:], y[30:])], "l2", L2.eps, attacks=("apgd-ce", "apgd-t"))
    again = autoattack(trained, few, "l2", L2.eps, attacks=("apgd-ce", "apgd-t"))  # channels-last, of bytes
    alone = autoattack(trained, [(x.to(memory_format=torch.channels_last), y)], "l2", L2.eps, attacks=("apgd-ce",))
    assert torch.equal(torch.get_rng_state(), generator)
    assert np.array_equal(first.images, again.images)
    assert (first.broken >= alone.broken).all()
    assert first.broken.mean() >= attack(trained, few, L2).broken.mean() - 0.05  # it is no weaker than PGD-10
    assert np.array_equal(first.broken_by != "", first.broken)
    assert (first.broken_by[first.clean_pred != first.label] == "clean").all()
    assert trained[0].weight.grad is None


def test_the_warnings_of_autoattack_are_kept(few):
    pytest.importorskip("pyautoattack")
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Softmax(dim=1))
    labels = model(clean_pixels(few)).argmax(dim=1)  # so that there is something to attack
    flags = autoattack(model, [(clean_pixels(few), labels)], "linf", 0.1, attacks=("apgd-ce",)).flags
    assert any("probability distribution" in flag for flag in flags)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "l1"}, "choose 'linf' or 'l2'"),
        ({"attacks": ("pgd",)}, "pgd is not among"),
        ({"eps": 8}, "eps is 8; give a radius in pixels of"),
        ({}, "apgd-t needs at least 4"),
        ({"attacks": ("apgd-ce",)}, r"computes in torch\.float64; convert it with model\.float\(\)"),
    ],
)
def test_what_autoattack_cannot_do_is_refused(options, message):
    pytest.importorskip("pyautoattack")
    with pytest.raises(ValueError, match=message):
        autoattack(linear(classes=3), [(grey(), torch.zeros(6))], **{"norm": "linf", "eps": 0.1, **options})


def test_all_but_the_targeted_loss_attack_a_network_of_three_classes():
    pytest.importorskip("pyautoattack")
    untargeted = ("apgd-ce", "fab-t", "square")
    model = linear(classes=3).float()
    labels = model(grey().float()).argmax(dim=1)
    outcome = autoattack(model, [(grey(), labels)], "linf", 1e-4, attacks=untargeted)
    assert outcome.broken_by.tolist() == [""] * 6, "each attack was tried on each image"


def test_autoattack_without_its_package_says_what_to_install(monkeypatch, few, trained):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install pyautoattack"):
        autoattack(trained, few, "linf", 0.1)
