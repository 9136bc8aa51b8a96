"""The command line: runs that are killed and go on, numbers that recount, and errors in one sentence."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import click
import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from filelock import FileLock

from sdnet import __main__ as command_line
from sdnet import csc
from sdnet.__main__ import cli, main, readings
from sdnet.commands.evaluate import CodeHistogram, evaluate
from sdnet.commands.invert import invert
from sdnet.commands.train import train
from sdnet.csc import CSCConv2d
from sdnet.data.datasets import load
from sdnet.data.images import subset_indices
from sdnet.experiments import environment, results
from sdnet.experiments.settings_files import image_folder
from sdnet.runs.device import choose_device, has_bfloat16
from sdnet.runs.images import folder_source, open_data
from sdnet.runs.network import build_model, load_model, save_model
from sdnet.runs.spec import read_spec

CPU = torch.device("cpu")
NOT_NEEDED = ("mlflow", "pydantic", "snakemake", "papermill", "seaborn", "statsmodels")


def make_spec(folder, **training):
    """A run of seconds: 96 digits and an SDNet-18 of width 4."""
    spec = {
        "preset": "tiny",
        "system": "sdnet18",
        "seed": 0,
        "dataset": {"name": "digits", "checksum": None, "train_images": 96, "test_images": 60, "image_size": None},
        "model": {"name": "sdnet18", "width": 4, "options": {}},
        "training": {
            "epochs": 3,
            "batch_size": 32,
            "optimizer": "sgd",
            "learning_rate": 0.05,
            "momentum": 0.9,
            "nesterov": True,
            "weight_decay": 5e-4,
            "schedule": "cosine",
            "milestones": [],
            "precision": "float32",
            "deterministic": False,
        }
        | training,
    }
    folder.mkdir(parents=True)
    path = folder / "spec.json"
    path.write_text(json.dumps(spec))
    return path


@pytest.fixture(autouse=True)
def untracked(monkeypatch):
    """No MLflow in these tests; tests/test_tracking.py is about it."""
    monkeypatch.setitem(sys.modules, "mlflow", None)


@pytest.fixture(scope="session")
def bare(tmp_path_factory):
    """The environment of a cluster node that has none of the packages a run does not need."""
    folder = tmp_path_factory.mktemp("missing")
    for name in NOT_NEEDED:
        (folder / f"{name}.py").write_text(f"raise ModuleNotFoundError('{name} is not installed')\n")
    return os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}


def start(bare, *arguments):
    command = [sys.executable, "-m", "sdnet", *map(str, arguments)]
    return subprocess.Popen(command, env=bare, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def read_until(process, text):
    """The process's messages up to the one that holds a text."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError(f"the process ended before {text!r}: {''.join(lines)}")


def weights(folder):
    return torch.load(folder / "model.pt", weights_only=True)


def history(folder):
    return results.read(folder / "history.csv", "history").drop(columns="train_seconds")


def assert_same_run(folder, expected):
    a, b = weights(folder), weights(expected)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)
    pd.testing.assert_frame_equal(history(folder), history(expected), check_exact=True)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_killed_training_started_again_ends_in_the_same_weights(tmp_path, bare, precision):
    undisturbed = make_spec(tmp_path / "undisturbed", precision=precision, epochs=20)
    train(undisturbed, None, 0)
    spec = make_spec(tmp_path / "killed", precision=precision, epochs=20)
    process = start(bare, "train", spec, "--gpus", 0)
    read_until(process, "epoch  2/20")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (spec.parent / "model.pt").exists(), "what is not trained to the end does not look so"
    again = start(bare, "train", spec, "--gpus", 0)
    _, messages = again.communicate()
    assert again.returncode == 0, messages
    epochs = [int(epoch) for epoch in re.findall(r"epoch ([ \d]+)/20", messages)]
    assert 2 <= epochs[0] < 20, "it goes on where it was"
    assert epochs == list(range(epochs[0], 21))
    assert "mlflow is not installed" in messages, "the packages that training can do without were missing"
    assert_same_run(spec.parent, undisturbed.parent)


def test_a_device_that_only_imitates_bfloat16_trains_in_float32_and_says_so(tmp_path, monkeypatch, capsys):
    train(make_spec(tmp_path / "float32"), None, 0)
    assert "instructions" not in capsys.readouterr().err
    monkeypatch.setattr("sdnet.runs.device.has_bfloat16", lambda device: False)
    train(make_spec(tmp_path / "bfloat16", precision="bfloat16"), None, 0)
    assert "has no bfloat16 instructions; training in float32" in capsys.readouterr().err
    for run in ("float32", "bfloat16"):
        about = json.loads((tmp_path / run / "environment.json").read_text())
        assert (about["precision"], environment.tags(about)["precision"]) == ("float32", "float32")
    assert_same_run(tmp_path / "bfloat16", tmp_path / "float32")


