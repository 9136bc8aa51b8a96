"""MDEQ finds its fixed point, differentiates it, and has the size and structure of the published network."""

import copy
import math
import sys

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.utils import parametrize
from torchdeq import get_deq

from sdnet.models.mdeq import MDEQ, mdeq


def count(module):
    return sum(p.numel() for p in module.parameters())


def tiny(branches=2, **options):
    """Two or three branches in double precision."""
    options = {
        "expansion": 2,
        "groups": 4,
        "pretrain": 0,
        "f_max_iter": 60,
        "f_tol": 1e-13,
        "b_tol": 1e-13,
    } | options
    return MDEQ(10, [8, 16, 32][:branches], [4, 8, 16][:branches], 16 * branches, in_channels=3, **options).double()


def contractive(branches=2, **options):
    """A tiny network whose f is a contraction, in evaluation mode.

    Group norm makes f independent of the weights' scale, so the norms' own scales are what has to shrink.
    """
    torch.manual_seed(0)
    model = tiny(branches, **options)
    for branch, post in zip(model.f.branches, model.f.post, strict=True):
        for norm, scale in ((branch.norm2, 0.3), (post[-1], 0.1)):
            nn.init.constant_(norm.weight, scale)
            nn.init.normal_(norm.bias)
    # At the initial 0.01 the network behind the stem would hardly see the image.
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and not parametrize.is_parametrized(module):
            nn.init.kaiming_normal_(module.weight)
    return model.eval()


@pytest.fixture
def images():
    return torch.randn(2, 3, 8, 8, dtype=torch.double, generator=torch.Generator().manual_seed(5))


def gradients(model, x):
    y = model(x)
    cotangent = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    return torch.autograd.grad((y * cotangent).sum(), list(model.parameters()))


# The fixed point


@pytest.mark.parametrize("branches", [2, 3])
def test_states_are_a_fixed_point(images, branches):
    model = contractive(branches)
    u = model.stem(images)
    with torch.no_grad():
        z = model.equilibrium(u)
        again = model.f(z, u, [None] * branches)
    assert max((a - b).norm().item() for a, b in zip(again, z, strict=True)) < 1e-9
    assert min(a.norm().item() for a in z) > 1
    report = model.solver_report()
    assert report["unconverged"] == 0
    assert report["residual"] < 1e-10
    assert 3 < report["solver_steps"] < 60


def test_solver_finds_what_plain_iteration_finds(images):
    """Outputs and gradients: implicit against backpropagation through 60 applications of f."""
    model = contractive(3)
    solved, solved_gradients = model(images), gradients(model, images)
    model.equilibrium = lambda u: iterate(model.f, u, model.channels, 60)
    torch.testing.assert_close(model(images), solved, rtol=0, atol=1e-8)
    for a, b in zip(gradients(model, images), solved_gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-8 * max(1, b.abs().max().item()))
    assert sum(g.abs().max() > 1e-6 for g in solved_gradients) > 0.9 * len(solved_gradients)


def iterate(f, u, channels, n):
    z = [u.new_zeros(len(u), c, u.shape[2] >> i, u.shape[3] >> i) for i, c in enumerate(channels)]
    for _ in range(n):
        z = f(z, u, [None] * len(channels))
    return z


def test_gradient_agrees_with_central_differences(images):
    model = contractive()
    branch = model.f.branches[0]
    weight = branch.conv1.parametrizations.weight
    variables = {
        "image": images.requires_grad_(),
        "stem": model.stem[0].weight,
        "gain": weight.original0,
        "direction": weight.original1,
        "fusion": model.f.fusion[0][1][0].weight,
        "group norm": branch.norm2.weight,
        "classifier": model.classifier.weight,
    }
    cotangent = torch.randn(2, 10, dtype=torch.double, generator=torch.Generator().manual_seed(2))
    slopes = torch.autograd.grad((model(images) * cotangent).sum(), list(variables.values()))
    for (name, variable), slope in zip(variables.items(), slopes, strict=True):
        direction = torch.randn(variable.shape, dtype=torch.double, generator=torch.Generator().manual_seed(3))
        values = []
        for offset in (1e-5, -2e-5, 1e-5):
            variable.data.add_(direction, alpha=offset)
            with torch.no_grad():
                values.append((model(images) * cotangent).sum().item())
        difference = (values[0] - values[1]) / 2e-5
        # Seen: 2e-7. With most other images a ReLU changes sign within the step, which shows as 1e-3 or more.
        assert (slope * direction).sum().item() == pytest.approx(difference, rel=1e-5), name


