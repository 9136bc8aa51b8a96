"""Checkpoints of the authors' repository become runs: the same network, under our names."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from sdnet.__main__ import main
from sdnet.commands import import_released
from sdnet.commands.evaluate import evaluate
from sdnet.csc import CSCConv2d, csc_layers, update_dictionaries
from sdnet.experiments import plan, results
from sdnet.experiments.settings.files import read_yaml
from sdnet.experiments.settings.loading import load_presets, load_site
from sdnet.models import build
from sdnet.models.released import Variant, load_released, variant_of
from sdnet.runs.network import load_model
from sdnet.runs.spec import read_spec

PROJECT = Path(__file__).parents[1]
NETWORKS = {
    "first": ("sdnet18", {}),
    "first of 34": ("sdnet34", {}),
    "all": ("sdnet18-all", {}),
    "all, plain": ("sdnet18-all", {"shortcut": False}),
    "all of 34": ("sdnet34-all", {}),
    "first, ImageNet": ("sdnet18", {"small_input": False}),
}


def trained(name, size=16, **options):
    """A network whose every number is other than at the start."""
    torch.manual_seed(0)
    model = build(name, 7, width=4, nonnegative=True, **options).train()
    model(torch.randn(4, model.conv1.weight.shape[1], size, size))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    update_dictionaries(model)
    return model.eval()


def released(model, every):
    """The state of a network in the released layout: specifications as in the repository's model files."""
    csc = {name for name, module in model.named_modules() if isinstance(module, CSCConv2d)}
    state = {}
    for key, value in model.state_dict().items():
        module, entry = key.rsplit(".", 1)
        if entry == "eigenvector":
            continue
        dictionary = ".dn" if module in csc else ""
        module = re.sub("^conv1$", "layer0.0", re.sub("^bn1$", "layer0.1", re.sub("^fc$", "linear", module)))
        if every:
            module = re.sub(r"^(layer[1-4])\.", r"\1.layers.", module)
        state[f"{module}{dictionary}.{entry}"] = value.clone()
    return state


def test_the_layout_is_the_one_of_the_repository():
    first, every = (released(trained(name), name.endswith("all")) for name in ("sdnet18", "sdnet18-all"))
    both = {"layer0.0.dn.weight", "layer0.0.dn.step_size", "layer0.1.running_var", "linear.bias"}
    assert both | {"layer1.0.conv1.weight", "layer2.0.shortcut.0.weight", "layer4.1.bn2.bias"} <= first.keys()
    names = {
        "layer1.layers.0.conv1.dn.weight",
        "layer4.layers.1.conv2.dn.step_size",
        "layer2.layers.0.shortcut.0.weight",
    }
    assert both | names <= every.keys()


@pytest.mark.parametrize("network", NETWORKS)
def test_the_imported_network_is_the_released_one(network):
    name, options = NETWORKS[network]
    size = 16 if options.get("small_input", True) else 64
    source = trained(name, size, **options)
    state = released(source, name.endswith("all"))
    for key in state:
        if key.endswith("step_size"):
            state[key] = torch.tensor(123.0)  # their own drifts with each evaluation: it must not be taken
    variant = variant_of(state)
    assert (variant.name, variant.num_classes, variant.width) == (name, 7, 4)
    assert variant.options == {"nonnegative": True} | {key: options[key] for key in ("shortcut",) if key in options}
    ours = build(variant.name, 7, width=4, small_input=variant.small_input, **variant.options)
    load_released(ours, state, (size, size))
    x = torch.randn(3, 3, size, size)
    torch.testing.assert_close(ours.eval()(x), source(x))
    assert [layer.image_size for layer in csc_layers(ours)] == [layer.image_size for layer in csc_layers(source)]


def test_the_step_sizes_of_an_import_owe_nothing_to_the_former_dictionaries():
    state, used = released(trained("sdnet18"), False), trained("sdnet18")
    with torch.no_grad():
        used.conv1.weight.copy_(torch.ones_like(used.conv1.weight))
    update_dictionaries(used)
    fresh = build("sdnet18", 7, width=4)
    for network in used, fresh:
        load_released(network, state, (16, 16))
    assert torch.equal(used.conv1.step_size, fresh.conv1.step_size)


def without(state, key):
    return {name: value for name, value in state.items() if name != key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: without(s, "layer1.0.conv1.weight"), "missing: layer1.0.conv1.weight"),
        (lambda s: s | {"extra.weight": torch.zeros(1)}, "unknown: extra.weight"),
        (
            lambda s: s | {"linear.weight": torch.zeros(7, 3)},
            re.escape("of another shape: linear.weight (7, 3) for (7, 32)"),
        ),
        (
            lambda s: {key.replace("bn1", "norm1"): value for key, value in s.items()},
            r"missing: layer1.0.bn1.weight, layer1.0.bn1.bias, layer1.0.bn1.running_mean and 37 more; unknown: .* more",
        ),
        (
            lambda s: {f"module.{key}": value for key, value in s.items()},
            "without layer0.0.dn.weight, .*; it has module",
        ),
        (lambda s: {}, "it has nothing"),
        (lambda s: s | {"layer0.0.dn.weight": torch.zeros(4)}, r"layer0.0.dn.weight is \(4,\) and linear.weight"),
        (lambda s: s | {"linear.weight": torch.zeros(())}, r"linear.weight \(\); they must be \(atoms,"),
        (lambda s: s | {"layer0.0.dn.weight": torch.zeros(0, 3, 3, 3)}, r"is \(0, 3, 3, 3\)"),
        (lambda s: {k: v for k, v in s.items() if "layer4.1" not in k}, "it has 7 blocks, they have 8 or 16"),
    ],
)
def test_other_keys_and_shapes_are_named(change, message):
    state = change(released(trained("sdnet18"), False))
    with pytest.raises(ValueError, match=message):
        load_released(build("sdnet18", 7, width=4, **variant_of(state).options), state, (16, 16))