@pytest.mark.parametrize(
    ("machine", "instructions", "expected"),
    [("x86_64", True, True), ("x86_64", False, False), ("aarch64", False, True)],
)
def test_on_x86_bfloat16_takes_its_instructions(machine, instructions, expected, monkeypatch):
    """torch's own test says yes to any AVX-512 there."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: instructions)
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert has_bfloat16(CPU) == expected


def test_commands_compute_float32_in_float32():
    assert not torch.backends.cudnn.allow_tf32


def test_a_device_with_bfloat16_trains_in_it(tmp_path, monkeypatch):
    monkeypatch.setattr("sdnet.runs.device.has_bfloat16", lambda device: True)
    train(make_spec(tmp_path / "float32"), None, 0)
    train(make_spec(tmp_path / "bfloat16", precision="bfloat16"), None, 0)
    assert json.loads((tmp_path / "bfloat16/environment.json").read_text())["precision"] == "bfloat16"
    assert not history(tmp_path / "bfloat16").equals(history(tmp_path / "float32"))


def test_an_interrupted_training_says_how_to_go_on(tmp_path, bare):
    process = start(bare, "train", make_spec(tmp_path / "run", epochs=50), "--gpus", 0)
    read_until(process, "epoch  1/50")
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate()
    assert process.returncode == 1
    assert messages.rstrip().endswith("interrupted; the same command goes on from the last checkpoint")
    assert "Traceback" not in messages


def test_a_second_process_of_the_same_run_waits_for_the_first(tmp_path, bare):
    spec = make_spec(tmp_path / "run", epochs=1)
    with FileLock(spec.parent / ".lock"):
        process = start(bare, "train", spec, "--gpus", 0)
        read_until(process, "another process trains this run; waiting")
        assert not (spec.parent / "checkpoints").exists()
    process.communicate()
    assert process.returncode == 0
    assert (spec.parent / "model.pt").exists()


def test_training_writes_what_the_run_needs_and_no_more(trained):
    names = {path.name for path in trained.iterdir()} - {".lock"}
    outputs = {"accuracy.csv", "codes.csv", "dictionary.csv"}
    assert names - outputs == {"spec.json", "model.pt", "history.csv", "environment.json", "checkpoints"}
    about = json.loads((trained / "environment.json").read_text())
    assert about["data_source"] == "scikit-learn digits"
    assert about["packages"]["torch"] in (torch.__version__, torch.__version__.split("+")[0])
    assert about["device"].startswith("CPU")
    rows = history(trained)
    assert rows.epoch.tolist() == [1, 2, 3]
    assert set(rows.train_total) == {96}


def test_checkpoints_of_other_settings_are_not_gone_on_from(tmp_path):
    spec = make_spec(tmp_path / "changed", epochs=2)
    train(spec, None, 0)
    other = make_spec(tmp_path / "fresh", epochs=2, learning_rate=0.02)
    spec.write_text(other.read_text())
    train(spec, None, 0)
    train(other, None, 0)
    assert_same_run(spec.parent, other.parent)
    assert len(list((spec.parent / "checkpoints").iterdir())) == 2


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that was trained and tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "mlflow", None)
        folder = make_spec(tmp_path_factory.mktemp("runs") / "run").parent
        train(folder / "spec.json", None, 0)
        evaluate(folder, None, 0)
    return folder


@pytest.fixture(scope="module")
def network(trained):
    return load_model(trained, read_spec(trained / "spec.json"), 10, CPU)


@pytest.fixture(scope="module")
def codes(trained, network):
    """The codes of all test images at the first layer, from the model's own parts."""
    test = open_data(read_spec(trained / "spec.json"), None, CPU).test
    with torch.no_grad():
        return torch.cat([network.network.conv1(network.normalize(x)) for x, _ in test.epoch(0)])


def test_the_accuracy_recounts(trained, network):
    test = open_data(read_spec(trained / "spec.json"), None, CPU).test
    with torch.no_grad():
        correct = sum(int((network(x).argmax(1) == y).sum()) for x, y in test.epoch(0))
    accuracy = results.read(trained / "accuracy.csv", "accuracy").set_index("checkpoint")
    assert accuracy.loc["last", ["epoch", "correct", "total"]].tolist() == [3, correct, 60]
    rows = history(trained)
    best = rows.test_correct.argmax() + 1
    counted = correct if best == 3 else rows.test_correct.max()  # the last epoch's not once in each precision
    assert accuracy.loc["best_on_test", ["epoch", "correct"]].tolist() == [best, counted]
    assert set(accuracy.parameters) == {sum(p.numel() for p in network.parameters())}
    assert set(accuracy.train_images) == {96}


def test_the_share_of_zeros_and_every_bin_recount(trained, codes):
    bins = results.read(trained / "codes.csv", "codes")
    assert set(bins.layer) == {"network.conv1"}
    assert set(bins["lambda"]) == {0.1}
    assert bins["count"].sum() == codes.numel(), "each entry is in one bin"
    exact = bins.bin_low == bins.bin_high
    zeros = int((codes == 0).sum())
    assert bins[exact]["count"].tolist() == [zeros]
    assert 0 < zeros < codes.numel(), "the codes must be sparse, and not all zero"
    nonzero = codes[codes != 0]
    for row in bins[~exact].itertuples():
        # The edges are float32 numbers, printed with all their digits.
        low, high = (torch.tensor(edge, dtype=torch.float32) for edge in (row.bin_low, row.bin_high))
        assert row.count == int(((nonzero >= low) & (nonzero < high)).sum())
    assert (bins[~exact]["count"] > 0).sum() > 20, "the bins must resolve the distribution"


def test_an_entry_on_an_edge_is_in_the_upper_bin_and_one_beyond_the_first_batch_in_an_open_bin():
    histogram, layer = CodeHistogram(), CSCConv2d(1, 2, 3)
    histogram(layer, (), torch.tensor([-1.0, 0.0, 0.5]))  # sets the edges, from -1.1 to 1.1
    edges = histogram.edges.clone()
    before = [row["count"] for row in histogram.rows()]
    histogram(layer, (), torch.cat([edges, torch.tensor([-9.0, 9.0, 0.0])]))
    after = [row["count"] for row in histogram.rows()]
    added = [b - a for a, b in zip(before, after, strict=True)]
    assert added == [1, 1] + [1] * (len(edges) - 1) + [2], "zeros, below, each bin by its lower edge, above"


