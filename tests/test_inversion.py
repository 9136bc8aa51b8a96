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


def test_a_compiled_network_is_inverted_like_any_other():
    model, x = nn.Sequential(CSCConv2d(3, 6, 3, padding=1), nn.ReLU(), CSCConv2d(6, 6, 3, padding=1)).eval(), images()
    compiled = torch.compile(model, backend="eager", dynamic=False)
    with torch.no_grad():
        compiled(x)
    assert torch.equal(invert(compiled, x, 1), invert(model, x, 1))


class ByName(nn.Sequential):
    """Calls its layers by keyword."""

    def forward(self, x):
        return self[2](x=self[1](input=self[0](x=x)))


@pytest.mark.parametrize("kind", [nn.Sequential, ByName])
def test_every_kind_of_batch_norm_is_inverted_and_however_a_layer_is_called(kind):
    layers = CSCConv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), CSCConv2d(6, 6, 3, padding=1)
    nn.init.uniform_(layers[1].weight, 0.5, 2)
    expected = invert(nn.Sequential(*layers), images(), 1)
    assert torch.equal(invert(nn.SyncBatchNorm.convert_sync_batchnorm(kind(*layers)), images(), 1), expected)


def test_what_gives_on_its_input_is_passed_over():
    torch.manual_seed(0)
    first, second = CSCConv2d(3, 6, 3, padding=1), CSCConv2d(6, 6, 3, padding=1)
    passing = nn.Sequential(), nn.Dropout2d(0.5), nn.Identity()
    expected = invert(nn.Sequential(first, second), images(), 1)
    assert torch.equal(invert(nn.Sequential(first, *passing, second), images(), 1), expected)


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


def test_a_plain_all_network_is_inverted_block_by_block():
    """By hand from the parts of the blocks, with ReLU taken for the identity."""
    model, x = build("sdnet18-all", 10, width=4, shortcut=False).double(), images().double()
    model.train()(x)
    model.eval()
    first, second = model.layer1
    code = second.conv1(first(model.relu(model.bn1(model.conv1(x)))))
    signal = second.conv1.reconstruct(code, (16, 16))
    for conv, norm in ((first.conv2, first.bn2), (first.conv1, first.bn1), (model.conv1, model.bn1)):
        std = (norm.running_var + norm.eps).sqrt().view(-1, 1, 1)
        signal = conv.reconstruct(signal * std + norm.running_mean.view(-1, 1, 1), (16, 16))  # scale 1, shift 0
    torch.testing.assert_close(invert(model, x, 3), signal)


def test_without_relu_only_what_the_codes_leave_out_is_lost():
    """Many iterations at a tiny lambda with overcomplete dictionaries: every layer gives the image back."""
    torch.manual_seed(0)
    layers = [CSCConv2d(m, c, 3, padding=1, lmbd=1e-5, n_iter=200) for m, c in ((1, 12), (12, 120))]
    model = nn.Sequential(layers[0], nn.BatchNorm2d(12), layers[1]).double()
    x = images(size=8)[:, :1].double()
    model.train()(x)
    for layer in range(2):
        assert (invert(model, x, layer) - x).norm() < 0.02 * x.norm()


def test_every_layer_of_the_deepest_plain_network_has_an_image():
    model, x = build("sdnet34-all", 10, width=2, shortcut=False, nonnegative=True, small_input=False), images(1, 64)
    for layer in (0, 1, 16, 32):
        assert invert(model, x, layer).shape == x.shape


# Refusals


def test_a_layer_that_is_not_there_is_named():
    model = build("sdnet18", 10, width=4)
    assert len(csc_layers(model)) == 1
    for layer in (1, -1):
        with pytest.raises(ValueError, match=f"layer is {layer}; ResNet has 1 CSC layers, from 0"):
            invert(model, images(), layer)


@pytest.mark.parametrize(("layer", "shortcut"), [(3, "layer1.0.shortcut"), (16, "layer1.0.shortcut")])
def test_a_layer_behind_a_shortcut_is_refused_and_those_before_it_are_not(layer, shortcut):
    model = build("sdnet18-all", 10, width=4).train()
    with pytest.raises(ValueError, match=rf"invert: {shortcut} leaves the chain .* or shortcut=False"):
        invert(model, images(), layer)
    assert not any(module._forward_hooks for module in model.modules())
    assert all(module.training for module in model.modules())
    for before_the_sum in (0, 1, 2):
        assert invert(model, images(), before_the_sum).shape == (2, 3, 16, 16)


class Changed(nn.Sequential):
    def forward(self, x):
        return self[1](self[0](x).mul_(3))


def test_a_function_that_works_in_place_between_layers_is_noticed():
    model = Changed(CSCConv2d(3, 6, 3, padding=1), CSCConv2d(6, 6, 3, padding=1))
    with pytest.raises(ValueError, match=r"1 leaves the chain .* is not what 0 gave"):
        invert(model, images(), 1)
    with torch.inference_mode():
        assert invert(model, images(), 0).shape == (2, 3, 16, 16)


class Doubled(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = CSCConv2d(3, 6, 3, padding=1), CSCConv2d(6, 6, 3, padding=1)

    def forward(self, x):
        return self.second(2 * self.first(x))


def test_a_function_between_layers_is_noticed():
    with pytest.raises(ValueError, match=r"second leaves the chain .* is not what first gave"):
        invert(Doubled(), images(), 1)


def test_a_layer_that_cannot_be_undone_is_named():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), CSCConv2d(4, 4, 3))
    with pytest.raises(ValueError, match="invert: 0, a Conv2d, cannot be undone"):
        invert(model, images(), 0)
    model = nn.Sequential(nn.MaxPool2d(2, return_indices=True), nn.Identity(), CSCConv2d(3, 4, 3))
    with pytest.raises(ValueError, match="invert: 0, a MaxPool2d, cannot be undone"):
        invert(model, images(), 0)


def test_a_layer_that_is_not_run_is_named():
    model = Doubled()
    model.third = CSCConv2d(6, 6, 3)
    model.forward = lambda x: model.first(x)
    with pytest.raises(ValueError, match="does not run it"):
        invert(model, images(), 2)


def test_batch_norm_without_running_statistics_is_refused():
    model = nn.Sequential(
        CSCConv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6, track_running_stats=False), CSCConv2d(6, 4, 3)
    )
    with pytest.raises(ValueError, match="invert: 1 keeps no running statistics, by which batch norm is undone"):
        invert(model, images(), 1)


def test_batch_norm_that_drops_a_channel_is_refused():
    model = nn.Sequential(CSCConv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), CSCConv2d(6, 4, 3))
    nn.init.zeros_(model[1].weight[2])
    with pytest.raises(ValueError, match="invert: 1 scales a channel by 0, which cannot be undone"):
        invert(model, images(), 1)
