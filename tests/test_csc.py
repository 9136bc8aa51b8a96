"""The CSC layer does what sections 3.1 and A of the paper say."""

import copy
import math
import sys
import weakref

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torch.nn.utils.prune
from hypothesis import given, settings
from sklearn.linear_model import Lasso
from torch import nn
from torch.optim.swa_utils import AveragedModel

from sdnet.csc import (
    CSCConv2d,
    adjoint,
    csc_layers,
    fista,
    power_iteration,
    reconstruct,
    record_residuals,
    replace_conv2d,
    soft_threshold,
    update_dictionaries,
    use_lambda,
)


def dictionary(c=5, m=2, k=3, seed=0):
    weight = torch.randn(c, m, k, k, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return weight / weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def image(n=1, m=2, size=(6, 6), seed=1):
    return torch.randn(n, m, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def dense_operator(weight, size, stride=1, padding=1):
    """The explicit matrix of A, one column per code entry."""
    codes = adjoint(torch.zeros(1, weight.shape[1], *size, dtype=weight.dtype), weight, stride, padding)
    basis = torch.eye(codes.numel(), dtype=weight.dtype).view(-1, *codes.shape[1:])
    return reconstruct(basis, weight, size, stride, padding).flatten(1).T


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 7),
    st.integers(1, 3),
    st.integers(0, 3),
    st.integers(7, 13),
    st.integers(7, 13),
)
def test_adjoint_is_the_adjoint_of_reconstruct_at_any_shape(m, c, k, stride, padding, height, width):
    weight, x = dictionary(c, m, k), image(2, m, (height, width))
    z = torch.randn_like(adjoint(x, weight, stride, padding))
    left = (reconstruct(z, weight, (height, width), stride, padding) * x).sum()
    right = (z * adjoint(x, weight, stride, padding)).sum()
    torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-10)


def test_operators_take_a_stride_and_a_padding_per_direction():
    weight, x = dictionary(k=3), image(size=(7, 8))
    z = torch.randn_like(adjoint(x, weight, (2, 1), (0, 1)))
    left = (reconstruct(z, weight, (7, 8), (2, 1), (0, 1)) * x).sum()
    torch.testing.assert_close(left, (z * adjoint(x, weight, (2, 1), (0, 1))).sum())


def test_reconstruct_is_the_papers_conv2d_at_stride_1():
    """Eq. 11: conv2d(z, A) with A = weight, transposed and flipped."""
    weight = dictionary()
    z = torch.randn(2, 5, 6, 6, dtype=torch.float64)
    papers = F.conv2d(z, weight.transpose(0, 1).flip(2, 3), padding=1)
    torch.testing.assert_close(reconstruct(z, weight, (6, 6), 1, 1), papers)


def test_reconstruct_refuses_a_size_that_does_not_belong_to_the_codes():
    with pytest.raises(ValueError, match="do not describe an image of size"):
        reconstruct(torch.zeros(1, 5, 4, 4), dictionary().float(), (9, 9), 2, 1)


@pytest.mark.parametrize("nonnegative", [False, True])
def test_soft_threshold_is_the_proximal_operator(nonnegative):
    """Against brute force on a fine grid of candidates."""
    x = torch.linspace(-2, 2, 41, dtype=torch.float64)
    grid = torch.linspace(0.0 if nonnegative else -3, 3, 60001, dtype=torch.float64)
    cost = 0.7 * grid.abs() + 0.5 * (grid - x[:, None]) ** 2
    expected = grid[cost.argmin(1)]
    assert (soft_threshold(x, 0.7, nonnegative) - expected).abs().max() < 1e-4  # the grid's spacing


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize(("stride", "size"), [(1, (6, 6)), (2, (7, 6))])
def test_converged_codes_are_those_of_scikit_learns_lasso(stride, size, nonnegative):
    weight, x, lmbd = dictionary(), image(size=size), 0.3
    a = dense_operator(weight, size, stride)
    step_size = 0.9 / torch.linalg.matrix_norm(a, 2).item() ** 2
    options = {"stride": stride, "padding": 1, "nonnegative": nonnegative}
    z = fista(x, weight, lmbd=lmbd, step_size=step_size, n_iter=20_000, **options)
    # scikit-learn divides the squared error by the number of rows.
    lasso = Lasso(alpha=lmbd / len(a), fit_intercept=False, positive=nonnegative, tol=1e-14, max_iter=1_000_000)
    expected = torch.from_numpy(lasso.fit(a.numpy(), x.flatten().numpy()).coef_)
    assert 0.05 < (expected != 0).double().mean() < 0.95, "the problem must have a non-trivial support"
    torch.testing.assert_close(z.flatten(), expected, rtol=0, atol=1e-8)  # far below the codes, which are about 1


