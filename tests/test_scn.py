"""The sparse coding layer solves its problem and differentiates the solution; SCN and SCN-18 have the paper's sizes."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import nnls
from sklearn.datasets import load_digits
from sklearn.linear_model import ElasticNet, Lasso
from torch import nn

from sdnet.models.scn import SCN, SparseCoding2d, scn, scn18
from sdnet.models.sparse_code import _masked_conjugate_gradients, largest_eigenvalue, sparse_code

SCN_SHAPES = [(27, 16), (144, 64), (576, 16), (576, 256)]  # patch size M x number of atoms N


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def draw(generator, *shape):
    return torch.randn(shape, dtype=torch.double, generator=generator)


def problem(generator, size, atoms, patches, *, unit_norm=False, lambda1=0.0, lambda2=0.0):
    """Dictionary (M, N) at the SCN's initial scale or of unit norm, patches (P, M), and the layer's G and q."""
    dictionary = draw(generator, size, atoms) / size
    if unit_norm:
        dictionary = F.normalize(dictionary, dim=0)
    y = draw(generator, patches, size)
    gram = dictionary.T @ dictionary + lambda2 * torch.eye(atoms, dtype=torch.double)
    return dictionary, y, gram, y @ dictionary - lambda1


def violation(gram, q, z, scale):
    """Largest violation of the optimality conditions, relative to `scale`."""
    slope = q - z @ gram
    return (torch.where(z > 0, slope.abs(), slope.relu()).max() / scale).item()


def codes_and_gradients(layer, x):
    x = x.clone().requires_grad_()
    z = layer(x)
    cotangent = torch.linspace(-1, 1, z.numel(), dtype=z.dtype).view(z.shape)
    return z.detach(), torch.autograd.grad((z * cotangent).sum(), [x, layer.weight, layer.lambda1])


# The problem and its solver


@pytest.mark.parametrize(("size", "atoms"), SCN_SHAPES)
def test_codes_satisfy_the_optimality_conditions(generator, size, atoms):
    """500 iterations in double precision; the SCN's 50 in single precision reach three digits."""
    _, _, gram, q = problem(generator, size, atoms, 200)
    z = sparse_code(gram, q, lambda2=0, n_iter=500, n_backward=1)
    assert 0.3 < (z > 0).double().mean() < 0.7
    assert violation(gram, q, z, q.abs().max()) < 1e-8
    z = sparse_code(gram.float(), q.float(), lambda2=0, n_iter=50, n_backward=1).double()
    assert violation(gram, q, z, q.abs().max()) < 2e-3


def test_codes_without_penalties_are_nonnegative_least_squares(generator):
    dictionary, y, gram, q = problem(generator, 27, 16, 20)
    z = sparse_code(gram, q, lambda2=0, n_iter=3000, n_backward=1)
    reference = np.stack([nnls(dictionary.numpy(), row)[0] for row in y.numpy()])
    np.testing.assert_allclose(z.numpy(), reference, rtol=0, atol=1e-10 * reference.max())


@pytest.mark.parametrize(("lambda1", "lambda2", "n_iter"), [(0.1, 0.1, 1000), (0.5, 0.01, 4000), (0.5, 0, 40_000)])
def test_codes_are_scikit_learns_nonnegative_elastic_net(generator, lambda1, lambda2, n_iter):
    """Overcomplete, 64 unit-norm atoms for 27 numbers; without the l2 term the solver needs far more iterations."""
    dictionary, y, gram, q = problem(generator, 27, 64, 4, unit_norm=True, lambda1=lambda1, lambda2=lambda2)
    z = sparse_code(gram, q, lambda2=lambda2, n_iter=n_iter, n_backward=1)
    options = {"positive": True, "fit_intercept": False, "tol": 1e-14, "max_iter": 10**6}
    if lambda2:
        total = lambda1 + lambda2
        reference = ElasticNet(alpha=total / 27, l1_ratio=lambda1 / total, **options)
    else:
        reference = Lasso(alpha=lambda1 / 27, **options)
        assert (z > 0).sum(1).max() <= 27, "more active atoms than dimensions: not converged"
    for row, code in zip(y.numpy(), z.numpy(), strict=True):
        np.testing.assert_allclose(code, reference.fit(dictionary.numpy(), row).coef_, rtol=0, atol=1e-9)


