"""The networks have the paper's sizes and shapes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sdnet.csc import CSCConv2d, csc_layers, update_dictionaries
from sdnet.models import Normalize, build
from sdnet.models.resnet import BasicBlock


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


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "sdnet18", "sdnet34", "sdnet18-all", "sdnet34-all"])
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


@pytest.mark.parametrize(("name", "layers"), [("sdnet18-all", 17), ("sdnet34-all", 33)])
def test_an_all_network_is_a_resnet_of_csc_layers_with_ordinary_1x1_shortcuts(name, layers):
    model, resnet = build(name, 10, width=4), build(name.replace("sdnet", "resnet").removesuffix("-all"), 10, width=4)
    assert count(model) == count(resnet)
    assert len(csc_layers(model)) == layers
    for layer in csc_layers(model):
        assert (layer.lmbd, layer.n_iter, layer.nonnegative) == (0.1, 2, False)
    replaced = {key: type(module) for key, module in model.named_modules() if type(module) is not CSCConv2d}
    assert replaced.items() <= {key: type(module) for key, module in resnet.named_modules()}.items()
    left = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert [(conv.kernel_size, conv.stride) for conv in left] == [((1, 1), (1, 1))] * 3, "of every second pixel"
    assert [layer.stride for layer in csc_layers(model)].count((2, 2)) == 3


def relus(model):
    return [name for name, module in model.named_modules() if isinstance(module, nn.ReLU)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"relu", "relu1", "relu2"}),
        ({"shortcut": False}, {"relu", "relu1", "relu2"}),
        ({"nonnegative": True}, {"relu2"}),  # behind the sum with the shortcut
        ({"nonnegative": True, "shortcut": False}, set()),
    ],
)
def test_where_an_all_network_has_relus(options, expected):
    assert {name.rpartition(".")[2] for name in relus(build("sdnet18-all", 10, width=4, **options))} == expected


def test_an_all_network_trains_and_keeps_its_atoms_at_unit_norm():
    torch.manual_seed(0)
    model = build("sdnet18-all", 3, width=8).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    x, y = torch.randn(12, 3, 16, 16), torch.arange(12) % 3
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        assert all(layer.weight.grad.abs().max() > 0 for layer in csc_layers(model))
        optimizer.step()
        update_dictionaries(model)
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    for layer in csc_layers(model):
        torch.testing.assert_close(layer.weight.flatten(1).norm(dim=1), torch.ones(len(layer.weight)))


def test_a_plain_block_is_the_chain_of_its_layers():
    block, x = BasicBlock(4, 8, 2, shortcut=False).eval(), torch.randn(2, 4, 8, 8)
    expected = block.bn2(block.conv2(block.bn1(block.conv1(x)).relu())).relu()
    torch.testing.assert_close(block(x), expected)


def test_normalize_standardises_each_channel():
    x = torch.rand(4, 2, 8, 8)
    out = Normalize((0.5, 0.25), (0.1, 0.2))(x)
    torch.testing.assert_close(out[:, 1], (x[:, 1] - 0.25) / 0.2)


@pytest.mark.parametrize("numbers", [list, np.array, lambda values: np.array(values, dtype=np.float32), torch.tensor])
@pytest.mark.parametrize("values", [[0.5, 0.25], [1, 2]])
def test_normalize_computes_as_the_network_does_whatever_its_statistics_come_from(numbers, values):
    x, normalize = torch.rand(1, 2, 4, 4), Normalize(numbers(values), numbers(values))
    assert normalize(x).dtype == torch.float32
    assert normalize.double()(x.double()).dtype == torch.float64
    assert {buffer.dtype for buffer in normalize.buffers()} == {torch.float64}


def test_an_unknown_model_is_named():
    with pytest.raises(ValueError, match="unknown model 'resnet19'; the models are resnet18, resnet34"):
        build("resnet19", 10)


def test_the_stem_for_small_images_keeps_their_size():
    model, sizes = build("sdnet18", 10, width=4), []
    for part in (model.conv1, model.maxpool, model.layer1, model.layer2, model.layer3, model.layer4):
        part.register_forward_hook(lambda module, args, out: sizes.append(out.shape[-1]))
    model(torch.rand(1, 3, 32, 32))
    assert sizes == [32, 32, 32, 16, 8, 4]