def test_two_iterations_are_ista_and_three_are_not():
    weight, x, t, lmbd = dictionary(), image(), 0.1, 0.1

    def ista(n):
        z = torch.zeros(1, 5, 6, 6, dtype=torch.float64)
        for _ in range(n):
            gradient = adjoint(x - reconstruct(z, weight, (6, 6), 1, 1), weight, 1, 1)
            z = soft_threshold(z + t * gradient, t * lmbd)
        return z

    def ours(n):
        return fista(x, weight, lmbd=lmbd, step_size=t, n_iter=n, padding=1)

    torch.testing.assert_close(ours(1), ista(1))
    torch.testing.assert_close(ours(2), ista(2))
    assert (ours(3) - ista(3)).abs().max() > 1e-3


def test_fista_follows_equation_6_step_by_step():
    weight, x, t, lmbd = dictionary(), image(), 0.1, 0.1
    z_last, y, m = (
        torch.zeros(1, 5, 6, 6, dtype=torch.float64),
        torch.zeros(1, 5, 6, 6, dtype=torch.float64),
        1.0,
    )
    for _ in range(6):
        z = y + t * adjoint(x - reconstruct(y, weight, (6, 6), 1, 1), weight, 1, 1)
        z = (z.abs() - lmbd * t).clamp_min(0) * z.sign()
        m_next = (1 + math.sqrt(1 + 4 * m**2)) / 2
        y, z_last, m = z + (m - 1) / m_next * (z - z_last), z, m_next
    torch.testing.assert_close(fista(x, weight, lmbd=lmbd, step_size=t, n_iter=6, padding=1), z_last)


@pytest.mark.parametrize("costly", [0, math.inf], ids=["kept", "recomputed"])
@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize(("stride", "n_iter"), [(1, 1), (1, 2), (2, 3), (1, 5)])
def test_gradients_are_exact_whether_residuals_are_kept_or_not(stride, n_iter, nonnegative, costly, monkeypatch):
    monkeypatch.setattr(sys.modules["sdnet.csc.fista"], "COSTLY", costly)
    weight, x = dictionary(3, 2).requires_grad_(), image(2, size=(5, 6)).requires_grad_()

    def codes(x, weight):
        options = {"stride": stride, "padding": 1, "nonnegative": nonnegative}
        return fista(x, weight, lmbd=0.1, step_size=0.2, n_iter=n_iter, **options)

    assert torch.autograd.gradcheck(codes, (x, weight))
    # What is not wanted is not computed, and leaves the other as it was.
    gradient = torch.randn_like(codes(x, weight))
    both = torch.autograd.grad(codes(x, weight), (x, weight), gradient)
    for wanted, expected in zip((x, weight), both, strict=True):
        alone = codes(*(signal if signal is wanted else signal.detach() for signal in (x, weight)))
        torch.testing.assert_close(*torch.autograd.grad(alone, wanted, gradient), expected)


def test_a_second_derivative_is_refused_and_never_taken_for_zero():
    weight, x = dictionary(3, 2).requires_grad_(), image(1)

    def energy(weight):
        return fista(x, weight, lmbd=0.1, step_size=0.2, n_iter=2, padding=1).square().sum()

    with pytest.raises(RuntimeError, match="create_graph=True asks for a second derivative"):
        torch.autograd.grad(energy(weight), weight, create_graph=True)
    with pytest.raises(RuntimeError, match="create_graph=True asks for a second derivative"):
        torch.autograd.functional.hessian(energy, weight.detach())