# The command


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project whose preset `released` has a small network for digits."""
    shutil.copytree(PROJECT / "config", tmp_path / "config")
    preset = tmp_path / "config/presets/released.yaml"
    preset.write_text(
        preset.read_text().replace("cifar10: {noise_source: official}", "digits: {test_images: 60}") + "width: 4\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    return tmp_path


def command(monkeypatch, *arguments):
    """What a command prints before it ends with an error, or None."""
    monkeypatch.setattr(sys, "argv", ["sdnet", *map(str, arguments)])
    try:
        main()
    except SystemExit as ended:
        return ended.code
    return None


def digits_network(name="sdnet18", **options):
    torch.manual_seed(0)
    return build(name, 10, width=4, in_channels=1, nonnegative=True, **options)


@pytest.mark.parametrize("whole", [False, True], ids=["weights", "training state"])
def test_a_checkpoint_becomes_a_run_that_can_be_tested(project, monkeypatch, whole):
    state = released(digits_network(), False)
    torch.save({"epoch": 220, "state_dict": state, "perf": 95.3} if whole else state, "model_best.pth.tar")
    assert command(monkeypatch, "import-released", "model_best.pth.tar") is None
    folder = Path("results/released/runs/digits/sdnet18-nonnegative/seed0")
    spec = read_spec(folder / "spec.json")
    assert spec["model"] == {"name": "sdnet18", "width": 4, "options": {"nonnegative": True}}
    assert results.read(folder / "history.csv", "history").empty
    assert json.loads((folder / "environment.json").read_text())["imported"] == "model_best.pth.tar"
    torch.testing.assert_close(
        load_model(folder, spec, 10, torch.device("cpu")).network.conv1.weight, state["layer0.0.dn.weight"]
    )
    evaluate(folder, None, 0)
    (accuracy,) = results.read(folder / "accuracy.csv", "accuracy").to_dict("records")
    assert (accuracy["checkpoint"], accuracy["epochs"], accuracy["total"]) == ("last", 0, 60)
    message = command(monkeypatch, "train", folder / "spec.json", "--gpus", 0)
    assert message == (
        f"error: {folder} is not trained: its weights are imported with python -m sdnet import-released CHECKPOINT"
    )
    assert command(monkeypatch, "import-released", "model_best.pth.tar") is None
    assert (folder / "accuracy.csv").exists(), "of the same weights"
    torch.save(released(digits_network(), True), "another.pth.tar")
    assert command(monkeypatch, "import-released", "another.pth.tar") is None
    assert not (folder / "accuracy.csv").exists()
    assert [path.name for path in folder.glob("former-*/accuracy.csv")] == ["accuracy.csv"]


def test_every_run_of_the_shipped_preset_can_be_imported():
    """The names and spec.json that an import gives are those that Snakemake plans."""
    preset, site = (
        load_presets(PROJECT / "config/presets")["released"],
        load_site(read_yaml(PROJECT / "config/config.yaml")),
    )
    for run in plan.runs("released", preset, site):
        model = run.spec["model"]
        variant = Variant(model["name"], 10, model["width"], True, 3, model["options"])
        assert import_released._run_of(variant) == run


def test_a_network_that_the_preset_lacks_becomes_a_run_as_well(project, monkeypatch):
    torch.manual_seed(0)
    network = build("sdnet34-all", 100, width=2, nonnegative=True, shortcut=False)
    torch.save(released(network, True), "checkpoint.pth.tar")
    assert command(monkeypatch, "import-released", "checkpoint.pth.tar") is None
    folder = Path("results/released/runs/cifar100/sdnet34-all-plain/seed0")
    spec = read_spec(folder / "spec.json")
    assert spec["model"] == {"name": "sdnet34-all", "width": 2, "options": {"nonnegative": True, "shortcut": False}}
    load_model(folder, spec, 100, torch.device("cpu"))


@pytest.mark.parametrize(
    ("num_classes", "options", "message"),
    [
        (
            7,
            {},
            "its 7 classes and 3 image channels are those of no data set here: cifar10, cifar100, imagenet, digits",
        ),
        (1000, {"small_input": False}, "it is of imagenet; set imagenet_root in config/config.yaml first"),
    ],
)
def test_a_network_of_no_data_set_at_hand_is_refused(project, monkeypatch, num_classes, options, message):
    network = build("sdnet18", num_classes, width=2, nonnegative=True, **options)
    torch.save(released(network, False), "checkpoint.pth.tar")
    assert command(monkeypatch, "import-released", "checkpoint.pth.tar") == f"error: checkpoint.pth.tar: {message}"
    assert not Path("results").exists()


class Malicious:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


@pytest.mark.parametrize("content", [{"layer0.0.dn.weight": Malicious()}, [1, 2], {0: torch.zeros(1)}, None])
def test_a_file_that_is_no_checkpoint_is_refused_unread(project, monkeypatch, content):
    Path("file").write_text("no checkpoint") if content is None else torch.save(content, "file")
    message = command(monkeypatch, "import-released", "file")
    assert re.fullmatch(
        r"error: file (is no PyTorch checkpoint, or holds more .*|holds (list|dict); it must .*)", message
    )
    assert not Path("executed").exists()
    assert not Path("results").exists()