def test_the_share_of_zeros_of_figure_6_is_that_of_the_codes(trained, codes):
    from sdnet.experiments.tables import zero_shares

    shares = zero_shares(results.read(trained / "codes.csv", "codes"))
    assert shares.zero_percent.tolist() == pytest.approx([100 * float((codes == 0).double().mean())])


def test_the_dictionary_is_the_layer_s_weight(trained):
    weight = weights(trained)["network.conv1.weight"]
    entries = results.read(trained / "dictionary.csv", "dictionary")
    places = entries[["atom", "channel", "row", "column"]].to_numpy().T
    assert len(entries) == weight.numel()
    assert torch.equal(weight[tuple(torch.tensor(places))], torch.tensor(entries.value.to_numpy(dtype="float32")))
    norms = entries.groupby("atom").value.apply(lambda values: (values**2).sum() ** 0.5)
    assert norms.to_numpy() == pytest.approx(1, abs=1e-6)  # float32


def test_testing_again_gives_the_same_files_without_the_packages_it_does_not_need(trained, bare):
    files = {name: trained / name for name in ("accuracy.csv", "codes.csv", "dictionary.csv")}
    before = {name: path.read_bytes() for name, path in files.items()}
    process = start(bare, "evaluate", trained, "--gpus", 0)
    output, messages = process.communicate()
    assert process.returncode == 0, messages
    assert {name: path.read_bytes() for name, path in files.items()} == before
    assert re.fullmatch(r"digits/sdnet18/seed0: \d+ of 60 correct\n", output)


def test_a_network_without_a_csc_layer_has_no_codes_and_no_dictionary(tmp_path):
    spec = make_spec(tmp_path / "run", epochs=1)
    spec.write_text(spec.read_text().replace("sdnet18", "resnet18"))
    train(spec, None, 0)
    evaluate(spec.parent, None, 0)
    assert results.read(spec.parent / "codes.csv", "codes").empty
    assert results.read(spec.parent / "dictionary.csv", "dictionary").empty
    assert len(results.read(spec.parent / "accuracy.csv", "accuracy")) == 2


# Images from codes


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A trained network of CSC layers alone, without shortcuts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "mlflow", None)
        spec = make_spec(tmp_path_factory.mktemp("runs") / "plain", epochs=1)
        model = {"name": "sdnet18-all", "width": 4, "options": {"shortcut": False, "nonnegative": True}}
        train(edited(spec, model=model), None, 0)
        invert(spec.parent, None, 20, 0)
    return spec.parent


def test_the_dictionary_of_an_all_network_is_that_of_its_first_layer(plain):
    evaluate(plain, None, 0)
    entries = results.read(plain / "dictionary.csv", "dictionary")
    assert set(entries.layer) == {"network.conv1"}
    assert len(entries) == 4 * 9
    assert results.read(plain / "codes.csv", "codes").layer.nunique() == 17


def test_each_layer_s_reconstruction_is_scored_for_each_image(plain):
    """Recomputed for one layer; in double precision, and of images less their mean where it says so."""
    scores = results.read(plain / "inversion.csv", "inversion")
    assert len(scores) == 17 * 20
    assert scores.groupby("depth").layer.first().tolist()[:3] == [
        "network.conv1",
        "network.layer1.0.conv1",
        "network.layer1.0.conv2",
    ]
    model = load_model(plain, read_spec(plain / "spec.json"), 10, CPU).double()
    test = open_data(read_spec(plain / "spec.json"), None, CPU).test
    x = next(test.epoch(0))[0].double()  # the 60 test images of the run, in order
    everything = subset_indices(load("digits", None).test_labels, "test", 60, seed=0)
    x = x[np.isin(everything, scores.image)]
    back = csc.invert(model, x, 4)
    of_layer = scores[scores.depth == 5]
    error = ((back.clamp(0, 1) - x) ** 2).mean((1, 2, 3))
    assert of_layer.psnr_db.to_numpy() == pytest.approx((10 * torch.log10(1 / error)).numpy())
    ours, theirs = ((images - images.mean(0)).flatten(1).numpy() for images in (back, x))
    contrast = [np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(ours, theirs, strict=True)]
    assert of_layer.contrast.to_numpy() == pytest.approx(contrast)
    correlation = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(ours, theirs, strict=True)]
    assert of_layer.correlation.to_numpy() == pytest.approx(correlation)


def test_the_pictures_are_of_five_classes_and_the_terms_add_up_to_the_first_reconstruction(plain):
    arrays = results.read_arrays(plain / "inversion.npz")
    assert arrays["pictures"].shape == (17, 5, 16, 16, 1)
    labels = load("digits", None).test_labels[arrays["indices"]]
    assert len(set(labels)) == 5
    model = load_model(plain, read_spec(plain / "spec.json"), 10, CPU).double()
    image = torch.from_numpy(arrays["images"][:1]).permute(0, 3, 1, 2).double() / 255
    reconstruction = csc.invert(model, image, 0)
    expected = (255 * reconstruction.clamp(0, 1)).round().permute(0, 2, 3, 1)[0].numpy()
    assert np.abs(arrays["sums"][-1] - expected).max() <= 1  # rounded
    layer, x = model.network.conv1, model.normalize(image)
    strengths = np.linalg.norm(arrays["terms"].reshape(4, -1), axis=1)
    assert (np.diff(strengths) <= 0).all()
    assert arrays["terms"].sum(0) == pytest.approx(layer.reconstruct(layer(x), (16, 16))[0].detach().numpy(), abs=1e-5)