@pytest.mark.parametrize("n_iter", [1, 2, 4])
def test_several_gradients_at_once_are_those_of_each(n_iter):
    weight, x = dictionary(3, 2).requires_grad_(), image(2).requires_grad_()
    z = fista(x, weight, lmbd=0.1, step_size=0.2, n_iter=n_iter, padding=1)
    gradients = torch.randn(3, *z.shape, generator=torch.Generator().manual_seed(0), dtype=z.dtype)
    batched = torch.autograd.grad(z, (x, weight), gradients, is_grads_batched=True, retain_graph=True)
    alone = [torch.autograd.grad(z, (x, weight), one, retain_graph=True) for one in gradients]
    torch.testing.assert_close(batched, tuple(map(torch.stack, zip(*alone, strict=True))))


def test_a_dictionary_that_is_computed_from_something_else_is_refused_and_not_left_unprojected():
    layer = nn.utils.parametrizations.weight_norm(CSCConv2d(2, 4, 3))
    pruned = nn.utils.prune.l1_unstructured(CSCConv2d(2, 4, 3), "weight", 0.3)
    for network in (layer, pruned):
        with pytest.raises(ValueError, match="parametrised or pruned, and its atoms cannot be kept at unit norm"):
            update_dictionaries(network)
    update_dictionaries(nn.utils.prune.remove(pruned, "weight"))


def test_only_the_image_the_iterates_and_costly_residuals_are_kept_for_the_way_back(monkeypatch):
    weight, x = dictionary(3, 2).requires_grad_(), image(4, size=(8, 8))

    def kept():
        shapes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: shapes.append(tuple(t.shape)) or t, lambda t: t):
            fista(x, weight, lmbd=0.1, step_size=0.2, n_iter=3, padding=1)
        return sorted(shape for shape in shapes if len(shape) == 4 and shape[0] == 4)

    codes, images = [(4, 3, 8, 8)] * 3, [(4, 2, 8, 8)]
    assert kept() == images + codes
    monkeypatch.setattr(sys.modules["sdnet.csc.fista"], "COSTLY", 0)
    assert kept() == images * 3 + codes


def test_without_a_way_back_memory_does_not_grow_with_the_iterations(monkeypatch):
    module, alive, most = sys.modules["sdnet.csc.fista"], weakref.WeakSet(), []
    shrink = module.soft_threshold

    def watched(*args):
        code = shrink(*args)
        alive.add(code)
        most.append(len(alive))
        return code

    monkeypatch.setattr(module, "soft_threshold", watched)
    weight, x = dictionary(3, 2), image(4, size=(8, 8))
    options = {"lmbd": 0.1, "step_size": 0.2, "n_iter": 20, "padding": 1}
    with torch.no_grad():
        z = fista(x, weight, **options)
    assert max(most) <= 3
    fista(x, weight.requires_grad_(), **options)
    assert max(most) >= 20, "the iterates of a training are alive"
    torch.testing.assert_close(z, fista(x, weight, **options).detach(), rtol=0, atol=0)


def test_the_layer_can_be_compiled():
    layer = CSCConv2d(2, 4, 3, padding=1)
    x = torch.randn(2, 2, 8, 8, requires_grad=True)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True, dynamic=False)
    gradients = [torch.autograd.grad(f(x).square().sum(), (x, layer.weight)) for f in (layer, compiled)]
    torch.testing.assert_close(compiled(x), layer(x))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(theirs, ours)


def test_residuals_of_a_network_that_ran_compiled_before_are_recorded():
    model, x = nn.Sequential(CSCConv2d(2, 4, 3, padding=1)).eval(), image(2).float()
    compiled = torch.compile(model, backend="eager", dynamic=False)
    compiled(x)
    with record_residuals(model) as expected:
        model(x)
    with record_residuals(compiled) as residuals:
        compiled(x)
    assert torch.equal(residuals[0], expected[0])


def test_the_layer_can_be_exported():
    layer, x = CSCConv2d(2, 4, 3, padding=1, n_iter=3).eval(), image(2).float()
    assert torch.equal(torch.export.export(layer, (x,)).module()(x), layer(x))


