"""The networks have the paper's sizes and shapes."""

import pytest
import torch
from torch import nn

from sdnet.csc import CSCConv2d, csc_layers
from sdnet.models import Normalize, build


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("depth", "num_classes", "small_input", "parameters"),
    [
        (18, 10, True, 11_173_962),  # Table 1: 11.2M
        (18, 100, True, 11_220_132),
        (18, 1000, False, 11_689_512),  # Table 1: 11.7M
        (34, 10, True, 21_282_122),  # Table 1 prints 21.1M, the architecture has 21.3M
        (34, 1000, False, 21_797_672),  # Table 1 prints 21.5M, the architecture has 21.8M
    ],
)
def test_parameter_counts(depth, num_classes, small_input, parameters):
    for family in ("resnet", "sdnet"):
        assert count(build(f"{family}{depth}", num_classes, small_input=small_input)) == parameters


def test_resnet_is_torchvisions_on_imagenet():
    """The same weights give the same logits."""
    from torchvision.models import resnet18

    reference, ours = resnet18(num_classes=7).eval(), build("resnet18", 7, small_input=False).eval()
    weights = zip(ours.state_dict(), reference.state_dict().values(), strict=True)
    ours.load_state_dict(dict(weights))
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours(x), reference(x))


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "sdnet18", "sdnet34"])
@pytest.mark.parametrize(("small_input", "size"), [(True, 16), (False, 64)])
def test_logits_of_images_of_any_size_and_channel_number(name, small_input, size):
    model = build(name, 5, width=4, small_input=small_input, in_channels=1)
    assert model(torch.rand(2, 1, size, size)).shape == (2, 5)


def test_sdnet_has_one_csc_layer_with_the_papers_settings():
    model = build("sdnet18", 10)
    (layer,) = csc_layers(model)
    assert model.conv1 is layer
    assert (layer.lmbd, layer.n_iter, layer.nonnegative) == (0.1, 2, False)
    assert isinstance(model.relu, nn.ReLU)


def test_the_released_reading_is_nonnegative_and_has_no_relu_behind_the_layer():
    model = build("sdnet18", 10, nonnegative=True, n_iter=4, lmbd=0.2)
    assert isinstance(model.relu, nn.Identity)
    assert (model.conv1.lmbd, model.conv1.n_iter, model.conv1.nonnegative) == (0.2, 4, True)


def test_the_imagenet_stem_is_a_strided_csc_layer():
    layer = build("sdnet18", 10, small_input=False).conv1
    assert isinstance(layer, CSCConv2d)
    assert layer.weight.shape == (64, 3, 7, 7)
    assert layer(torch.rand(1, 3, 32, 32)).shape == (1, 64, 16, 16)


def test_normalize_standardises_each_channel():
    x = torch.rand(4, 2, 8, 8)
    out = Normalize((0.5, 0.25), (0.1, 0.2))(x)
    torch.testing.assert_close(out[:, 1], (x[:, 1] - 0.25) / 0.2)


def test_an_unknown_model_is_named():
    with pytest.raises(ValueError, match="unknown model 'resnet19'; the models are resnet18, resnet34"):
        build("resnet19", 10)