def test_gradients_do_not_need_training_mode_nor_change_the_logits(images):
    """An attack differentiates the network in evaluation mode; torchdeq alone would hand it a gradient of zero."""
    model = contractive()
    with torch.no_grad():
        expected = model(images)
    logits = model(images.requires_grad_())
    torch.testing.assert_close(logits, expected, rtol=0, atol=0)
    assert torch.autograd.grad(logits.sum(), images)[0].abs().max() > 1e-6


def test_cost_is_one_evaluation_of_f_a_step_and_two(images):
    """Broyden evaluates f once before its first step; the gradient is attached to one more evaluation.

    The weights are normalised once for all of them.
    """
    model = tiny(f_max_iter=5, f_tol=0).eval()
    calls, norms = [], []
    model.f.register_forward_hook(lambda *_: calls.append(1))
    model.f.branches[0].conv1.parametrizations.weight[0].register_forward_hook(lambda *_: norms.append(1))
    with torch.no_grad():
        model(images)
    assert len(calls) == 5 + 2
    assert len(norms) == 1
    assert model.solver_report()["unconverged"] == 1


def test_the_solvers_have_the_first_release_s_tolerances(monkeypatch):
    """Norms of the 61,440 numbers of an image's states: 2.5e-3 forward, 5e-8 backward."""
    given = {}

    def recorded(**options):
        given.update(options)
        return get_deq(**options | {"f_max_iter": 1})

    monkeypatch.setattr(sys.modules[MDEQ.__module__], "get_deq", recorded)
    with torch.no_grad():
        mdeq(10).eval()(torch.zeros(1, 3, 32, 32))
    assert given["f_tol"] == pytest.approx(2.5e-3, rel=0.01)
    assert given["b_tol"] == pytest.approx(5e-8, rel=0.01)
    assert given["f_max_iter"] == given["b_max_iter"] == 18


def test_the_solver_stops_once_each_image_meets_the_tolerance(images):
    steps = []
    for tolerance in (1e-2, 1e-5):
        model = contractive(f_tol=tolerance)
        with torch.no_grad():
            model(images)
        report = model.solver_report()
        assert report["unconverged"] == 0
        steps.append(report["solver_steps"])
    assert 0 < steps[0] < steps[1] < 20


# Training


def test_dropout_and_the_unrolled_phase_are_the_first_release_s():
    """The phase is the first 20,000 of the steps of 220 epochs: 50,000 images in batches of 128."""
    model = mdeq(10, width=16)
    assert model.dropout == 0.3
    assert model.pretrain * 220 * math.ceil(50_000 / 128) == pytest.approx(20_000)


def test_weights_are_normalised_anew_after_each_update(images):
    """No stale weight survives an optimiser step, and a second backward pass finds its graph."""
    model = contractive().train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    conv = model.f.branches[0].conv1
    for _ in range(2):
        before = conv.weight.detach()
        optimizer.zero_grad()
        model(images).square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
        assert not torch.equal(conv.weight, before)
    gain, direction = conv.parametrizations.weight.original0, conv.parametrizations.weight.original1
    norms = direction.flatten(1).norm(dim=1).view_as(gain)
    torch.testing.assert_close(conv.weight, gain * direction / norms, rtol=1e-12, atol=0)


def test_unrolled_phase_ends_at_its_share_of_the_training_and_never_holds_in_evaluation(images):
    model = tiny(pretrain=0.5, f_max_iter=2)
    calls = []
    model.f.register_forward_hook(lambda *_: calls.append(1))
    for progress, evaluations in ((0, 10), (0.25, 10), (0.5, 4)):
        model.set_progress(progress)
        calls.clear()
        model(images)
        assert len(calls) == evaluations
        assert math.isnan(model.solver_report()["residual"]) == (progress < 0.5)
    model.set_progress(0)
    calls.clear()
    model.eval()(images)
    assert len(calls) == 4