@pytest.mark.parametrize(("stride", "padding", "size"), [(1, 1, (8, 8)), (2, 1, (9, 8)), (1, 0, (7, 7))])
def test_power_iteration_finds_the_dense_operator_norm(stride, padding, size):
    weight = dictionary(seed=3)
    exact = torch.linalg.matrix_norm(dense_operator(weight, size, stride, padding), 2) ** 2
    start = image(size=size, seed=5)
    converged, v = power_iteration(weight, start, stride, padding, n_iter=5000, tolerance=1e-12)
    torch.testing.assert_close(converged, exact, rtol=1e-9, atol=0)
    torch.testing.assert_close(v.norm(), torch.ones_like(exact))
    papers, _ = power_iteration(weight, start, stride, padding)
    last, moved, n_iter = start / start.norm(), 1, 0
    while moved >= math.sqrt(1e-5) and n_iter < 50:  # section A
        n_iter += 1
        eigenvalue, v = power_iteration(weight, start, stride, padding, n_iter=n_iter, tolerance=None)
        last, moved = v, (v - last).norm()
    assert n_iter > 1
    assert torch.equal(papers, eigenvalue)
    assert 0.9 < (papers / exact).item() <= 1 + 1e-12, "t = 0.9 / L must stay below 1 / ||A||^2"


def test_warm_started_step_size_follows_the_dictionary_while_training():
    torch.manual_seed(0)
    layer = CSCConv2d(2, 5, 3, padding=1).double().train()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.05, momentum=0.9)
    x = image(4, size=(8, 8))
    for _ in range(30):
        optimizer.zero_grad()
        layer(x).square().mean().mul(10).neg().backward()
        optimizer.step()
        update_dictionaries(layer)
        exact = torch.linalg.matrix_norm(dense_operator(layer.weight.detach(), (8, 8)), 2) ** 2
        assert 0.85 < layer.step_size.item() * exact.item() < 1
    torch.testing.assert_close(layer.weight.flatten(1).norm(dim=1), torch.ones(5, dtype=torch.float64))


def test_a_layer_that_codes_several_sizes_has_the_step_size_of_the_largest(monkeypatch):
    layer = CSCConv2d(2, 6, 5, padding=2).double()
    for size in (4, 12), (15, 9), (2, 2):
        layer(image(size=size))
    update_dictionaries(layer)
    assert layer.image_size == (15, 12)
    iterations = []
    monkeypatch.setattr("sdnet.csc.layer.power_iteration", lambda *_, n_iter, **__: iterations.append(n_iter) or 1 / 0)
    layer(image(size=(8, 8)))
    with pytest.raises(ZeroDivisionError):
        update_dictionaries(layer)
    assert layer.image_size == (15, 12)
    assert iterations == [1], "smaller images cost no new iteration to the tolerance"


def test_a_compiled_training_step_is_compiled_once():
    from torch._dynamo.testing import CompileCounter  # here, since it takes seconds to import

    layer, x = CSCConv2d(2, 4, 3, padding=1), image(size=(8, 8)).float()
    counter = CompileCounter()
    compiled = torch.compile(layer, backend=counter, fullgraph=True)
    for _ in range(3):
        compiled(x)
        update_dictionaries(layer)
    assert layer.image_size == (8, 8)
    assert counter.frame_count == 1


def own_dictionary():
    """Smooth atoms, much alike: the eigenvalue is far from that of random ones."""
    return F.normalize(1 + 0.1 * dictionary(6, 2, 5).flatten(1)).view(6, 2, 5, 5)


def assert_fits(layer, size=(15, 15)):
    exact = torch.linalg.matrix_norm(dense_operator(layer.weight.detach(), size), 2) ** 2
    assert 0.85 < layer.step_size.item() * exact.item() < 1


def test_the_step_size_of_a_dictionary_of_one_s_own_is_iterated_to_the_tolerance():
    layer = CSCConv2d(2, 6, 5, padding=1).double()
    with torch.no_grad():
        layer.weight.copy_(own_dictionary())
    layer.project_()
    layer.update_step_size()
    assert_fits(layer)


def test_a_dictionary_that_is_loaded_without_its_step_size_gets_one():
    layer = CSCConv2d(2, 6, 5, padding=1).double()
    layer.load_state_dict({"weight": own_dictionary()}, strict=False)
    assert_fits(layer)
    update_dictionaries(layer)
    assert_fits(layer)