def test_constant_momentum_gains_a_digit_at_the_stems_fifty_iterations(generator):
    _, _, gram, q = problem(generator, 27, 64, 200, unit_norm=True, lambda1=0.1, lambda2=0.1)
    solution = sparse_code(gram, q, lambda2=0.1, n_iter=2000, n_backward=1)
    constant, growing = (
        (sparse_code(gram, q, lambda2=lambda2, n_iter=50, n_backward=1) - solution).norm() / solution.norm()
        for lambda2 in (0.1, 0)  # of the solver: the problem is the same
    )
    assert constant < 2e-3  # 7e-4 measured, and 8e-3 with FISTA's momentum
    assert constant < growing / 4


@pytest.mark.parametrize(("size", "atoms"), [*SCN_SHAPES, (27, 64), (9, 1)])
def test_largest_eigenvalue_is_a_tight_upper_bound(generator, size, atoms):
    gram = problem(generator, size, atoms, 1)[2]
    ratio = largest_eigenvalue(gram) / torch.linalg.eigvalsh(gram)[-1]
    assert 1 - 1e-12 <= ratio <= atoms ** (1 / 256) + 1e-12


def test_slices_change_nothing(generator, monkeypatch):
    layer = SparseCoding2d(2, 5, n_iter=10, n_backward=5).double()
    x = draw(generator, 2, 2, 4, 5)
    whole = codes_and_gradients(layer, x)
    monkeypatch.setattr("sdnet.models.sparse_code._CPU_SLICE", 35)  # 7 patches
    for a, b in zip((whole[0], *whole[1]), (lambda z, g: (z, *g))(*codes_and_gradients(layer, x)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


# The gradient


@pytest.mark.parametrize(("size", "atoms"), SCN_SHAPES)
def test_backward_solve_is_the_active_sets_linear_system(generator, size, atoms):
    """Conjugate gradients against a dense solve for each patch; 20 steps suffice in single precision."""
    _, _, gram, q = problem(generator, size, atoms, 20)
    gram.requires_grad_()
    q.requires_grad_()
    z = sparse_code(gram, q, lambda2=0, n_iter=500, n_backward=80)
    g = draw(generator, *z.shape)
    gram_gradient, q_gradient = torch.autograd.grad(z, [gram, q], g)
    active = (z > 0).double()
    blocks = active[:, :, None] * gram.detach() * active[:, None, :] + torch.diag_embed(1 - active)
    beta = torch.linalg.solve(blocks, g * active)
    # The ridge of 2e-15 L, on blocks of condition up to 30, leaves 1e-13.
    torch.testing.assert_close(q_gradient, beta, rtol=0, atol=1e-10 * beta.abs().max().item())
    expected = -0.5 * (beta.T @ z + z.T @ beta).detach()
    torch.testing.assert_close(gram_gradient, expected, rtol=0, atol=1e-10 * expected.abs().max().item())

    q32 = q.detach().float().requires_grad_()
    z32 = sparse_code(gram.detach().float(), q32, lambda2=0, n_iter=500, n_backward=20)
    same = ((z32 > 0) == (z > 0)).all(1)
    assert same.sum() > 10
    single = torch.autograd.grad(z32, q32, g.float())[0].double()
    assert (single - beta)[same].norm() < 1e-5 * beta.norm()


def smooth_problem(channels, atoms, stride, lambda1, lambda2):
    """A converged layer and an image whose codes stay away from the kinks, where a coefficient appears or goes."""
    for seed in range(50):
        torch.manual_seed(seed)
        layer = SparseCoding2d(
            channels, atoms, stride=stride, lambda1=lambda1, lambda2=lambda2, n_iter=6000, n_backward=80
        ).double()
        x = torch.randn(1, channels, 3, 4, dtype=torch.double)
        weight = layer.weight.detach()
        q = F.conv2d(x, weight, None, stride, 1).flatten(2)[0].T - layer.lambda1.detach()
        gram = weight.flatten(1) @ weight.flatten(1).T + lambda2 * torch.eye(atoms, dtype=torch.double)
        z = layer(x).detach().flatten(2)[0].T
        if min(z[z > 0].min(), (z @ gram - q)[z == 0].min()) > 1e-4:
            return layer, x, gram, q
    raise AssertionError("every draw is near a kink")


def central_difference(function, variable, direction, step=1e-6):
    values = []
    for offset in (step, -2 * step, step):
        variable.data.add_(direction, alpha=offset)
        values.append(function().item())
    return (values[0] - values[1]) / (2 * step)


@pytest.mark.parametrize(
    ("channels", "atoms", "stride", "lambda1", "lambda2"),
    [(3, 16, 1, 0.0, 0.0), (4, 6, 2, 0.02, 0.1), (3, 40, 1, 0.05, 0.1)],
)
def test_gradient_agrees_with_central_differences(generator, channels, atoms, stride, lambda1, lambda2):
    """In random directions of the input, the atoms, lambda1, and lambda2 by way of G."""
    layer, x, gram, q = smooth_problem(channels, atoms, stride, lambda1, lambda2)
    z = layer(x)
    cotangent = draw(generator, *z.shape)

    def check(function, variable, direction):
        variable.requires_grad_()
        slope = (torch.autograd.grad(function(), variable)[0] * direction).sum().item()
        # Rounding, divided by the step, is 1e-8 of these slopes or less.
        assert slope == pytest.approx(central_difference(function, variable, direction), rel=1e-6, abs=1e-7)

    for variable in (x, layer.weight, layer.lambda1):
        for _ in range(3):
            check(lambda: (layer(x) * cotangent).sum(), variable, draw(generator, *variable.shape))
    rows = cotangent.flatten(2)[0].T
    options = {"lambda2": lambda2, "n_iter": 6000, "n_backward": 80}
    check(lambda: (sparse_code(gram, q, **options) * rows).sum(), gram, torch.eye(atoms, dtype=torch.double))


def test_gradient_of_lambda1_is_the_sum_over_the_atoms(generator):
    _, _, gram, q = problem(generator, 27, 16, 30, lambda1=0.01)
    per_atom = torch.zeros(16, dtype=torch.double, requires_grad=True)
    scalar = torch.zeros((), dtype=torch.double, requires_grad=True)
    g = draw(generator, *q.shape)
    for penalty in (per_atom, scalar):
        sparse_code(gram, q - penalty, lambda2=0, n_iter=200, n_backward=40).backward(g)
    assert scalar.grad.item() == pytest.approx(per_atom.grad.sum().item(), rel=1e-12)
    assert scalar.grad != 0


def test_lambda1_stays_nonnegative():
    layer = SparseCoding2d(3, 4, lambda1=0.01)
    layer.lambda1.data.sub_(1)
    layer.project_()
    assert layer.lambda1.item() == 0


@pytest.mark.parametrize("defect", ["equal atoms", "zero atoms", "zero patches", "more atoms than dimensions"])
def test_dependent_atoms_never_give_a_gradient_that_is_not_finite(generator, defect):
    """float32, no penalties: the active blocks of G are singular, and only the ridge keeps the solve finite."""
    layer = SparseCoding2d(1, 12 if defect == "more atoms than dimensions" else 6, lambda1=1, n_iter=300)
    layer.lambda1.data.zero_()
    x = torch.randn(4, 1, 8, 8, generator=generator)
    with torch.no_grad():
        if defect == "equal atoms":
            layer.weight[1:] = layer.weight[0]
        elif defect == "zero atoms":
            layer.weight.zero_()
        elif defect == "zero patches":
            x.zero_()
    z, gradients = codes_and_gradients(layer, x)
    assert z.isfinite().all()
    assert all(g.isfinite().all() for g in gradients)
    if "atoms" in defect and defect != "zero atoms":
        assert gradients[1].abs().max() > 0, "the solve broke down instead of being regularised"


def test_a_patch_whose_backward_solve_breaks_down_contributes_nothing():
    """Rounding can make a block indefinite; the first patch goes the way on which this one has no curvature."""
    gram, ridge = torch.diag(torch.tensor([1.0, -1.0])), torch.tensor(1e-6)
    g = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    beta = _masked_conjugate_gradients(gram, g, torch.ones(2, 2), ridge, 5)
    assert beta.tolist() == [[0, 0], [1, 0]]


# The layer


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("lambda1", "lambda2"), [(0.0, 0.0), (2**-6, 0.01)])
def test_layer_codes_each_patch_by_itself(generator, stride, lambda1, lambda2):
    """The convolution path equals explicit patches, each solved alone as nonnegative least squares."""
    layer = SparseCoding2d(3, 7, stride=stride, lambda1=lambda1, lambda2=lambda2, n_iter=3000).double()
    x = draw(generator, 2, 3, 5, 4)
    z = layer(x).detach().flatten(2).transpose(1, 2)
    patches = F.unfold(x, 3, padding=1, stride=stride).transpose(1, 2)
    atoms = layer.weight.detach().flatten(1)
    # 1/2 z^T G z - q^T z is, up to a constant, 1/2 ||R z - R^-T q||^2 with G = R^T R.
    root = torch.linalg.cholesky(atoms @ atoms.T + lambda2 * torch.eye(7, dtype=torch.double), upper=True)
    targets = (patches @ atoms.T - lambda1) @ torch.linalg.inv(root)
    expected = np.stack([nnls(root.numpy(), target)[0] for target in targets.flatten(0, 1).numpy()])
    assert 0.2 < (expected > 0).mean() < 0.8
    np.testing.assert_allclose(z.flatten(0, 1).numpy(), expected, rtol=0, atol=1e-10 * expected.max())


@pytest.mark.parametrize("kernel_size", [1, 3, 7])
def test_output_has_a_convolutions_shape(kernel_size):
    for stride in (1, 2):
        conv = nn.Conv2d(3, 2, kernel_size, stride, kernel_size // 2)
        x = torch.randn(2, 3, 9, 8)
        assert SparseCoding2d(3, 2, kernel_size, stride, n_iter=2)(x).shape == conv(x).shape


def test_atoms_scale_the_codes_inversely(generator):
    layer = SparseCoding2d(3, 6, n_iter=500).double()
    x = draw(generator, 1, 3, 5, 5)
    z = layer(x)
    layer.weight.data.mul_(3)
    torch.testing.assert_close(layer(x), z / 3, rtol=1e-10, atol=1e-10 * z.max().item())


def test_layer_works_in_single_precision_inside_autocast(generator):
    layer = SparseCoding2d(3, 16)
    x = torch.randn(2, 3, 8, 8, generator=generator).bfloat16()
    expected = layer(x.float())
    with torch.autocast("cpu", torch.bfloat16):
        z = layer(x)
    assert z.dtype == torch.float32
    torch.testing.assert_close(z, expected, rtol=0, atol=0)


def test_memory_format_of_the_input_changes_nothing(generator):
    layer = SparseCoding2d(3, 16).double()
    x = draw(generator, 2, 3, 8, 8)
    plain, last = (
        codes_and_gradients(layer, x.contiguous(memory_format=f))
        for f in (torch.contiguous_format, torch.channels_last)
    )
    for a, b in zip((plain[0], *plain[1]), (last[0], *last[1]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_report_tells_a_converged_layer_from_one_that_is_not(generator):
    x = torch.randn(2, 3, 16, 16, generator=generator)
    layer = SparseCoding2d(3, 16, n_iter=200)
    layer(x)
    good = layer.solver_report()
    assert good["unconverged"] == 0
    assert good["residual"] < 1e-3
    assert 0.3 < good["active"] < 0.7
    atoms = layer.weight.detach().flatten(1).double()
    assert good["condition"] == pytest.approx(torch.linalg.cond(atoms @ atoms.T).item(), rel=1e-6)
    assert np.isnan(layer.solver_report()["residual"]), "the report starts anew after each call"
    layer.n_iter = 3
    layer(x)
    assert layer.solver_report()["unconverged"] > 0.9


def test_problems_without_a_unique_code_are_refused():
    with pytest.raises(ValueError, match="64 atoms for patches of 27 numbers have no unique code"):
        SparseCoding2d(3, 64)
    with pytest.raises(ValueError, match="must not be negative"):
        SparseCoding2d(3, 8, lambda1=-0.1)
    SparseCoding2d(3, 64, lambda2=0.1)


# The networks


def test_scn_has_the_published_structure():
    model = scn(10)
    layers = [m for m in model.modules() if isinstance(m, SparseCoding2d)]
    assert {(layer.n_iter, layer.n_backward) for layer in layers} == {(50, 20)}
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    sides = []
    for layer in layers:
        layer.n_iter = 1
        layer.register_forward_hook(lambda layer, inputs, output: sides.append(output.shape[-1]))
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert [layer.weight.shape[0] for layer in layers] == 3 * [16, 64] + 2 * [32, 128] + 2 * [64, 256]
    assert sides == 6 * [32] + 4 * [16] + 4 * [8]
    assert len(norms) == 15
    assert not any(list(norm.parameters()) for norm in norms)
    assert {norm.eps for norm in norms} == {1e-4}
    assert not any(isinstance(m, nn.ReLU) for m in model.modules())
    assert all(layer.lambda1.item() == layer.lambda2 == 0 and not layer.unit_norm for layer in layers)
    # 2,560 numbers: five standard errors
    assert model.classifier.weight.std().item() == pytest.approx(1 / 256, rel=0.07)
    assert not model.classifier.bias.any()


@pytest.mark.parametrize(
    ("build", "num_classes", "parameters"),
    [(scn, 10, 694_216), (scn, 100, 717_346), (scn18, 10, 11_173_963), (scn18, 100, 11_220_133)],
)
def test_parameter_counts(build, num_classes, parameters):
    """Table 1 prints 0.7M and 11.2M."""
    assert sum(p.numel() for p in build(num_classes).parameters()) == parameters


def test_half_the_coefficients_of_a_fresh_scn_are_active(generator):
    torch.manual_seed(0)
    model = scn(10, width=32)
    with torch.no_grad():
        model(torch.randn(2, 3, 32, 32, generator=generator))
    active = [m.solver_report()["active"] for m in model.modules() if isinstance(m, SparseCoding2d)]
    assert len(active) == 14
    assert all(0.4 < share < 0.6 for share in active)


def test_the_scale_of_the_atoms_does_not_reach_the_logits(generator):
    """Without penalties each batch norm undoes it; its epsilon aside."""
    model = SCN(3, width=4, in_channels=1).double()
    for layer in model.features:
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = 1e-15
    x = draw(generator, 4, 1, 8, 8)
    logits = model(x)
    assert logits.std() > 1e-3
    for layer in model.features:
        if isinstance(layer, SparseCoding2d):
            layer.weight.data.mul_(3)
    torch.testing.assert_close(model(x), logits, rtol=0, atol=1e-8)


def test_scn18_is_resnet18_with_a_sparse_coding_stem():
    from sdnet.models.resnet import resnet18

    model, reference = scn18(10, width=8), resnet18(10, width=8)
    assert isinstance(model.conv1, SparseCoding2d)
    assert isinstance(model.relu, nn.Identity)
    assert isinstance(model.bn1, nn.BatchNorm2d)
    assert set(model.state_dict()) - set(reference.state_dict()) == {"conv1.lambda1"}
    assert model.conv1.lambda1.item() == pytest.approx(0.1)
    assert model.conv1.lambda2 == 0.1
    assert (model.conv1.n_iter, model.conv1.n_backward) == (50, 30)
    assert model.conv1(torch.randn(1, 3, 8, 8)).shape == (1, 8, 8, 8)
    large = scn18(10, width=8, small_input=False)
    assert large.conv1(torch.randn(1, 3, 16, 16)).shape == (1, 8, 8, 8)


def test_stems_atoms_keep_unit_norm():
    model = scn18(3, width=16)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    F.cross_entropy(model(torch.randn(4, 3, 16, 16)), torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()
    norms = model.conv1.weight.flatten(1).norm(dim=1)
    assert (norms - 1).abs().max() > 1e-6, "the step must have changed the norms"
    model.conv1.project_()
    torch.testing.assert_close(model.conv1.weight.flatten(1).norm(dim=1), torch.ones(16), rtol=0, atol=1e-6)


@pytest.mark.parametrize("build", [lambda: scn(3, width=4), lambda: scn18(3, width=4)])
def test_a_trained_network_survives_saving_and_copying(build, tmp_path):
    model = build()
    x = torch.randn(4, 3, 16, 16)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model(x).square().sum().backward()
    optimizer.step()
    torch.save(model.state_dict(), tmp_path / "model.pt")
    loaded = build()
    loaded.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    logits = [m.eval()(x) for m in (model, model, loaded, copy.deepcopy(model))]
    assert all(torch.equal(logits[0], other) for other in logits[1:])


def test_impossible_networks_are_refused_by_name():
    with pytest.raises(ValueError, match="given width 6; 3-channel images need a multiple of 4, at most 108"):
        scn(10, width=6)
    with pytest.raises(ValueError, match="small images only"):
        scn(10, small_input=False)
    with pytest.raises(ValueError, match="given width 64; 1-channel images need a multiple of 4, at most 36"):
        scn(10, in_channels=1)
    scn(10, width=36, in_channels=1)


def test_a_narrow_scn_learns_digits_at_the_papers_learning_rate():
    """24 steps of SGD at 0.1: the loss falls by a quarter and every parameter stays finite."""
    torch.manual_seed(0)
    digits = load_digits(n_class=4)
    x = F.interpolate(torch.tensor(digits.images[:256], dtype=torch.float32)[:, None], scale_factor=2)
    y = torch.tensor(digits.target[:256])
    model = scn(4, width=16, in_channels=1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
    losses = []
    for step in range(24):
        batch = slice(64 * (step % 4), 64 * (step % 4) + 64)
        loss = F.cross_entropy(model(x[batch] - x.mean()), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for layer in model.modules():
            if isinstance(layer, SparseCoding2d):
                layer.project_()
        losses.append(loss.item())
    assert np.mean(losses[-4:]) < 0.75 * losses[0]
    assert all(p.isfinite().all() for p in model.parameters())


def test_a_second_derivative_of_sparse_codes_is_refused():
    layer, x = SparseCoding2d(3, 4), torch.rand(1, 3, 6, 6)
    with pytest.raises(RuntimeError, match="create_graph=True asks for a second derivative"):
        torch.autograd.grad(layer(x).square().sum(), layer.weight, create_graph=True)
