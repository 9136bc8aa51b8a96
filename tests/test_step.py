"""One training step: what a GPU replays is what it would compute anew. A CPU imitates the recording here."""

import contextlib

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sdnet.csc import csc_layers
from sdnet.data.digits import load_digits_images
from sdnet.data.images import subset
from sdnet.data.loaders import DeviceLoader
from sdnet.models import build
from sdnet.training import step
from sdnet.training.loop import fit

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


class Tape(TorchDispatchMode):
    """A CUDA graph, imitated: notes each operation with the very tensors that it read and wrote."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        made = function(*args, **(kwargs or {}))
        self.operations.append((function, args, kwargs or {}, made))
        return made

    @torch.no_grad()
    def replay(self):
        """The operations once more, each into the memory that it wrote to then."""
        for function, args, kwargs, made in self.operations:
            for old, new in zip(tree_leaves(made), tree_leaves(function(*args, **kwargs)), strict=True):
                if isinstance(old, torch.Tensor):
                    old.copy_(new)


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


@pytest.fixture
def recording(monkeypatch, device):
    """The CPU records, too. As on a GPU, what is recorded is not done yet."""
    if device == "cuda":
        return
    trainings = []

    @contextlib.contextmanager
    def graph(tape, capture_error_mode):
        training = trainings[-1]
        state = [*training.network.parameters(), *training.network.buffers()]
        state += [layer.eigenvector for layer in csc_layers(training.network)]
        state += [value for held in training.optimiser.state.values() for value in held.values()]
        before = [value.clone() for value in state]
        with tape:
            yield
        with torch.no_grad():
            for value, old in zip(state, before, strict=True):
                value.copy_(old)

    start = step.TrainingStep.__init__
    monkeypatch.setattr(
        step.TrainingStep, "__init__", lambda self, *args: (trainings.append(self), start(self, *args))[1]
    )
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Tape)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(step, "RECORDING", ("cpu",))


def trained(model, folder, device, epochs=3, **options):
    """Weights and history, times and memory left out, after training on 5 full batches of 16 and one of 8."""
    digits = subset(load_digits_images(), 88, 40, seed=0)
    data = {"device": device, "augment": True, "crop_padding": 2}
    train = DeviceLoader(digits.train_images, digits.train_labels, batch_size=16, **data)
    test = DeviceLoader(digits.test_images, digits.test_labels, batch_size=40, device=device, augment=False)
    options = {"learning_rate": 0.05, "precision": "float32", "deterministic": True} | options
    *_, history = fit(model, train, test, checkpoints=folder, epochs=epochs, device=torch.device(device), **options)
    rows = [{k: v for k, v in row.items() if k not in ("train_seconds", "peak_memory_bytes")} for row in history]
    return {key: value.cpu().clone() for key, value in model.state_dict().items()}, rows


def network(name):
    torch.manual_seed(0)
    return build(name, 10, width=4, in_channels=1)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", {}),
        ("sdnet18", {}),
        ("sdnet18", {"precision": "bfloat16"}),
        ("sdnet18", {"nesterov": False, "schedule": "multistep", "milestones": [0.4]}),
        ("sdnet18-all", {}),
        ("scn", {}),
        ("scn18", {}),
    ],
)
def test_a_replayed_step_computes_what_an_issued_one_does(tmp_path, monkeypatch, recording, device, name, options):
    replays = []
    replay = torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: (replays.append(graph), replay(graph)))
    weights, history = trained(network(name), tmp_path / "replayed", device, **options)
    assert len(replays) == 3 * 5 - step.WARM_UP, "full batches alone, and not the first ones"
    assert len(set(replays)) == 1
    monkeypatch.setattr(step, "WARM_UP", 10**9)
    expected, expected_history = trained(network(name), tmp_path / "issued", device, **options)
    assert len(replays) == 3 * 5 - 3
    assert history == expected_history
    assert all(torch.equal(value, expected[key]) for key, value in weights.items())


def test_a_resumed_training_records_anew_and_ends_in_the_same_weights(tmp_path, recording, device):
    expected, history = trained(network("sdnet18"), tmp_path / "straight", device)
    trained(network("sdnet18"), tmp_path / "killed", device)
    (tmp_path / "killed" / "epoch0003.pt").unlink()
    torch.manual_seed(1)
    weights, resumed = trained(build("sdnet18", 10, width=4, in_channels=1), tmp_path / "killed", device)
    assert resumed == history
    assert all(torch.equal(value, expected[key]) for key, value in weights.items())


def test_a_checkpoint_of_a_device_that_records_goes_on_where_nothing_is(tmp_path, monkeypatch, recording, device):
    trained(network("sdnet18"), tmp_path, device, epochs=2)
    (tmp_path / "epoch0002.pt").unlink()
    monkeypatch.setattr(step, "RECORDING", ())
    rates = []
    update = torch.optim.SGD.step
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self: (rates.append(self.param_groups[0]["lr"]), update(self)))
    _, history = trained(network("sdnet18"), tmp_path, "cpu", epochs=2)
    assert len(history) == 2
    assert rates[0] == pytest.approx(0.025)
    assert isinstance(rates[0], float)


@pytest.mark.parametrize(("name", "optimizer"), [("mdeq", "sgd"), ("sdnet18", "adam")])
def test_what_cannot_be_replayed_is_issued_step_by_step(tmp_path, monkeypatch, device, name, optimizer):
    recorded = []
    monkeypatch.setattr(step, "RECORDING", ("cpu", "cuda"))
    monkeypatch.setattr(step.TrainingStep, "_record", lambda self, x, y: recorded.append(self))
    torch.manual_seed(0)
    model = build(name, 10, width=16 if name == "mdeq" else 4, in_channels=1)
    trained(model, tmp_path, device, epochs=1, optimizer=optimizer, learning_rate=0.001, deterministic=False)
    assert recorded == []


def test_a_csc_layer_goes_on_with_its_eigenvector_in_place():
    (layer,) = csc_layers(network("sdnet18"))
    layer(torch.rand(2, 1, 16, 16))
    layer.update_step_size(warm=True)
    before, copy = layer.eigenvector, layer.eigenvector.clone()
    layer.update_step_size(warm=True)
    assert layer.eigenvector is before
    assert not torch.equal(before, copy)


class Asking(nn.Module):
    """A layer that asks the device for a number."""

    def forward(self, x):
        return x * x.abs().max().item()


def test_a_network_that_waits_for_the_gpu_is_refused_unless_it_says_so(tmp_path, recording, device):
    """The last one: a process in which a recording failed can draw no random numbers on the GPU any more."""
    model = nn.Sequential(Asking(), nn.Flatten(), nn.Linear(256, 10))
    with pytest.raises(RuntimeError, match=r"cannot be recorded on the GPU \(.*capturing.*\); .* waits_for_gpu = True"):
        trained(model, tmp_path / "refused", device)
    model[0].waits_for_gpu = True
    _, history = trained(model, tmp_path / "issued", device)
    assert len(history) == 3