def test_a_layer_recovers_from_weights_that_were_not_finite():
    layer = CSCConv2d(2, 6, 5, padding=1).double()
    with torch.no_grad():
        layer.weight.fill_(math.nan)
        update_dictionaries(layer)
        layer.weight.copy_(own_dictionary())
    layer.update_step_size()
    assert_fits(layer)


def test_codes_have_the_shape_of_a_convolution():
    for kernel, stride, padding, size in [(3, 1, 1, (8, 8)), (7, np.int64(2), 3, (17, 16)), (5, 3, 0, (11, 13))]:
        x = torch.randn(2, 3, *size)
        conv = nn.Conv2d(3, 6, kernel, stride, padding)
        assert CSCConv2d(3, 6, kernel, stride, padding)(x).shape == conv(x).shape


def test_codes_are_of_both_signs_unless_asked_otherwise():
    x = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    signed, nonnegative = CSCConv2d(2, 5, 3, padding=1), CSCConv2d(2, 5, 3, padding=1, nonnegative=True)
    assert signed(x).min() < 0 < signed(x).max()
    assert nonnegative(x).min() == 0 < nonnegative(x).max()


def test_evaluation_is_a_pure_function():
    layer = CSCConv2d(3, 6, kernel_size=3, padding=1).eval()
    before = copy.deepcopy(layer.state_dict())
    for size in [(8, 8), (11, 7)]:
        x = torch.randn(2, 3, *size)
        assert torch.equal(layer(x), layer(x))
    assert layer.image_size == (9, 9)
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())


def test_a_layer_without_numbers_has_shapes_and_takes_those_of_a_saved_one():
    with torch.device("meta"):
        layer, x = CSCConv2d(2, 4, 3, padding=1, n_iter=3), torch.empty(2, 2, 8, 8)
        assert layer(x).shape == (2, 4, 8, 8)
        update_dictionaries(layer)
    saved, x = CSCConv2d(2, 4, 3, padding=1, n_iter=3), image(2).float()
    layer.to_empty(device="cpu").load_state_dict(saved.state_dict())
    assert torch.equal(layer(x), saved(x))


def test_residuals_of_a_network_of_lower_precision_are_in_float32():
    """NumPy has no bfloat16, and a mean over many images loses its digits there."""
    layer = CSCConv2d(2, 8, 3, padding=1).bfloat16()
    with record_residuals(layer) as residuals:
        layer(image(2).bfloat16())
    assert residuals[0].dtype == torch.float32


def test_a_larger_lambda_gives_fewer_codes_and_a_larger_residual():
    layer, x = CSCConv2d(2, 8, 3, padding=1, n_iter=50).double(), image(size=(8, 8))
    active, residual = [], []
    for lmbd in (0.05, 0.2, 0.8):
        with use_lambda(layer, lmbd), record_residuals(layer) as norms:
            active.append((layer(x) != 0).sum().item())
        residual.append(norms[0].item())
    assert active[0] > active[1] > active[2]
    assert residual[0] < residual[1] < residual[2]


def test_use_lambda_restores_each_layers_own_value_even_after_an_error():
    model = nn.Sequential(CSCConv2d(2, 4, 3, lmbd=0.1), CSCConv2d(4, 4, 3, lmbd=0.3))
    seen = []

    def fail(*_):
        seen.extend(layer.lmbd for layer in csc_layers(model))
        raise RuntimeError("inside")

    model.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="inside"), use_lambda(model, 0.7):
        model(torch.zeros(1, 2, 8, 8))
    assert seen == [0.7, 0.7]
    assert [layer.lmbd for layer in csc_layers(model)] == [0.1, 0.3]


def test_recorded_residuals_are_the_norms_of_x_minus_its_reconstruction():
    model = nn.Sequential(CSCConv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), CSCConv2d(4, 6, 3, stride=2)).double()
    x = image(5, size=(9, 8))
    with record_residuals(model) as residuals:
        model(x[:3])
        model(x[3:])
    z = model[0](x)
    expected = torch.stack([(a - b).norm() for a, b in zip(x, model[0].reconstruct(z, (9, 8)), strict=True)])
    torch.testing.assert_close(residuals[0], expected)
    assert residuals[1].shape == (5,)
    with record_residuals(model[0]) as (by_name,):
        model[0](x=x)
    with record_residuals(model[0]) as (by_place,):
        model[0](x)
    assert torch.equal(by_name, by_place)
    assert not model[0]._forward_hooks


