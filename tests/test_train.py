"""Runs that are trained, killed and gone on with, and what keeps a training from its end."""

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from small_run import assert_same_run, edited, history, make_spec, read_until, start

from sdnet.commands.train import train
from sdnet.runs.images import open_data
from sdnet.runs.network import build_model
from sdnet.runs.spec import read_spec

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("untracked")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_killed_training_started_again_ends_in_the_same_weights(tmp_path, bare, precision, capsys):
    undisturbed = make_spec(tmp_path / "undisturbed", precision=precision, epochs=8)
    train(undisturbed, None, 0)
    spec = make_spec(tmp_path / "killed", precision=precision, epochs=8)
    process = start(bare, "train", spec, "--gpus", 0)
    messages = "".join(read_until(process, "epoch 2/8"))
    assert "mlflow is not installed" in messages, "the packages that training can do without were missing"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (spec.parent / "model.pt").exists(), "what is not trained to the end does not look so"
    capsys.readouterr()
    train(spec, None, 0)
    epochs = [int(epoch) for epoch in re.findall(r"epoch (\d)/8", capsys.readouterr().err)]
    assert 2 <= epochs[0] < 8, "it goes on where it was"
    assert epochs == list(range(epochs[0], 9))
    assert_same_run(spec.parent, undisturbed.parent)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])  # Ctrl-C; Slurm, at a job's time limit
def test_an_interrupted_training_says_how_to_go_on(tmp_path, bare, how):
    process = start(bare, "train", make_spec(tmp_path / "run", epochs=20), "--gpus", 0)
    read_until(process, "epoch  1/20")
    process.send_signal(how)
    _, messages = process.communicate()
    assert process.returncode == 1
    assert messages.rstrip().endswith("interrupted; the same command goes on from what is kept")
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
    names = {path.name for path in trained.iterdir()} - {".lock", ".begun"}
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


def test_what_was_measured_of_former_weights_is_set_aside_and_of_the_same_ones_kept(tmp_path, capsys):
    folder = tmp_path / "run"
    train(make_spec(folder, epochs=1), None, 0)
    for name in ("accuracy.csv", "sweep-gaussian.csv", "sweep-gaussian.npz"):
        (folder / name).write_text("of one epoch")
    (folder / "model.pt").unlink()
    train(folder / "spec.json", None, 0)
    assert (folder / "accuracy.csv").exists(), "the weights are those of the last checkpoint again"
    for name in ("model.pt", "history.csv", "environment.json"):  # as Snakemake does before it trains anew
        (folder / name).unlink()
    train(edited(folder / "spec.json", training__epochs=2), None, 0)
    (former,) = folder.glob("former-*")
    assert f"what was measured of the former weights is in {former} now" in capsys.readouterr().err
    assert {path.name for path in former.iterdir()} == {"accuracy.csv", "sweep-gaussian.csv", "sweep-gaussian.npz"}
    assert [path.name for path in folder.glob("*.csv")] == ["history.csv"]
    (folder / "accuracy.csv").write_text("of two epochs")
    train(edited(folder / "spec.json", training__epochs=1), None, 0)
    assert not (folder / "accuracy.csv").exists(), "the weights are those of the first checkpoint again"
    assert len(history(folder)) == 1


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


def test_a_seed_is_that_of_the_weights_and_of_the_order_and_not_of_the_choice_of_images(tmp_path):
    spec = read_spec(make_spec(tmp_path / "run"))
    one, other = (build_model(spec | {"seed": seed}, 10).network.fc.weight for seed in (0, 1))
    assert not torch.equal(one, other)
    one, other = (open_data(spec | {"seed": seed}, None, CPU) for seed in (0, 1))
    assert torch.equal(one.train.pixels, other.train.pixels)
    assert torch.equal(one.test.pixels, other.test.pixels)
    (_, first), (_, second) = (next(iter(data.train.epoch(0))) for data in (one, other))
    assert not torch.equal(first, second)
