"""Images come back from codes as Eqs. 13 and 14 say."""

import pytest
import torch
from torch import nn

from sdnet.csc import CSCConv2d, csc_layers, invert, update_dictionaries
from sdnet.models import Normalize, build


def images(n=2, size=16, seed=0):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_the_first_layer_gives_the_reconstruction_of_its_code():
    model, x = CSCConv2d(3, 8, 3, padding=1, n_iter=20), images()
    torch.testing.assert_close(invert(model, x, 0), model.reconstruct(model(x), (16, 16)))


def test_many_iterations_at_a_small_lambda_give_back_the_image():
    layer, x = CSCConv2d(3, 40, 3, padding=1, lmbd=1e-4, n_iter=300), images()
    error = (invert(layer, x, 0) - x).norm() / x.norm()
    assert error < 0.02


def test_three_layers_are_undone_in_turn_with_batch_norm_inverted_exactly():
    """Eq. 13 by hand: A_1(undo BN_1(A_2(undo BN_2(A_3(z_3))))), at strides 1, 2 and 1."""
    torch.manual_seed(0)
    first, second, third = CSCConv2d(3, 6, 3, padding=1), CSCConv2d(6, 9, 3, 2, 1), CSCConv2d(9, 9, 3, padding=1)
    norms = [nn.BatchNorm2d(6), nn.BatchNorm2d(9, affine=False)]
    model = nn.Sequential(first, norms[0], second, norms[1], third).double()
    x = images(4, 15).double()
    nn.init.uniform_(norms[0].weight, 0.5, 2)
    nn.init.normal_(norms[0].bias)
    model.train()(x)
    model.eval()
    codes = [first(x)]
    codes.append(second(norms[0](codes[0])))
    codes.append(third(norms[1](codes[1])))

    def undo(norm, y):
        """Solve norm(u) = y for u by the affine map that two evaluations reveal."""
        zero, one = norm(torch.zeros_like(y)), norm(torch.ones_like(y))
        return (y - zero) / (one - zero)

    signal = undo(norms[1], third.reconstruct(codes[2], (8, 8)))
    signal = undo(norms[0], second.reconstruct(signal, (15, 15)))
    torch.testing.assert_close(invert(model, x, 2), first.reconstruct(signal, (15, 15)))


def test_pooling_is_undone_by_repetition_and_normalisation_by_its_inverse():
    torch.manual_seed(0)
    first, second = CSCConv2d(3, 6, 3, padding=1), CSCConv2d(6, 6, 3, padding=1)
    model = nn.Sequential(Normalize((0.5,) * 3, (0.2,) * 3), first, nn.ReLU(), nn.MaxPool2d(2), second).eval()
    x = images()
    pooled = second.reconstruct(model(x), (8, 8))
    repeated = pooled.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(invert(model, x, 1), first.reconstruct(repeated, (16, 16)) * 0.2 + 0.5)


def test_a_whole_network_is_left_as_it_was():
    model = build("sdnet18", 10, width=8).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert invert(model, images(), 0).shape == (2, 3, 16, 16)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    update_dictionaries(model)


def test_a_layer_that_is_not_there_is_named():
    model = build("sdnet18", 10, width=4)
    assert len(csc_layers(model)) == 1
    with pytest.raises(ValueError, match="layer is 1; ResNet has 1 CSC layers"):
        invert(model, images(), 1)