def test_a_copy_of_a_network_whose_residuals_are_recorded_can_be_used():
    model, x = nn.Sequential(CSCConv2d(2, 4, 3)), image(2).float()
    with record_residuals(model):
        assert torch.equal(copy.deepcopy(model)(x), model(x))


def test_saved_layers_load_into_new_ones_and_go_on_alike():
    """Weights, step size and the warm start: what bit-exact resuming needs."""

    def step(layer):
        with torch.no_grad():
            layer.weight.add_(0.01 * torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(0)))
        update_dictionaries(layer)

    layer, other = CSCConv2d(2, 4, 3, padding=1), CSCConv2d(2, 4, 3, padding=1)
    layer(torch.randn(1, 2, 12, 10))
    step(layer)
    other.load_state_dict(copy.deepcopy(layer.state_dict()))
    step(layer)
    step(other)
    assert all(torch.equal(a, b) for a, b in zip(layer.state_dict().values(), other.state_dict().values(), strict=True))


def test_weights_can_be_averaged_from_before_the_first_step_on():
    """When the layer does not know the size of its images yet."""
    model = nn.Sequential(CSCConv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4))
    average = AveragedModel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = image(8, size=(12, 10)).float()
    for _ in range(3):
        model(x).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        update_dictionaries(model)
        average.update_parameters(model)
    (layer,), (averaged,) = csc_layers(model), csc_layers(average)
    assert layer.eigenvector.shape[-2:] == (12, 10)
    assert averaged.step_size == layer.step_size
    assert (averaged.weight.flatten(1).norm(dim=1) < 1).any()
    averaged.project_()
    torch.testing.assert_close(averaged.weight.flatten(1).norm(dim=1), torch.ones(4))
    assert average.eval()(x).isfinite().all()


def test_the_eigenvector_goes_where_the_layer_goes():
    layer = CSCConv2d(2, 4, 3).double()
    assert layer.eigenvector.dtype == torch.float64
    assert layer.to("meta").eigenvector.is_meta
    layer.load_state_dict(CSCConv2d(2, 4, 3).state_dict(), assign=True)
    assert not layer.eigenvector.is_meta
    layer(image().float()).sum().backward()
    update_dictionaries(layer)


def test_a_layer_that_was_loaded_or_updated_in_inference_mode_can_be_trained():
    saved, layer, other = (CSCConv2d(2, 4, 3, padding=1) for _ in range(3))
    with torch.inference_mode():
        layer.load_state_dict(saved.state_dict())
        other(image(size=(8, 8)).float())
        other.update_step_size()
    for each in layer, other:
        each(image(size=tuple(each.eigenvector.shape[-2:])).float()).sum().backward()
        update_dictionaries(each)


def test_a_load_that_failed_leaves_a_layer_that_can_be_updated():
    layer = CSCConv2d(3, 4, 3, padding=1)
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        layer.load_state_dict(CSCConv2d(2, 4, 3, padding=1).state_dict())
    update_dictionaries(layer)


def test_loaded_into_a_layer_of_double_precision_all_is_double():
    layer, other = CSCConv2d(2, 4, 3, padding=1), CSCConv2d(2, 4, 3, padding=1).double()
    layer(torch.randn(1, 2, 12, 10))
    other.load_state_dict(layer.state_dict())
    update_dictionaries(other)
    assert {value.dtype for value in other.state_dict().values() if value.is_floating_point()} == {torch.float64}


def test_a_loaded_eigenvector_has_the_layout_of_the_saved_one():
    """Convolutions of another layout end in other bits, and a training that goes on would, too."""
    layer, other = (CSCConv2d(3, 4, 3, padding=1).to(memory_format=torch.channels_last) for _ in range(2))
    layer(torch.randn(1, 3, 12, 10))
    layer.eigenvector = layer.eigenvector.contiguous(memory_format=torch.channels_last)
    other.load_state_dict(layer.state_dict())
    assert other.eigenvector.stride() == layer.eigenvector.stride() != layer.eigenvector.contiguous().stride()