def test_dropout_drops_whole_channels_once_per_forward_pass(images):
    """Two applications of f in one pass see the same mask; the next pass draws another; evaluation has none."""
    model = tiny(dropout=0.3, pretrain=1)
    model.set_progress(0)
    passes = []
    model.f.register_forward_hook(lambda module, inputs, output: passes[-1].append(inputs[2]))
    for _ in range(2):
        passes.append([])
        model(images)
    first, second = passes
    assert len(first) == 10
    assert all(a is b for masks in first for a, b in zip(masks, first[0], strict=True))
    assert not torch.equal(first[0][1], second[0][1])
    masks = torch.cat([torch.cat([m.flatten() for m in masks[0]]) for masks in passes])
    assert set(masks.tolist()) == {0, 1 / 0.7}
    assert first[0][1].shape == (2, 16, 1, 1)
    passes.append([])
    model.eval()(images)
    assert passes[-1][0] == [None, None]


def test_report_covers_the_backward_solve(images):
    model = contractive().train()
    model(images).sum().backward()
    report = model.solver_report()
    assert report.keys() == {"unconverged", "residual", "solver_steps", "backward_residual"}
    assert report["backward_residual"] < 1e-6
    assert all(math.isnan(value) for value in model.solver_report().values()), "the report starts anew after each call"


def test_a_narrow_mdeq_learns_digits():
    """Adam at 1e-3; ten unrolled steps, then the solver."""
    torch.manual_seed(0)
    digits = load_digits(n_class=4)
    x = torch.tensor(digits.images[:64], dtype=torch.float32)[:, None] / 8 - 1
    y = torch.tensor(digits.target[:64])
    model = MDEQ(4, [8, 16], [4, 8], 32, in_channels=1, expansion=2, groups=4, pretrain=0.4, f_max_iter=8)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for step in range(25):
        model.set_progress(step / 25)
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 1
    assert max(losses[-3:]) < 0.75 * losses[0]


# The network


@pytest.mark.parametrize(("num_classes", "classifier", "total"), [(10, 16_810, 11_098_398), (100, 168_100, 11_249_688)])
def test_parameter_counts(num_classes, classifier, total):
    """Table 1 prints 11.1M and 11.2M. The branches' 92,608 ... and the post-fusion's 1,088 ... plus the gains."""
    model = mdeq(num_classes)
    assert count(model.stem) == 10_208 + 1_088
    assert [count(m) for m in model.f.branches] == [
        convs + 6 * c for convs, c in zip([92_608, 369_536, 1_476_352, 5_901_824], [32, 64, 128, 256], strict=True)
    ]
    assert [count(m) for m in model.f.fusion] == [14_528, 43_392, 153_408, 573_184]
    assert [count(m) for m in model.f.post] == [1_088 + 32, 4_224 + 64, 16_640 + 128, 66_048 + 256]
    assert [count(m) for m in model.bottlenecks] == [4_900, 19_376, 77_056, 307_328]
    assert [count(m) for m in model.downsample] == [56_784, 226_464, 904_512]
    assert count(model.final) == 757_680
    assert count(model.classifier) == classifier
    assert count(model) == total


@pytest.mark.parametrize(("branches", "parameters"), [(2, 22_418), (3, 97_410)])
def test_parameter_counts_of_small_variants(branches, parameters):
    model = MDEQ(10, [8, 16, 32][:branches], [4, 8, 16][:branches], [32, 64][branches - 2], expansion=2, groups=4)
    assert count(model) == parameters


def test_weight_norm_is_on_the_branches_and_the_post_fusion_only():
    model = mdeq(10, width=16)
    normed = {name for name, m in model.named_modules() if parametrize.is_parametrized(m)}
    expected = {f"f.branches.{i}.{conv}" for i in range(4) for conv in ("conv1", "conv2")}
    assert normed == expected | {f"f.post.{i}.1" for i in range(4)}
    for name, m in model.named_modules():
        if isinstance(m, nn.Conv2d):
            # PyTorch's uniform initialisation; the released code's N(0, 0.01^2) reaches the other convolutions only.
            bound = m.weight[0].numel() ** -0.5
            std = bound / 3**0.5 if name in normed else 0.01
            assert m.weight.std().item() == pytest.approx(std, rel=0.25), name