# Errors


@pytest.fixture
def error_of(monkeypatch):
    """What a command that fails prints before it ends with an exit code other than 0."""

    def error_of(*arguments):
        monkeypatch.setattr(sys, "argv", ["sdnet", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        message = ended.value.code
        assert isinstance(message, str), "printed by Python, which then ends with exit code 1"
        assert message.startswith("error: ")
        assert "\n" not in message
        return message.removeprefix("error: ")

    return error_of


def edited(path, **changes):
    """Edit a spec by hand: dataset__name="x" sets dataset.name, and None as a group removes it."""
    spec = json.loads(path.read_text())
    for name, value in changes.items():
        group, _, key = name.partition("__")
        (spec[group] if key else spec)[key or group] = value
    path.write_text(json.dumps(spec))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__name": "resnet19"}, r".*spec\.json: model\.name: given 'resnet19' \(str\); .*'sdnet34-all'"),
        ({"model__width": 0}, r".*spec\.json: model\.width: given 0 \(int\); .*greater than 0"),
        ({"model__name": "mdeq"}, r".*spec\.json: model\.width: given 4; mdeq on digits needs a multiple of 16"),
        ({"model__options": {"foo": 1}}, r".*spec\.json: model\.options: unknown key 'foo'; allowed are lmbd, .*"),
        ({"model__options": {"lmbd": "x"}}, r".*: model\.options\.lmbd: given 'x' \(str\); .*valid number"),
        (
            {"model": {"name": "scn", "width": 4, "options": {"lmbd": 0.1}}},
            r".*spec\.json: model\.options: given lmbd for scn; only the sdnet models have options",
        ),
        ({"dataset__name": ["digits"]}, r".*spec\.json: dataset\.name: given \['digits'\] \(list\); .*'cifar10'.*"),
        ({"dataset__image_size": 9999}, r".*spec\.json: dataset\.image_size: given 9999; digits has a size of its own"),
        ({"training__epochs": -1}, r".*spec\.json: training\.epochs: given -1 \(int\); .*greater than or equal to 0"),
        ({"training__batch_size": 0}, r".*spec\.json: training\.batch_size: given 0 \(int\); .*greater than 0"),
        ({"training__learning_rate": "0.1"}, r".*: training\.learning_rate: given '0\.1' \(str\); .*valid number"),
        ({"training__optimizer": "lbfgs"}, r".*spec\.json: training\.optimizer: given 'lbfgs' \(str\); .*'adam'"),
        ({"seed": "x"}, r".*spec\.json: seed: given 'x' \(str\); .*valid integer"),
        (
            {"training__lr": 0.1},
            r".*spec\.json describes no run: missing or unknown keys training\.lr; give a run's folder, such as .*",
        ),
        ({"colour": "red"}, r".*spec\.json describes no run: missing or unknown keys colour; give a run's folder.*"),
        ({"model": {}}, r".*missing or unknown keys model\.name, model\.options, model\.width; give a run's folder.*"),
        ({"dataset__train_images": 5000}, r"subset: 5000 train images asked for; there are 1437.*"),
        ({"training__learning_rate": 1e30}, r"the loss or a weight is not finite at epoch 1, step \d of 3 .*try.*"),
    ],
)
def test_a_spec_edited_wrongly_is_refused_in_one_sentence(tmp_path, error_of, changes, message):
    spec = edited(make_spec(tmp_path / "run"), **changes)
    assert re.fullmatch(message, error_of("train", spec, "--gpus", 0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__name": "resnet19"}, r"unknown model 'resnet19'; the models are resnet18, .*sdnet34-all"),
        ({"dataset__name": "mnist"}, r".*spec\.json: dataset\.name is 'mnist'; choose one of cifar10, .*"),
        ({"training__optimizer": "lbfgs"}, "optimizer 'lbfgs' is unknown; choose sgd or adam"),
        ({"training__schedule": "linear"}, "schedule 'linear' is unknown; choose cosine or multistep"),
        ({"training__precision": "float16"}, "precision 'float16' is unknown; choose float32 or bfloat16"),
    ],
)
def test_unknown_names_in_a_spec_are_refused_without_pydantic_too(tmp_path, error_of, monkeypatch, changes, message):
    monkeypatch.setitem(sys.modules, "sdnet.experiments.settings", None)
    spec = edited(make_spec(tmp_path / "run"), **changes)
    assert re.fullmatch(message, error_of("train", spec, "--gpus", 0))


def test_every_shipped_preset_makes_specs_that_are_read(tmp_path, monkeypatch):
    from sdnet.experiments import plan
    from sdnet.experiments.settings import load_presets, load_site, read_yaml

    config = Path(__file__).parents[1] / "config"
    for split in ("train", "val"):
        (tmp_path / "images" / split).mkdir(parents=True)
    site = load_site(read_yaml(config / "config.yaml") | {"imagenet_root": str(tmp_path / "images")})
    spec = tmp_path / "spec.json"
    for name, preset in load_presets(config / "presets").items():
        for run in plan.runs(name, preset, site):
            spec.write_text(run.spec_json)
            assert read_spec(spec) == run.spec, run.name


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"3"])
def test_a_file_that_is_no_spec_is_refused_with_the_remedy(tmp_path, error_of, content):
    spec = tmp_path / "spec.json"
    spec.write_bytes(content)
    message = error_of("train", spec)
    assert message.startswith(f"{spec} ")
    assert message.endswith("; give a run's folder, such as results/quick/runs/digits/sdnet18/seed0")