def test_autocast_leaves_double_precision_alone():
    with torch.autocast("cpu", torch.bfloat16):
        assert CSCConv2d(2, 4, 3).double()(torch.zeros(1, 2, 8, 8, dtype=torch.float64)).dtype == torch.float64


def test_a_layer_works_twice_in_one_graph_and_under_autocast():
    layer = CSCConv2d(2, 2, 3, padding=1)
    x = torch.randn(1, 2, 8, 8)
    layer(layer(x)).sum().backward()
    expected = copy.deepcopy(layer)
    first = expected(x)
    again = first.detach().requires_grad_()
    expected(again).sum().backward()
    twice = expected.weight.grad.clone()
    expected.weight.grad = None
    first.backward(again.grad)
    torch.testing.assert_close(layer.weight.grad, twice + expected.weight.grad)
    with torch.autocast("cpu", torch.bfloat16):
        low = layer(x)
    torch.testing.assert_close(low.float(), layer(x), rtol=0.05, atol=0.05)  # bfloat16 keeps 8 bits


@pytest.mark.parametrize("which", ["first", "all"])
def test_replace_conv2d_trains_a_torchvision_network(which):
    from torchvision.models import resnet18

    torch.manual_seed(0)
    model = replace_conv2d(resnet18(num_classes=3), which, lmbd=0.05)
    assert isinstance(model.conv1, CSCConv2d)
    assert len(csc_layers(model)) == (1 if which == "first" else 20)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, y = torch.randn(8, 3, 32, 32), torch.arange(8) % 3
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        update_dictionaries(model)
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


class Same(nn.Conv2d):
    """As in ports of TensorFlow networks: its output has the size of its input."""

    def forward(self, x):
        return super().forward(F.pad(x, (1, 1, 1, 1)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: fista(image(m=3), dictionary(), lmbd=0.1, step_size=0.1, n_iter=2),
            r"codes images of shape \(N, 2",
        ),
        (lambda: fista(image(), dictionary(), lmbd=0.1, step_size=0.1, n_iter=0), "at least 1"),
        (lambda: CSCConv2d(2, 4, 3, n_iter=2.5), "n_iter is 2.5; it must be a whole number"),
        (lambda: CSCConv2d(2, 4, 0), "4 x 2 x 0 x 0 entries; channels and kernel_size must be at least 1"),
        (lambda: replace_conv2d(nn.LazyConv2d(4, 3)), "LazyConv2d they are known once the network has run"),
        (lambda: fista(image(), dictionary(), lmbd=-1, step_size=0.1, n_iter=1, nonnegative=True), "lmbd is -1"),
        (lambda: fista(image(), dictionary(), lmbd=math.nan, step_size=0.1, n_iter=1, nonnegative=True), "lmbd is nan"),
        (
            lambda: fista(image(), dictionary(), lmbd=torch.tensor(0.1, requires_grad=True), step_size=0.1, n_iter=1),
            r"lmbd asks for a gradient, and codes have none by it; give lmbd\.detach\(\)",
        ),
        (
            lambda: fista(image(), dictionary(), lmbd=0.1, step_size=torch.ones((), requires_grad=True), n_iter=1),
            "step_size asks for a gradient",
        ),
        (lambda: replace_conv2d(nn.Conv2d(1, 1, 3), stride=2, n_iter=2), "given stride; allowed are lmbd, n_iter and"),
        (lambda: power_iteration(dictionary(), image(1), n_iter=0), "n_iter is 0"),
        (lambda: power_iteration(dictionary(), 0 * image(1)), "start is zero everywhere"),
        (lambda: CSCConv2d(1, 1, 3, padding="same"), "'same' is no size in pixels"),
        (lambda: CSCConv2d(1, 1, (3,)), "is no size in pixels; give one whole number, or two"),
        (lambda: CSCConv2d(1, 1, 3, lmbd=-1), "lambda is -1"),
        (lambda: CSCConv2d(1, 1, 3, lmbd=math.nan), "lambda is nan"),
        (lambda: setattr(CSCConv2d(1, 1, 3, nonnegative=True), "lmbd", -1), "lambda is -1"),
        (lambda: CSCConv2d(1, 1, 3, n_iter=0), "n_iter is 0"),
        (lambda: use_lambda(nn.Linear(1, 1), 0.1).__enter__(), "Linear has no CSC layer"),
        (lambda: record_residuals(nn.Linear(1, 1)).__enter__(), "Linear has no CSC layer"),
        (lambda: use_lambda(CSCConv2d(1, 1, 3), -0.1).__enter__(), "lambda is -0.1"),
        (lambda: replace_conv2d(nn.Linear(1, 1)), "has no nn.Conv2d"),
        (lambda: replace_conv2d(nn.Conv2d(1, 1, 3), "some"), 'allowed are "first" and "all"'),
        (lambda: replace_conv2d(nn.Sequential(nn.Conv2d(4, 4, 3, groups=2))), "only undilated, ungrouped"),
        (lambda: replace_conv2d(Same(1, 1, 3)), r"is Same\(1, 1, .*\), with a forward of its own; only"),
    ],
)
def test_bad_input_is_named_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("which", ["first", "all"])
def test_a_convolution_that_stands_in_two_places_is_one_layer_in_both(which):
    conv = nn.Conv2d(3, 3, 3, padding=1)
    model = replace_conv2d(nn.Sequential(conv, nn.ReLU(), nn.Sequential(conv)), which)
    assert isinstance(model[0], CSCConv2d)
    assert model[2][0] is model[0]