def test_group_counts_and_the_branches_that_see_the_image(images):
    model = mdeq(10, width=16)
    for branch, post in zip(model.f.branches, model.f.post, strict=True):
        assert [branch.norm1.num_groups, branch.norm2.num_groups, branch.norm3.num_groups] == [8, 8, 8]
        assert post[-1].num_groups == 4
    injections = []
    model = tiny(3).eval()
    for branch in model.f.branches:
        branch.register_forward_hook(lambda module, inputs, output: injections.append(inputs[1]))
    u = model.stem(images)
    iterate(model.f, u, model.channels, 1)
    assert injections[0] is u
    assert injections[1:] == [None, None]


def test_logits_of_a_known_network_have_the_known_values():
    """Parameters from a formula, the norms' scales aside; the values are of the version that passed all other tests."""
    model = contractive()
    with torch.no_grad():
        for i, (name, p) in enumerate(model.named_parameters()):
            if p.ndim > 1 or name.endswith("bias"):
                p.copy_(torch.sin(0.7 * i + 1.3 * torch.arange(p.numel(), dtype=p.dtype)).view(p.shape))
        logits = model(torch.cos(0.1 * torch.arange(192, dtype=torch.double)).view(1, 3, 8, 8))
    assert model.solver_report()["residual"] < 1e-11
    known = [-8.434145740860489, 3.6335377720348636, 3.1983316285931274]
    assert logits[0, :3].tolist() == pytest.approx(known, rel=1e-9)


@pytest.mark.parametrize("size", [8, 16, 32])
def test_four_branches_at_cifars_and_the_digits_size(size):
    model = mdeq(5, width=16, in_channels=1).eval()
    shapes = []
    model.f.register_forward_hook(lambda module, inputs, output: shapes.append([tuple(z.shape[1:]) for z in output]))
    with torch.no_grad():
        assert model(torch.randn(2, 1, size, size)).shape == (2, 5)
    assert shapes[0] == [(8 * 2**i, size >> i, size >> i) for i in range(4)]


def test_f_works_in_single_precision_inside_autocast(images):
    model = contractive(f_tol=1e-6, b_tol=1e-6).float()
    x = images.float()
    dtypes = set()
    model.f.register_forward_hook(lambda module, inputs, output: dtypes.update(z.dtype for z in output))
    expected = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(x)
    logits.float().sum().backward()
    assert dtypes == {torch.float32}
    torch.testing.assert_close(logits.float(), expected, rtol=0, atol=0.05 * expected.abs().max().item())


def test_memory_format_of_the_input_changes_nothing(images):
    model = contractive()
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    torch.testing.assert_close(
        last(images.contiguous(memory_format=torch.channels_last)), model(images), rtol=0, atol=1e-10
    )


def test_a_trained_network_survives_saving_and_copying(images, tmp_path):
    model = contractive().train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    model(images).square().sum().backward()
    optimizer.step()
    model(images).square().sum().backward()  # the copy is taken while gradients and graphs are about
    torch.save(model.state_dict(), tmp_path / "model.pt")
    loaded = tiny()
    loaded.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    logits = [m.eval()(images) for m in (model, model, loaded, copy.deepcopy(model))]
    assert all(torch.equal(logits[0], other) for other in logits[1:])


def test_impossible_networks_and_images_are_refused():
    with pytest.raises(ValueError, match="width 24 is not a multiple of 16"):
        mdeq(10, width=24)
    with pytest.raises(ValueError, match="small images only"):
        mdeq(10, small_input=False)
    with pytest.raises(ValueError, match="multiple of 8"):
        MDEQ(10, [8, 12], [4, 8], 32)
    for groups in (0, 1, 3):
        with pytest.raises(ValueError, match=f"groups must be 2, 4, ..., since half as many .*, not {groups}"):
            MDEQ(10, [12, 24], [4, 8], 32, groups=groups)
    with pytest.raises(ValueError, match=r"28 x 28 pixels .* multiples of 8"):
        mdeq(10, width=16)(torch.randn(1, 3, 28, 28))
