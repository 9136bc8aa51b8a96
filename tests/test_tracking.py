"""MLflow keeps a record of the runs, and never keeps a run from being made."""

import errno
import http.server
import json
import os
import shutil
import socket
import sqlite3
import threading
from pathlib import Path

import pytest
import small_run
from mlflow import MlflowClient
from small_project import FORKS

from sdnet.commands.evaluate import evaluate
from sdnet.commands.track import track
from sdnet.commands.train import train
from sdnet.experiments import results
from sdnet.experiments.columns import COLUMNS
from sdnet.experiments.places import results_of as results_folder
from sdnet.experiments.tracking import Tracker, address

PROJECT = Path(__file__).parents[1]
SPEC = small_run.SPEC | {
    "seed": 3,
    "model": small_run.SPEC["model"] | {"options": {"lmbd": 0.2}},
    "training": small_run.SPEC["training"] | {"epochs": 2},
}


PRESET = """\
description: has seeds 0 to 7
width: 4
seeds: [0, 1, 2, 3, 4, 5, 6, 7]
datasets: {digits: {}}
systems: {resnet18: {model: resnet18}, sdnet18: {model: sdnet18}}
recipes: {default: {}}
"""


def history(epochs):
    return [
        {
            "epoch": epoch,
            "learning_rate": 0.1 / epoch,
            "train_loss": 2.0 / epoch,
            "train_correct": 16 * epoch,
            "train_total": 64,
            "test_loss": 3.0 / epoch,
            "test_correct": 10 * epoch,
            "test_total": 40,
            "train_seconds": 0.5,
            "peak_memory_bytes": None,
        }
        for epoch in range(1, epochs + 1)
    ]


def record(place, spec, address, errors):
    """Record a run of ten epochs, in a process of its own; what it says goes to a file."""
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
    os.chdir(place)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.environ.update({"MLFLOW_TRACKING_URI": address} if address else {})
    tracker = Tracker(new_folder(Path(), spec), {})
    for epochs in range(1, 11):
        tracker.log_epochs(history(epochs))
    tracker.close()