@pytest.mark.parametrize("which", ["first", "all"])
@pytest.mark.parametrize("name", ["alexnet", "vgg11", "squeezenet1_1"])
def test_activations_that_worked_in_place_on_the_output_of_a_convolution_leave_the_codes_alone(name, which):
    from torchvision import models

    torch.manual_seed(0)
    x = torch.randn(1, 3, 64, 64)
    model = replace_conv2d(getattr(models, name)(num_classes=3), which).eval()
    expected = model(x)
    expected.sum().backward()
    assert all(layer.weight.grad is not None for layer in csc_layers(model))
    assert torch.equal(model(x), expected)


class ActivationFirst(nn.Sequential):
    def forward(self, x):
        return self[0](self[1](x))


CONV, RELU = nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(CONV, nn.Identity(), RELU),
        nn.Sequential(CONV, nn.Dropout(0.5, inplace=True), RELU),
        nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), RELU),
        ActivationFirst(RELU, CONV),
    ],
    ids=["identity", "dropout", "parametrised", "declared first"],
)
def test_an_activation_works_on_a_copy_of_the_codes_wherever_it_stands(model):
    model = replace_conv2d(copy.deepcopy(model))
    for training in (True, False):
        model.train(training)(torch.rand(1, 3, 8, 8)).sum().backward()


def test_a_refused_replacement_leaves_the_network_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, dilation=2))
    with pytest.raises(ValueError, match="dilation"):
        replace_conv2d(model, "all")
    assert not csc_layers(model)


def test_the_convolution_and_the_layer_hold_as_many_numbers():
    conv, layer = nn.Conv2d(3, 8, 3, bias=False), CSCConv2d(3, 8, 3)
    assert np.prod(conv.weight.shape) == sum(p.numel() for p in layer.parameters())


def test_at_lambda_0_nothing_is_shrunk_where_a_code_is_exactly_zero_either():
    """The image is zero, so that all codes are; the derivative is that of a linear map."""
    x, weight = torch.zeros(1, 2, 5, 5, dtype=torch.double, requires_grad=True), dictionary().double()
    options = {"lmbd": 0.0, "step_size": 0.2, "n_iter": 3, "padding": 1}
    towards = torch.randn(
        fista(x, weight, **options).shape, dtype=torch.double, generator=torch.Generator().manual_seed(1)
    )
    (gradient,) = torch.autograd.grad((fista(x, weight, **options) * towards).sum(), x)
    direction = torch.randn(x.shape, dtype=torch.double, generator=torch.Generator().manual_seed(2))
    assert (gradient * direction).sum() == pytest.approx(float((fista(direction, weight, **options) * towards).sum()))
    assert gradient.norm() > 0.1