@pytest.mark.parametrize("preset", ["", "quick/"])
def test_a_broken_spec_of_the_workflow_names_the_command_that_makes_it_anew(tmp_path, error_of, monkeypatch, preset):
    monkeypatch.chdir(tmp_path)
    folder = Path(f"results/{preset}runs/digits/sdnet18/seed0")
    folder.mkdir(parents=True)
    remedy = f"; it is made anew with: snakemake --force {folder}/spec.json"
    assert error_of("evaluate", folder).endswith(f"is not there{remedy}")
    (folder / "spec.json").write_text("{")
    assert error_of("train", folder).endswith(remedy)


@pytest.mark.parametrize("command", ["evaluate", "train", "benchmark-loop"])
def test_a_folder_without_a_spec_is_named(tmp_path, error_of, command):
    assert error_of(command, tmp_path).startswith(f"{tmp_path}/spec.json is not there; give a run's folder")


def test_a_run_is_trained_and_measured_by_its_spec_or_its_folder(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr("sdnet.commands.train.train", lambda spec, *others: given.append(spec))
    monkeypatch.setattr("sdnet.commands.benchmark.benchmark", lambda specs, *others: given.extend(specs))
    spec = make_spec(tmp_path / "run")
    for run in (spec, spec.parent):
        for arguments in (["train", run], ["benchmark", run, "--out", "benchmark.csv"]):
            assert CliRunner().invoke(cli, [*map(str, arguments)]).exit_code == 0
    assert given == [spec] * 4


def test_missing_data_are_named_with_the_command_that_fetches_them(tmp_path, error_of, monkeypatch):
    monkeypatch.setenv("SDNET_DATA_DIR", str(tmp_path / "nowhere"))
    spec = edited(make_spec(tmp_path / "run"), dataset__name="cifar10")
    message = error_of("train", spec, "--gpus", 0)
    assert f"there is no file {tmp_path}/nowhere/cifar10.npz" in message
    assert "snakemake data/cifar10.npz" in message
    assert f"there is no file {tmp_path}/other.npz" in error_of("train", spec, "--data", tmp_path / "other.npz")


def test_a_path_of_digits_is_refused_and_not_ignored(tmp_path, error_of):
    message = error_of("train", make_spec(tmp_path / "run"), "--data", tmp_path, "--gpus", 0)
    assert message == f"--data: given {tmp_path}; the digits come with scikit-learn, leave it out"


@pytest.mark.parametrize("name", ["imagenet", "folder"])
def test_a_folder_that_is_not_configured_is_asked_for(tmp_path, error_of, monkeypatch, name):
    monkeypatch.delenv(f"SDNET_{name.upper()}_ROOT", raising=False)
    spec = edited(make_spec(tmp_path / "run"), dataset__name=name)
    assert f"set {name}_root in config/config.yaml, or give --data" in error_of("train", spec, "--gpus", 0)


def damaged(content):
    return content[: len(content) // 2]


def foreign(content):
    return b"no weights at all"


def empty(content):
    return b""


def test_weights_of_a_training_of_another_length_are_refused(trained, tmp_path, error_of):
    folder = shutil.copytree(trained, tmp_path / "copy")
    done = len(results.read(folder / "history.csv", "history"))
    edited(folder / "spec.json", training__epochs=done + 1)
    assert error_of("evaluate", folder, "--gpus", "0") == (
        f"{folder} is of {done} epochs, and its spec.json asks for {done + 1}; train the run with: "
        f"python -m sdnet train {folder}/spec.json"
    )


@pytest.mark.parametrize("changed", [{"seed": 7}, {"training__learning_rate": 0.5}, {"model__options": {"lmbd": 0.5}}])
def test_weights_of_a_training_with_other_settings_are_refused(trained, tmp_path, error_of, changed):
    folder = shutil.copytree(trained, tmp_path / "copy")
    before = (folder / "spec.json").read_text()
    edited(folder / "spec.json", **changed)
    assert error_of("evaluate", folder, "--gpus", "0") == (
        f"{folder}/spec.json is not what its weights were trained by; put that back, or train the run with: "
        f"python -m sdnet train {folder}/spec.json"
    )
    (folder / "spec.json").write_text(before)
    evaluate(folder, None, 0)


def test_weights_are_loaded_without_a_change_of_the_random_numbers_that_follow(trained):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    load_model(trained, read_spec(trained / "spec.json"), 10, CPU)
    assert torch.equal(torch.rand(3), expected)


def test_a_trained_run_whose_checkpoints_were_removed_is_not_trained_again(trained, tmp_path, capsys):
    folder = shutil.copytree(trained, tmp_path / "copy")
    shutil.rmtree(folder / "checkpoints")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    train(folder / "spec.json", None, 0)
    assert "is trained already" in capsys.readouterr().err
    assert before == {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    edited(folder / "spec.json", training__learning_rate=0.02)
    train(folder / "spec.json", None, 0)
    assert (folder / "model.pt").read_bytes() != before["model.pt"]


@pytest.mark.parametrize("damage", [damaged, foreign, empty])
def test_damaged_weights_are_refused(tmp_path, trained, error_of, damage):
    folder = make_spec(tmp_path / "run").parent
    (folder / "model.pt").write_bytes(damage((trained / "model.pt").read_bytes()))
    message = error_of("evaluate", folder, "--gpus", 0)
    assert re.fullmatch(rf"{folder}/model\.pt does not hold the weights of this run \(.*\); remove it .*", message)
    assert not (folder / "accuracy.csv").exists()


def test_weights_of_another_network_are_refused(tmp_path, trained, error_of):
    spec = edited(make_spec(tmp_path / "run"), model__width=8)
    (spec.parent / "model.pt").write_bytes((trained / "model.pt").read_bytes())
    assert "does not hold the weights of this run (Error(s) in loading" in error_of("evaluate", spec.parent)


def test_weights_that_would_run_code_are_refused_unread(tmp_path, error_of):
    class Malicious:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    folder = make_spec(tmp_path / "run").parent
    torch.save({"weight": Malicious()}, folder / "model.pt")
    assert "does not hold the weights of this run" in error_of("evaluate", folder, "--gpus", 0)
    assert not (tmp_path / "executed").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("file", ["checkpoints/{digest}/epoch0001.pt", "history.csv", "environment.json", "model.pt"])
def test_a_full_disk_is_one_sentence_and_with_space_the_training_goes_on(tmp_path, trained, error_of, file):
    spec = make_spec(tmp_path / "run")
    (checkpoints,) = (trained / "checkpoints").iterdir()
    path = spec.parent / file.format(digest=checkpoints.name)  # of an equal experiment
    path.parent.mkdir(exist_ok=True, parents=True)
    path.with_name(f".{path.name}.{os.getpid()}").symlink_to("/dev/full")
    assert error_of("train", spec, "--gpus", 0) == (
        f"{path}: no space left on device: free some space there, then the same command goes on; "
        "what was there before is untouched"
    )
    assert not path.exists()
    saved = len(list(spec.parent.glob("checkpoints/*/epoch*.pt")))
    train(spec, None, 0)
    assert_same_run(spec.parent, trained)
    assert saved == {"epoch0001.pt": 0, "history.csv": 1}.get(path.name, 2)


@pytest.fixture
def read_only(tmp_path, trained):
    """The folder of a run that was trained and not yet tested, which nobody can write to."""
    folder = make_spec(tmp_path / "run").parent
    for name in ("model.pt", "history.csv"):
        shutil.copy(trained / name, folder)
    if os.geteuid() != 0:
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)
        return
    mount = ["mount", "--bind", "-o", "ro", str(folder), str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("root can write to any folder, and may not mount one here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("command", ["train {}/spec.json", "evaluate {}"])
def test_a_folder_that_cannot_be_written_to_is_named_and_left_as_it_is(read_only, error_of, command):
    before = {path: path.read_bytes() for path in read_only.iterdir()}
    message = error_of(*command.format(read_only).split(), "--gpus", 0)
    assert re.fullmatch(
        rf"{read_only}/\S+: (read-only file system: make it writable|permission denied: .*), .*", message
    )
    assert {path: path.read_bytes() for path in read_only.iterdir()} == before


def test_memory_that_is_too_small_is_named_with_what_to_lower(tmp_path, error_of):
    spec = edited(make_spec(tmp_path / "run"), model__name="resnet18", model__width=3_000_000)  # 300 TB of weights
    message = error_of("train", spec, "--gpus", 0)
    assert re.fullmatch(r"the memory is too small: lower the recipe's batch_size or the width \(.*\)", message)


def test_a_gpu_out_of_memory_is_named_with_what_to_lower(tmp_path, error_of, monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has none of it free.")

    monkeypatch.setattr("sdnet.training.step.F.cross_entropy", full)
    assert error_of("train", make_spec(tmp_path / "run"), "--gpus", 0) == (
        "the GPU's memory is too small: lower the recipe's batch_size or the width "
        "(CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has none of it free.)"
    )


def test_an_untrained_run_names_the_command_that_trains_it(tmp_path, error_of):
    folder = make_spec(tmp_path / "run").parent
    assert error_of("evaluate", folder).endswith(f"train the run with: python -m sdnet train {folder}/spec.json")


def test_a_network_with_shortcuts_is_not_inverted_and_one_without_csc_layers_neither(tmp_path, error_of):
    for name, message in {
        "sdnet18-all": "invert: network.layer1.0.shortcut leaves the chain of layers that Eq. 14 undoes",
        "resnet18": "resnet18 has no CSC layer, so there is no code to invert",
    }.items():
        spec = edited(make_spec(tmp_path / name), model__name=name)
        save_model(build_model(read_spec(spec), 10), spec.parent / "model.pt")
        assert message in error_of("invert", spec.parent, "--gpus", 0)
        assert not list(spec.parent.glob("inversion.*"))


def test_a_benchmark_without_its_reference_is_refused(tmp_path, error_of):
    spec = make_spec(tmp_path / "run")
    message = error_of("benchmark", spec, "--out", tmp_path / "benchmark.csv")
    assert message == "benchmark: sdnet18 given; resnet18 must be among them, the ratios need it"


def test_a_benchmark_of_networks_of_unlike_width_is_refused(tmp_path, error_of):
    reference = edited(make_spec(tmp_path / "one"), model__name="resnet18", system="resnet18", model__width=8)
    message = error_of("benchmark", reference, make_spec(tmp_path / "two"), "--out", tmp_path / "benchmark.csv")
    assert message == "benchmark: given runs of width 8, 4; networks are compared at one"


@pytest.fixture
def notebook(tmp_path):
    """Writes a notebook of a parameters cell and one more."""
    import nbformat  # here, since it takes seconds

    def notebook(parameters, code):
        cells = [nbformat.v4.new_code_cell(parameters), nbformat.v4.new_code_cell(code)]
        cells[0].metadata["tags"] = ["parameters"]
        metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        path = tmp_path / "figure9.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)
        return path

    return notebook


def test_a_notebook_with_other_parameters_is_refused(tmp_path, notebook, error_of):
    source = notebook("folder = 1\nwidth = 2", "")
    message = error_of("notebook", source, "--results", "results/quick", "--out", tmp_path / "out")
    assert message == f"{source}: unknown parameters results; it declares folder, width"
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_notebook_is_named(tmp_path, error_of):
    (tmp_path / "page.md").write_text("# A page")
    message = error_of("notebook", tmp_path / "page.md", "--results", "results/quick", "--out", tmp_path / "out")
    assert message.startswith(f"{tmp_path}/page.md is no notebook (")


def test_a_failing_notebook_is_kept_up_to_the_cell_that_failed(tmp_path, notebook, error_of, monkeypatch):
    source = notebook('results = "default"', "print(results)\n1 / 0")
    with tempfile.TemporaryDirectory() as sockets:  # a short path, as sockets need
        monkeypatch.setattr("tempfile.tempdir", sockets)
        message = error_of("notebook", source, "--results", "given", "--out", tmp_path / "out")
        assert not list(Path(sockets).glob("sdnet-*")), "nothing is left of them"
    executed = tmp_path / "out" / "figure9.ipynb"
    assert re.fullmatch(rf"{source} failed in cell \[\d\]: ZeroDivisionError: .*; executed copy: {executed}", message)
    assert "given" in executed.read_text(), "with the parameter it was given"
    assert not (tmp_path / "out" / "figure9.html").exists()


@pytest.mark.parametrize("command", [[], *([name] for name in cli.commands)])
def test_every_command_explains_itself(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sdnet", *command, "--help"])
    main()
    text = capsys.readouterr().out
    usage, sentence = text.split("\n\n")[:2]
    assert usage.startswith("Usage: ")
    assert len(sentence.split()) > 3, "what it does"


def test_every_option_of_every_command_explains_itself():
    options = [(name, one) for name, command in cli.commands.items() for one in command.params]
    assert [(name, one.opts) for name, one in options if isinstance(one, click.Option) and not one.help] == []


def test_the_command_line_offers_what_there_is():
    """Its own lists, which are there before torch is loaded."""
    from sdnet.commands.calibrate import READINGS
    from sdnet.data.corruptions import CALIBRATION_LEVELS, NOISES, SEVERITIES
    from sdnet.robustness.autoattack import STANDARD

    assert (*READINGS, "released") == command_line.READINGS
    assert tuple(command_line.AUTOATTACK.split(",")) == STANDARD
    choices = {"NoiseName": NOISES, "ScaleName": SEVERITIES, "LevelsName": CALIBRATION_LEVELS}
    for name, known in choices.items():
        assert tuple(getattr(command_line, name).choices) == tuple(known)


@pytest.mark.parametrize("command", ["calibrate", "attack-adaptive"])
def test_the_help_says_which_readings_and_attacks_there_are(command):
    text = re.sub(r"\s", "", CliRunner().invoke(cli, [command, "--help"]).output)  # its lines break at hyphens, too
    listed = {"calibrate": command_line.READINGS, "attack-adaptive": command_line.AUTOATTACK.split(",")}
    assert all(name in text for name in listed[command])


@pytest.mark.parametrize(
    "arguments",
    [
        ["trian"],
        ["train"],
        ["train", "nowhere/spec.json"],
        ["train", "--epochs", "3"],
        ["data", "mnist"],
        ["--verbose"],
    ],
)
def test_wrong_usage_ends_with_code_2_and_says_what_is_wrong(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sdnet", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert re.search(r"^Error: .+", capsys.readouterr().err, re.MULTILINE)


def test_an_error_is_one_line_of_a_real_process_and_with_debug_keeps_its_traceback(tmp_path, bare, monkeypatch):
    process = start(bare, "evaluate", tmp_path)
    _, message = process.communicate()
    assert process.returncode == 1
    assert re.fullmatch(r"error: .+spec\.json is not there; .+\n", message)
    monkeypatch.setattr(sys, "argv", ["sdnet", "--debug", "evaluate", str(tmp_path)])
    with pytest.raises(FileNotFoundError, match="is not there"):
        main()


def test_help_answers_without_loading_torch(bare):
    code = (
        "import sys; from sdnet.__main__ import main; sys.argv[1:] = ['--help']; main(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=bare, capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("False")


@pytest.mark.parametrize("given", ["squared", "paper,foo", "paper,", ""])
def test_readings_that_are_unknown_or_lack_the_paper_s_are_refused_before_any_work(tmp_path, error_of, given):
    options = ["--noise", "gaussian", "--lambdas", "0.1,0.5", "--variants", given]
    assert error_of("calibrate", tmp_path, *options) == (
        f"--variants: given {given!r}; must be paper, which the attacks take, and any of squared, parabola, released, "
        "with commas between"
    )


def test_readings_may_have_blanks_around_the_commas():
    assert readings("released , paper") == ["released", "paper"]


def test_images_are_looked_for_where_the_variable_or_else_the_config_file_says(tmp_path, bare):
    """In a process of its own, which has no pydantic."""
    spec = edited(make_spec(tmp_path / "run"), dataset__name="cifar10")
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text("data_dir: of-the-file\n")
    unset = {name: value for name, value in bare.items() if name != "SDNET_DATA_DIR"}
    command = [sys.executable, "-m", "sdnet", "train", str(spec), "--gpus", "0"]
    for folder, variable in {"of-the-file": {}, "of-the-variable": {"SDNET_DATA_DIR": "of-the-variable"}}.items():
        done = subprocess.run(command, env=unset | variable, cwd=tmp_path, capture_output=True, text=True)
        assert f"there is no file {folder}/cifar10.npz" in done.stderr


def test_a_root_is_that_of_the_config_file_unless_the_variable_says_that_there_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SDNET_IMAGENET_ROOT", raising=False)
    assert image_folder("imagenet_root") is None
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text("imagenet_root: /images\n")
    assert image_folder("imagenet_root") == Path("/images")
    monkeypatch.setenv("SDNET_IMAGENET_ROOT", "")
    assert image_folder("imagenet_root") is None


def test_a_data_set_is_downloaded_to_where_commands_look_for_it(tmp_path, monkeypatch):
    monkeypatch.setenv("SDNET_DATA_DIR", str(tmp_path))
    written = []
    monkeypatch.setattr("sdnet.commands.data.data", lambda *given: written.append(given[-1]))
    monkeypatch.setattr(sys, "argv", ["sdnet", "data", "cifar10", "--url", "file:///x", "--checksum", "md5:0"])
    main()
    assert written == [tmp_path / "cifar10.npz"]


def test_a_gpu_that_torch_cannot_use_is_said_to_be_left_for_the_cpu(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device((2,)) == CPU
    assert "cannot use GPU 2, which nvidia-smi lists; working on the CPU" in capsys.readouterr().err
    assert choose_device(()) == CPU
    assert capsys.readouterr().err == "", "where none is leased there is nothing to say"


def test_gpus_that_torch_cannot_use_are_left_for_one_process_on_the_cpu(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sdnet.commands.train.lease", lambda count: nullcontext(tuple(range(count))))
    train(make_spec(tmp_path / "run"), None, 2)
    assert "cannot use GPU 0, 1, which nvidia-smi lists; working on the CPU" in capsys.readouterr().err
    assert (tmp_path / "run/model.pt").exists()


def test_an_imagenet_with_all_its_images_and_classes_is_the_official_one():
    synsets = [f"n{number:08}" for number in range(1000)]
    train_, val = (SimpleNamespace(classes=synsets, samples=range(n)) for n in (1_281_167, 50_000))
    assert folder_source("imagenet", train_, "train") == "official"
    assert folder_source("imagenet", val, "val") == "official"
    assert folder_source("folder", val, "val") == "local folder of 1000 classes"
    part = SimpleNamespace(classes=synsets, samples=range(49_999))
    renamed = SimpleNamespace(classes=["cat", *synsets[1:]], samples=range(50_000))
    for other in (part, renamed, train_):
        assert folder_source("imagenet", other, "val") == "local folder of 1000 classes"


def test_a_seed_is_that_of_the_weights_and_of_the_order_and_not_of_the_choice_of_images(tmp_path):
    spec = read_spec(make_spec(tmp_path / "run"))
    one, other = (build_model(spec | {"seed": seed}, 10).network.fc.weight for seed in (0, 1))
    assert not torch.equal(one, other)
    one, other = (open_data(spec | {"seed": seed}, None, CPU) for seed in (0, 1))
    assert torch.equal(one.train.pixels, other.train.pixels)
    assert torch.equal(one.test.pixels, other.test.pixels)
    (_, first), (_, second) = (next(iter(data.train.epoch(0))) for data in (one, other))
    assert not torch.equal(first, second)


def test_only_a_preset_s_results_folder_is_judged_and_reported(tmp_path, error_of):
    for command in ("claims", "report"):
        assert error_of(command, tmp_path).startswith(
            f"{tmp_path} is no preset's results folder; choose one of results"
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["attack-adaptive", "--attack-lambdas", "0.1;0.5"],
            "'--attack-lambdas': given '0.1;0.5'; must be numbers",
        ),
        (["benchmark", "--out", "."], "'--out': File '.' is a directory."),
        (["attack", "--linf", "-8"], "'--linf': -8.0 is not in the range 0<x<=255"),
        (["attack", "--noise", "fog"], "'--noise': 'fog' is not one of 'gaussian', 'shot'"),
        (["evaluate", "--gpus", "-1"], "'--gpus': -1 is not in the range x>=0"),
    ],
)
def test_a_wrong_option_is_named_with_what_it_may_be(tmp_path, arguments, message):
    command, *options = arguments
    done = CliRunner().invoke(cli, [command, str(tmp_path), *options])
    assert (done.exit_code, message in done.output) == (2, True), done.output


def test_a_folder_without_runs_is_not_tracked(tmp_path, error_of):
    assert (
        error_of("track", tmp_path) == f"{tmp_path} holds no trained run; give a results folder, such as results/quick"
    )