def at_once(count, place, preset, address):
    """What that many processes say, which record runs in one folder at the same time."""
    errors = [place / f"{seed}.log" for seed in range(count)]
    specs = [SPEC | {"preset": preset, "seed": seed} for seed in range(count)]
    processes = [
        FORKS.Process(target=record, args=(place, spec, address, file))
        for spec, file in zip(specs, errors, strict=True)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    said = [file.read_text() for file in errors]
    assert [process.exitcode for process in processes] == [0] * count, said
    return said


@pytest.fixture(scope="module")
def cold_start(tmp_path_factory):
    """Where four processes start at once without a database, and what each wrote to stderr."""
    place = tmp_path_factory.mktemp("mlflow")
    return place, at_once(4, place, "cold", address=None)


@pytest.fixture(scope="module")
def database(cold_start):
    """The address of a real SQLite database; making one takes seconds."""
    place, _ = cold_start
    return f"sqlite:///{place}/mlflow.db"


@pytest.fixture
def client(database, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    monkeypatch.chdir(tmp_path)
    return MlflowClient(database)


@pytest.fixture
def folder(tmp_path):
    return new_folder(tmp_path, SPEC)


def new_folder(project, spec):
    """A run's folder, where the workflow puts it."""
    name = f"{spec['dataset']['name']}/{spec['system']}/seed{spec['seed']}"
    folder = project / results_folder(spec["preset"]) / "runs" / name
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text(json.dumps(spec))
    preset = project / f"config/presets/{spec['preset']}.yaml"
    preset.parent.mkdir(parents=True, exist_ok=True)
    preset.write_text(PRESET)
    return folder


def test_a_command_by_hand_records_where_the_settings_say(client, database, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text(f"mlflow_uri: {database}\n")
    tracker = Tracker(new_folder(tmp_path, SPEC | {"preset": "configured"}), {})
    tracker.log_results({"accuracy": 0.5}, [])
    tracker.close()
    assert client.get_experiment_by_name("sdnet configured")
    assert not list(tmp_path.glob("*.db"))


def test_an_experiment_that_was_deleted_on_the_page_is_brought_back(client, tmp_path, capsys):
    folder = new_folder(tmp_path, SPEC | {"preset": "deleted"})
    Tracker(folder, {}).close()
    client.delete_experiment(client.get_experiment_by_name("sdnet deleted").experiment_id)
    tracker = Tracker(new_folder(tmp_path, SPEC | {"preset": "deleted", "seed": 4}), {})
    assert tracker.active
    tracker.close()
    assert client.get_experiment_by_name("sdnet deleted").lifecycle_stage == "active"
    assert capsys.readouterr().err == ""


def run_id(folder):
    return json.loads((folder / "mlflow.json").read_text())["run_id"]


def steps(client, folder, metric="test_accuracy"):
    return [(point.step, point.value) for point in client.get_metric_history(run_id(folder), metric)]


def tree(client, experiment):
    """The runs of an experiment that are shown first, and those nested in them."""
    runs = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    nested = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    return [run for run in runs if run not in nested], nested


def test_four_cold_starts_in_parallel_make_one_database_and_four_runs_in_one(cold_start, client):
    """Without a lock all but one fail: "table experiments already exists"."""
    _, errors = cold_start
    assert not [error for error in errors if "warning" in error]
    (parent, *none), seeds = tree(client, "sdnet cold")
    assert not none
    assert parent.info.run_name == "digits/sdnet18"
    assert sorted(run.data.tags["seed"] for run in seeds) == ["0", "1", "2", "3"]
    assert {run.data.tags["mlflow.parentRunId"] for run in seeds} == {parent.info.run_id}
    assert {run.info.status for run in (parent, *seeds)} == {"FINISHED"}


def test_without_an_address_the_record_is_in_the_working_directory(cold_start):
    place, _ = cold_start
    assert (place / "mlflow.db").stat().st_size > 0


def test_parameters_metrics_tags_and_files_are_recorded(client, folder, capsys):
    tracker = Tracker(folder, {"commit": "abc", "device": "CPU"})
    tracker.log_epochs(history(1))
    tracker.log_epochs(history(2))
    tracker.log_results({"final_test_accuracy": 0.5}, [folder / "spec.json"])
    tracker.close()
    run = client.get_run(run_id(folder))
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "digits/sdnet18/seed3"
    assert client.get_experiment(run.info.experiment_id).name == "sdnet tiny"
    parameters = {"training.learning_rate": "0.05", "model.options.lmbd": "0.2", "dataset.name": "digits", "seed": "3"}
    assert run.data.params.items() >= parameters.items()
    tags = {"commit": "abc", "device": "CPU", "dataset": "digits", "system": "sdnet18", "seed": "3", "preset": "tiny"}
    assert run.data.tags.items() >= tags.items()
    assert steps(client, folder) == [(1, 0.25), (2, 0.5)]
    assert steps(client, folder, "train_loss") == [(1, 2.0), (2, 1.0)]
    assert steps(client, folder, "train_images_per_second") == [(1, 128.0), (2, 128.0)]
    assert "peak_memory_bytes" not in run.data.metrics, "not measured on a CPU"
    assert run.data.metrics["final_test_accuracy"] == 0.5
    assert [file.path for file in client.list_artifacts(run_id(folder))] == ["spec.json"]
    assert capsys.readouterr().err == ""


def test_a_resumed_training_goes_on_in_its_run_without_double_steps(client, folder):
    before = Tracker(folder, {})
    before.log_epochs(history(2))  # and then it is killed
    first = run_id(folder)
    after = Tracker(folder, {})
    for epochs in (2, 3, 4):  # the whole history of the checkpoint comes first
        after.log_epochs(history(epochs))
    after.close()
    assert run_id(folder) == first
    assert [step for step, _ in steps(client, folder)] == [1, 2, 3, 4]
    assert [step for step, _ in steps(client, folder, "train_loss")] == [1, 2, 3, 4]


def test_a_resumed_training_that_lost_an_epoch_records_it_once(client, folder):
    """Its last checkpoint was damaged, and the one before it took its place."""
    Tracker(folder, {}).log_epochs(history(3))
    after = Tracker(folder, {})
    for epochs in (2, 3, 4):
        after.log_epochs(history(epochs))
    assert [step for step, _ in steps(client, folder)] == [1, 2, 3, 4]


def test_a_training_that_begins_again_is_another_run_if_the_earlier_one_was_recorded(client, folder):
    Tracker(folder, {}, from_start=True)  # and then it is killed
    first = run_id(folder)
    Tracker(folder, {}, from_start=True).log_epochs(history(2))
    assert run_id(folder) == first
    Tracker(folder, {}, from_start=True).log_epochs(history(1))
    assert run_id(folder) != first
    assert [step for step, _ in steps(client, folder)] == [1]


def test_epochs_that_mlflow_missed_are_made_up_for(client, folder):
    Tracker(folder, {}).log_epochs(history(1))
    Tracker(folder, {}).log_epochs(history(4))  # 2 and 3 fell to a server that was down
    assert [step for step, _ in steps(client, folder)] == [1, 2, 3, 4]


def test_results_that_come_later_are_put_to_the_same_run(client, folder):
    tracker = Tracker(folder, {})
    tracker.log_epochs(history(2))
    tracker.close()
    evaluation = Tracker(folder, {})
    evaluation.log_results({"accuracy": 0.75}, [])
    evaluation.close()
    run = client.get_run(run_id(folder))
    assert (run.data.metrics["accuracy"], run.data.metrics["test_accuracy"]) == (0.75, 0.5)
    assert run.info.status == "FINISHED"


def test_of_a_run_that_was_killed_and_is_not_gone_on_with_nobody_thinks_that_it_runs(client, folder, tmp_path):
    tracker = Tracker(folder, {})
    tracker.log_epochs(history(1))
    killed = run_id(folder)
    shutil.copytree(folder, tmp_path / "copy")
    Tracker(tmp_path / "copy", {}, from_start=True).close()
    assert client.get_run(killed).info.status == "RUNNING", "the copy is another run"
    Tracker(folder, {}, from_start=True)
    again = run_id(folder)
    assert client.get_run(killed).info.status == "KILLED"
    small_run.edited(folder / "spec.json", training__epochs=3)
    Tracker(folder, {}).close()
    assert [client.get_run(run).info.status for run in (again, run_id(folder))] == ["KILLED", "FINISHED"]


def test_two_addresses_in_turn_have_one_run_each(client, database, tmp_path, monkeypatch):
    other = f"sqlite:///{tmp_path}/other.db"
    shutil.copy(database.removeprefix("sqlite:///"), tmp_path / "other.db")  # making one takes seconds
    folder = new_folder(tmp_path, SPEC | {"preset": "in-turn"})
    for epochs, uri in enumerate((database, other, database, other), start=1):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        Tracker(folder, {}).log_epochs(history(epochs))
    for at, count in ((client, 3), (MlflowClient(other), 4)):
        _, (run,) = tree(at, "sdnet in-turn")
        curve = at.get_metric_history(run.info.run_id, "test_accuracy")
        assert [point.step for point in curve] == list(range(1, count + 1))


def test_other_settings_are_another_run(client, folder):
    Tracker(folder, {}).close()
    first = run_id(folder)
    (folder / "spec.json").write_text(json.dumps(SPEC | {"training": SPEC["training"] | {"learning_rate": 0.1}}))
    Tracker(folder, {}).close()
    assert run_id(folder) != first
    assert client.get_run(run_id(folder)).data.params["training.learning_rate"] == "0.1"


@pytest.mark.parametrize(
    "place",
    ["trial/sdnet18/seed3", "results/tiny/runs/digits/mine/seed3", "other/results/tiny/runs/digits/sdnet18/seed3"],
)
def test_a_copy_of_a_run_is_tracked_apart_and_not_in_the_run_that_was_copied(client, folder, tmp_path, place):
    Tracker(folder, {}).log_epochs(history(2))
    copy, again = tmp_path / place, tmp_path / "again/sdnet18/seed3"
    for original, made in ((folder, copy), (copy, again)):
        shutil.copytree(original, made)
        for epochs in (3, 4):  # its training goes on
            Tracker(made, {}).log_epochs(history(epochs))
    assert len({run_id(folder), run_id(copy), run_id(again)}) == 3
    recorded = [[step for step, _ in steps(client, run)] for run in (folder, copy, again)]
    assert recorded == [[1, 2], [1, 2, 3, 4], [1, 2, 3, 4]]
    run = client.get_run(run_id(copy))
    assert client.get_experiment(run.info.experiment_id).name == "sdnet by hand"
    assert run.info.run_name == "/".join(copy.parts[-3:])
    assert run.data.tags["folder"] == str(copy)


def test_a_run_in_the_results_is_known_by_its_place_however_it_is_called(client, folder, tmp_path, monkeypatch):
    Tracker(folder, {}).close()
    first = run_id(folder)
    (tmp_path / "link").symlink_to(folder)
    for name in (folder.relative_to(tmp_path), tmp_path / "link"):
        Tracker(name, {}).close()
        assert run_id(folder) == first
    monkeypatch.chdir(folder)
    Tracker(Path(), {}).close()
    assert run_id(folder) == first


def test_below_the_project_the_record_is_that_of_the_project(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "config" / "presets").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert address() == "sqlite:///mlflow.db"
    (tmp_path / "results").mkdir()
    monkeypatch.chdir("results")
    assert address() == "sqlite:///../mlflow.db"
    for typed in ("sqlite:////srv/mlflow.db", "http://127.0.0.1:5000"):
        (tmp_path / "config" / "config.yaml").write_text(f"mlflow_uri: {typed}\n")
        assert address() == typed
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///here.db")  # MLflow's own, as MLflow takes it
    assert address() == "sqlite:///here.db"


def test_a_run_that_the_database_does_not_know_is_made_anew(client, folder, capsys):
    (folder / "mlflow.json").write_text(json.dumps({"run_id": "0" * 32, "spec": SPEC}))
    tracker = Tracker(folder, {})
    tracker.log_epochs(history(1))
    assert run_id(folder) != "0" * 32
    assert len(steps(client, folder)) == 1
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("content", ["", "[]", "{}"])
def test_where_it_is_not_known_which_run_it_is_one_is_made(client, folder, content, capsys):
    (folder / "mlflow.json").write_text(content)
    Tracker(folder, {}).log_epochs(history(1))
    assert len(steps(client, folder)) == 1
    assert capsys.readouterr().err == ""


def test_a_history_longer_than_a_batch_of_mlflow_is_logged_whole(client, folder):
    """MLflow takes no more than 1000 metrics at once."""
    Tracker(folder, {}).log_epochs(history(220))
    assert [step for step, _ in steps(client, folder, "test_loss")] == list(range(1, 221))


def test_an_epoch_is_in_one_batch_so_that_none_is_recorded_in_part(client, folder, monkeypatch):
    """What is known of an epoch is not logged again, if a later batch fails."""
    tracker = Tracker(folder, {})
    log, batches = tracker._client.log_batch, []

    def fail_the_second(run, metrics):
        batches.append(metrics)
        if len(batches) == 2:
            raise ConnectionError("down")
        log(run, metrics=metrics)

    monkeypatch.setattr(tracker._client, "log_batch", fail_the_second)
    tracker.log_epochs(history(220))
    assert len(batches) == 2
    Tracker(folder, {}).log_epochs(history(220))
    for name in ("train_loss", "test_accuracy", "test_loss"):
        assert [step for step, _ in steps(client, folder, name)] == list(range(1, 221))


def test_training_is_tracked_to_its_end(client, folder, capsys):
    train(folder / "spec.json", None, 0)
    run = client.get_run(run_id(folder))
    assert run.info.status == "FINISHED"
    assert [step for step, _ in steps(client, folder)] == [1, 2]
    assert run.data.metrics["final_test_accuracy"] == steps(client, folder)[-1][1]
    files = {file.path for file in client.list_artifacts(run_id(folder))}
    assert files == {"spec.json", "history.csv", "environment.json"}
    assert "device" in run.data.tags
    assert "warning" not in capsys.readouterr().err


def test_a_training_that_fails_is_marked_so(client, tmp_path):
    folder = new_folder(tmp_path, SPEC | {"training": SPEC["training"] | {"learning_rate": 1e30}})
    with pytest.raises(ArithmeticError):
        train(folder / "spec.json", None, 0)
    assert client.get_run(run_id(folder)).info.status == "FAILED"


def test_a_training_whose_weights_cannot_be_written_is_marked_so(client, folder, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sdnet.commands.train.save_model", full)
    with pytest.raises(OSError, match="No space left"):
        train(folder / "spec.json", None, 0)
    assert client.get_run(run_id(folder)).info.status == "FAILED"


def test_of_several_processes_the_one_that_started_them_says_that_the_first_was_killed(client, folder, monkeypatch):
    def killed(*arguments):
        Tracker(folder, {})
        raise ChildProcessError("process 1 of 2 was killed")

    monkeypatch.setattr("sdnet.commands.train.distributed.launch", killed)
    with pytest.raises(ChildProcessError):
        train(folder / "spec.json", None, 0, processes=2)
    assert client.get_run(run_id(folder)).info.status == "FAILED"


def test_a_failure_in_the_middle_costs_one_warning(client, folder, capsys, monkeypatch):
    tracker = Tracker(folder, {})
    tracker.log_epochs(history(1))

    def locked(*args, **kwargs):
        raise RuntimeError("database is\nlocked")

    monkeypatch.setattr(tracker._client, "log_batch", locked)
    for epochs in (2, 3):
        tracker.log_epochs(history(epochs))
    tracker.log_results({"accuracy": 1.0}, [])
    tracker.close()
    warning = "warning: MLflow tracking is off for this job: RuntimeError: database is locked\n"
    assert capsys.readouterr().err == warning
    assert [step for step, _ in steps(client, folder)] == [1]


class Broken(http.server.BaseHTTPRequestHandler):
    """Answers everything with an internal error."""

    def answer(self):
        self.server.requests += 1
        self.send_error(500)

    do_GET = do_POST = do_PUT = answer

    def log_message(self, *args):
        pass


@pytest.fixture
def broken_server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Broken)
    server.requests = 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def assert_trained_with_one_warning(folder, errors):
    assert (folder / "model.pt").exists()
    assert (folder / "history.csv").read_text().count("\n") == 3, "two epochs and the header"
    assert errors.count("warning") == 1
    assert errors.startswith("warning: MLflow tracking is off for this job: ")
    assert not (folder / "mlflow.json").exists()


def test_training_does_without_a_server_that_is_down(folder, monkeypatch, capsys, closed_port):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port}")
    train(folder / "spec.json", None, 0)
    assert_trained_with_one_warning(folder, capsys.readouterr().err)


def test_one_command_makes_up_for_what_mlflow_missed(client, database, tmp_path, monkeypatch, closed_port):
    folder = new_folder(tmp_path, SPEC)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port}")
    train(folder / "spec.json", None, 0)
    evaluate(folder, None, 0)
    with pytest.raises(OSError, match=f"^MLflow did not take {folder}: once that is mended, the same command goes"):
        track(tmp_path / "results/tiny")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    for _ in range(2):  # twice is once
        track(tmp_path / "results/tiny")
    run = client.get_run(run_id(folder))
    accuracy = results.read(folder / "accuracy.csv", "accuracy").set_index("checkpoint").loc["last"]
    assert run.data.metrics["accuracy"] == accuracy.correct / accuracy.total
    assert run.info.status == "FINISHED"
    assert [step for step, _ in steps(client, folder)] == [1, 2]
    assert [step for step, _ in steps(client, folder, "train_loss")] == [1, 2]
    files = {file.path for file in client.list_artifacts(run_id(folder))}
    assert files == {path.name for path in folder.iterdir() if path.suffix in (".csv", ".json")} - {"mlflow.json"}
    assert len(files) == 6


def test_a_run_without_its_spec_does_not_keep_others_from_being_tracked(client, tmp_path, capsys):
    broken, whole = (trained(tmp_path, SPEC | {"seed": seed}, 0.2, 20) for seed in (0, 1))
    (broken / "spec.json").unlink()
    track(tmp_path / "results/tiny")
    assert f"not tracked: {broken}, which has no spec.json" in capsys.readouterr().out
    assert client.get_run(run_id(whole)).data.metrics["accuracy"] == 0.2


def test_tables_and_figures_and_mean_accuracies_are_put_to_runs_of_their_own(client, tmp_path):
    """With the real commands, and as the workflow does it: after all that it shows is there."""
    for seed in (3, 4):
        folder = new_folder(tmp_path, SPEC | {"preset": "shown", "seed": seed})
        train(folder / "spec.json", None, 0)
        evaluate(folder, None, 0)
    for name in ("table1.csv", "table1.md", "table1.tex", "figure5.pdf", "figure5.png", ".figure5.png.4711"):
        (tmp_path / "results/shown" / name).write_bytes(b"content")
    for _ in range(2):  # twice is once
        track(tmp_path / "results/shown")
    shown, seeds = tree(client, "sdnet shown")
    parents = {run.info.run_name: run for run in shown}
    assert parents.keys() == {"digits/sdnet18", "tables and figures"}
    assert {run.info.run_name for run in seeds} == {"digits/sdnet18/seed3", "digits/sdnet18/seed4"}
    assert {run.data.tags["mlflow.parentRunId"] for run in seeds} == {parents["digits/sdnet18"].info.run_id}
    accuracies = [run.data.metrics["accuracy"] for run in seeds]
    of_both = parents["digits/sdnet18"].data.metrics
    assert of_both["accuracy"] == pytest.approx(sum(accuracies) / 2)
    assert of_both["accuracy_std"] == pytest.approx(abs(accuracies[0] - accuracies[1]) / 2**0.5)
    files = {file.path for file in client.list_artifacts(parents["tables and figures"].info.run_id)}
    assert files == {"table1.csv", "table1.md", "table1.tex", "figure5.pdf", "figure5.png"}


def test_a_run_that_its_preset_no_longer_has_is_tracked_and_in_no_mean(client, tmp_path):
    trained(tmp_path, SPEC | {"preset": "fewer"}, 0.1, 90)
    trained(tmp_path, SPEC | {"preset": "fewer", "seed": 8}, 0.1, 10)
    trained(tmp_path, SPEC | {"preset": "fewer", "system": "scn"}, 0.1, 10)
    track(tmp_path / "results/fewer")
    shown, seeds = tree(client, "sdnet fewer")
    means = {run.info.run_name: run.data.metrics.get("accuracy") for run in shown}
    assert means == {"digits/sdnet18": 0.9, "digits/scn": None, "tables and figures": None}
    assert len(seeds) == 3


def test_a_results_folder_on_another_disk_has_its_means(client, tmp_path):
    trained(tmp_path, SPEC | {"preset": "linked"}, 0.1, 90)
    (tmp_path / "results").rename(tmp_path / "other disk")
    (tmp_path / "results").symlink_to("other disk")
    track(Path("results/linked"))
    shown, _ = tree(client, "sdnet linked")
    assert {run.data.metrics.get("accuracy") for run in shown} == {0.9, None}


def test_tables_that_mlflow_did_not_take_are_an_error(client, tmp_path, monkeypatch, capsys):
    trained(tmp_path, SPEC | {"preset": "partly"}, 0.1, 90)
    (tmp_path / "results/partly/table1.csv").write_text("content")
    monkeypatch.setattr("sdnet.experiments.tracking.statistics.mean", lambda values: 1 / 0)
    with pytest.raises(OSError, match=r"^MLflow did not take the tables and figures of partly: once"):
        track(tmp_path / "results/partly")
    assert "ZeroDivisionError" in capsys.readouterr().err


def measured(folder, kind, noise, rows):
    """Write a result file whose other columns are empty."""
    suffix = f"-{noise}" if noise else ""
    results.write(folder / f"{kind}{suffix}.csv", kind, [dict.fromkeys(COLUMNS[kind]) | row for row in rows])


def trained(project, spec, lmbd, correct):
    """The folder of a run that was tested clean, under a noise and under attack: so many of a hundred images."""
    folder = new_folder(project, spec)
    (folder / "environment.json").write_text("{}")
    results.write(folder / "history.csv", "history", history(1))
    counts, other = {"lambda0": lmbd, "total": 100}, {"lambda": 0.9, "correct": 99}
    measured(folder, "accuracy", "", [{"checkpoint": "last", "dataset": "digits", "correct": correct, "total": 100}])
    as_trained = [{"severity": severity, "lambda": lmbd, "correct": correct - severity} for severity in range(1, 6)]
    measured(folder, "sweep", "shot", [counts | row for row in (*as_trained, *([other] if lmbd else []))])
    attacked = {"norm": "l2", "choice": "given", "total": 50}
    for kind, step, left in (("attack-paper", "a", 10), ("attack-adaptive", "worst", 5)):
        rows = [{"step": step, "lambda": lmbd, "correct": left}, {"step": "b", "lambda": lmbd, "correct": 50}]
        if lmbd:
            rows += [
                {"step": step, "gain": 2} | other,
                {"step": step, "choice": "held-out", "gain": 1, "correct": 2 * left},
            ]
        measured(folder, kind, "", [attacked | row for row in rows])
    return folder


def test_accuracies_under_noise_and_attack_are_numbers_to_sort_runs_by(client, tmp_path):
    with_lambda = trained(tmp_path, SPEC | {"preset": "sorted"}, 0.1, 90)
    adaptive = {"variant": "paper", "severity": "mean", "correct": 450, "total": 500}
    measured(with_lambda, "adaptive", "shot", [adaptive, adaptive | {"variant": "squared", "correct": 0}])
    control = {"severity": 1, "correct": 80, "total": 100}
    measured(
        with_lambda,
        "renormalised",
        "shot",
        [control | {"choice": "trained"}, control | {"choice": "algorithm1", "correct": 0}],
    )
    without = trained(tmp_path, SPEC | {"preset": "sorted", "system": "resnet18"}, None, 95)
    for _ in range(2):  # twice is once
        track(tmp_path / "results/sorted")
    as_trained = {"attack/l2_paper_as_trained": 0.2, "attack/l2_worst_as_trained": 0.1}
    tuned = {"attack/l2_paper_tuned": 0.4, "attack/l2_worst_tuned": 0.2, "noise/shot_algorithm1": 0.9}
    tuned["noise/shot_renormalised"] = 0.8
    expected = {
        "sdnet18": {"accuracy": 0.9, "noise/shot_as_trained": 0.87} | as_trained | tuned,
        "resnet18": {"accuracy": 0.95, "noise/shot_as_trained": 0.92} | as_trained,
    }
    experiment = client.get_experiment_by_name("sdnet sorted").experiment_id
    runs = client.search_runs([experiment], order_by=["metrics.`noise/shot_as_trained` DESC"])
    order = ["resnet18", "resnet18", "sdnet18", "sdnet18"]
    assert [run.info.run_name.split("/")[1] for run in runs[:4]] == order, "each seed, and the network it is nested in"
    for run, system in zip(runs, order, strict=False):
        final = {name: value for name, value in run.data.metrics.items() if "/" in name or name == "accuracy"}
        assert final == pytest.approx(expected[system])
        assert {len(client.get_metric_history(run.info.run_id, name)) for name in final} == {1}

    (with_lambda / "attack-paper.csv").unlink()
    measured(without, "sweep", "shot", [{"severity": 1, "correct": 1, "total": 2}])
    track(tmp_path / "results/sorted")
    assert steps(client, without, "noise/shot_as_trained")[-1] == (0, 0.5)
    assert client.get_run(run_id(without)).data.metrics["noise/shot_as_trained"] == 0.5


def test_a_copied_results_folder_leaves_the_means_and_tables_of_its_preset_alone(client, tmp_path):
    trained(tmp_path, SPEC | {"preset": "copied"}, 0.1, 90)
    (tmp_path / "results/copied/table1.md").write_text("content")
    track(tmp_path / "results/copied")
    shutil.copytree(tmp_path / "results/copied", tmp_path / "copy")
    copy = tmp_path / "copy/runs/digits/sdnet18/seed3"
    measured(copy, "accuracy", "", [{"checkpoint": "last", "correct": 1, "total": 100}])
    (tmp_path / "copy/table2.md").write_text("content")
    track(tmp_path / "copy")
    shown, seeds = tree(client, "sdnet copied")
    parents = {run.info.run_name: run for run in shown}
    assert [run.data.metrics["accuracy"] for run in (parents["digits/sdnet18"], *seeds)] == [0.9, 0.9]
    files = client.list_artifacts(parents["tables and figures"].info.run_id)
    assert [file.path for file in files] == ["table1.md"]
    assert client.get_run(run_id(copy)).data.metrics["accuracy"] == 0.01


def test_of_parents_made_at_once_on_a_server_one_prevails(client, tmp_path):
    Tracker(new_folder(tmp_path, SPEC | {"preset": "at once", "seed": 0}), {}).close()
    (first,), _ = tree(client, "sdnet at once")
    client.create_run(first.info.experiment_id, run_name="digits/sdnet18", start_time=first.info.start_time + 1)
    Tracker(new_folder(tmp_path, SPEC | {"preset": "at once", "seed": 1}), {}).close()
    (parent,), seeds = tree(client, "sdnet at once")
    assert parent.info.run_id == first.info.run_id
    assert {run.data.tags["mlflow.parentRunId"] for run in seeds} == {first.info.run_id}


def test_a_seed_whose_parent_another_job_removed_is_nested_again(client, tmp_path):
    folder = new_folder(tmp_path, SPEC | {"preset": "removed"})
    Tracker(folder, {}).close()
    (parent,), _ = tree(client, "sdnet removed")
    client.delete_run(parent.info.run_id)
    Tracker(folder, {}).close()
    (parent,), (seed,) = tree(client, "sdnet removed")
    assert seed.data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_eight_processes_that_write_at_once_are_all_recorded(client, database, tmp_path):
    assert at_once(8, tmp_path, "eight", database) == [""] * 8
    for seed in range(8):
        folder = tmp_path / f"results/eight/runs/digits/sdnet18/seed{seed}"
        assert [step for step, _ in steps(client, folder)] == list(range(1, 11))


def test_training_does_without_a_database_that_stays_locked(client, database, folder, capsys):
    """MLflow waits 20 s for a lock, once."""
    Tracker(folder, {}).close()
    with sqlite3.connect(database.removeprefix("sqlite:///")) as other:
        other.execute("BEGIN EXCLUSIVE")
        train(folder / "spec.json", None, 0)
        other.rollback()
    assert (folder / "model.pt").exists()
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(warnings) == 1
    assert "database is locked" in warnings[0]


def test_training_does_without_a_server_that_hangs(folder, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")  # in place of 5 s
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts and never answers
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        train(folder / "spec.json", None, 0)
    assert_trained_with_one_warning(folder, capsys.readouterr().err)


def test_training_does_without_a_server_that_is_broken(folder, monkeypatch, capsys, broken_server):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{broken_server.server_port}")
    train(folder / "spec.json", None, 0)
    assert_trained_with_one_warning(folder, capsys.readouterr().err)
    assert 1 <= broken_server.requests <= 4, "MLflow's own defaults would try for minutes"


@pytest.mark.parametrize("uri", ["nonsense://nowhere", "sqlite:////proc/no/such/folder/mlflow.db"])
def test_an_impossible_address_costs_one_warning(folder, monkeypatch, capsys, uri):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    tracker = Tracker(folder, {})
    tracker.log_epochs(history(1))
    tracker.close()
    assert capsys.readouterr().err.count("warning: MLflow tracking is off") == 1
