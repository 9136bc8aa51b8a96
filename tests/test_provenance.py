"""With what a run was trained: environment.json tells of the processes that trained its epochs, and of no other."""

import json

import pytest
import torch
from small_run import make_spec

from sdnet.commands.train import train
from sdnet.experiments import environment
from sdnet.training.checkpoint import latest_checkpoint

pytestmark = pytest.mark.usefixtures("untracked")

EPOCHS = 4


@pytest.fixture
def spec(tmp_path):
    return make_spec(tmp_path / "run", epochs=EPOCHS)


@pytest.fixture
def train_as(spec, monkeypatch):
    """Train the run in a machine's environment, until after an epoch it is killed; what its environment.json says."""

    def train_as(machine, killed_after=None, time="2030-01-01"):
        def report(history, epochs):
            if len(history) == killed_after:
                raise KeyboardInterrupt

        about = environment.describe(machine) | {"commit": f"commit of {machine}", "time": time}
        with monkeypatch.context() as patch:
            patch.setattr(environment, "describe", lambda device: about)
            patch.setattr("sdnet.commands.train._report", report)
            try:
                train(spec, None, 0)
            except KeyboardInterrupt:
                return None
        return json.loads((spec.parent / "environment.json").read_text())

    return train_as


def epochs_of(about):
    """Of each environment in the file, the last one first."""
    return [(one["device"], one.get("epochs")) for one in (about, *about.get("earlier", []))]


def test_the_file_names_who_trained_the_last_epoch_and_who_trained_earlier_ones(train_as, spec):
    train_as("A", killed_after=2)
    about = train_as("B")
    assert epochs_of(about) == [("B", None), ("A", [1, 2])]
    assert environment.tags(about) == {"commit": "commit of B", "device": "B", "precision": "float32"}
    (earlier,) = about["earlier"]
    assert earlier["commit"] == "commit of A"
    assert earlier.keys() - {"epochs"} == about.keys() - {"earlier", "experiment"}


def test_a_process_that_only_writes_the_weights_again_claims_nothing(train_as, spec):
    train_as("A", killed_after=2)
    trained = train_as("B")
    weights = torch.load(spec.parent / "model.pt", weights_only=True)
    for name in ("model.pt", "environment.json"):  # as Snakemake does before it starts a job again
        (spec.parent / name).unlink()
    assert train_as("C", time="2031-01-01") == trained
    again = torch.load(spec.parent / "model.pt", weights_only=True)
    assert all(torch.equal(value, weights[name]) for name, value in again.items())


def test_processes_that_differ_in_time_alone_are_one_environment(train_as):
    for day, (machine, killed_after) in enumerate([("A", 1), ("A", 2), ("B", 3)], 1):
        train_as(machine, killed_after, time=f"2030-01-0{day}")
    about = train_as("B", time="2030-01-04")
    assert epochs_of(about) == [("B", None), ("A", [1, 2])]
    assert about["time"] == "2030-01-04"


def test_a_run_trained_in_one_go_has_one_environment(train_as):
    assert "earlier" not in train_as("A")


def test_each_checkpoint_holds_the_spec_and_the_environment(train_as, spec):
    train_as("A", killed_after=1)
    (folder,) = (spec.parent / "checkpoints").iterdir()
    ((first, provenance),) = latest_checkpoint(folder)["trained_by"]
    assert first == 1
    assert provenance["spec"] == json.loads(spec.read_text())
    assert provenance["environment"].keys() >= {"commit", "device", "packages", "python", "precision", "data_source"}


def test_a_finished_run_is_left_as_it_is_and_one_whose_weights_are_another_s_is_not(train_as, spec, capsys):
    """Or everything made from it would be out of date, though nothing was trained."""
    train_as("A")
    files = {name: spec.with_name(name) for name in ("model.pt", "history.csv", "environment.json")}
    before = {name: (path.stat().st_mtime_ns, path.read_bytes()) for name, path in files.items()}
    train_as("B")
    assert "is trained already" in capsys.readouterr().err
    assert before == {name: (path.stat().st_mtime_ns, path.read_bytes()) for name, path in files.items()}
    weights = torch.load(files["model.pt"])
    torch.save({name: value + 1 for name, value in weights.items()}, files["model.pt"])
    train_as("B")
    assert "is trained already" not in capsys.readouterr().err
    again = torch.load(files["model.pt"])
    assert all(torch.equal(again[name], weights[name]) for name in weights)


@pytest.mark.parametrize("content", ["", "[]"])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "environment.json").write_text(content)
    with pytest.raises(
        ValueError, match=rf"^{tmp_path}/environment\.json is damaged \(.*\); put it back, or remove it$"
    ):
        environment.trained_experiment(tmp_path)
