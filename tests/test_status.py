"""`python -m sdnet status`: what it says of real runs, in the states that they go through."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock
from small_run import make_spec, read_until, start

from sdnet.__main__ import cli
from sdnet.commands.status import show
from sdnet.commands.train import train
from sdnet.experiments.environment import experiment
from sdnet.experiments.labels import duration
from sdnet.experiments.status import Status, status, summary, table
from sdnet.runs.spec import read_spec

pytestmark = pytest.mark.usefixtures("untracked")

RUN = "digits/sdnet18/seed0"


@pytest.fixture
def spec(tmp_path):
    return make_spec(tmp_path / "runs" / RUN, epochs=8)


def shown(folder, *arguments):
    command = [sys.executable, "-m", "sdnet", "status", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    return done.stdout, done.stderr


def test_a_run_waits_is_trained_is_killed_and_is_done(tmp_path, bare, monkeypatch):
    spec = make_spec(tmp_path / "runs" / RUN, epochs=12)
    assert status(tmp_path, RUN).state == "waiting"
    process = start(bare, "train", spec, "--gpus", 0)
    read_until(process, "epoch  2/12")
    process.send_signal(signal.SIGSTOP)
    epoch_ended = (spec.parent / "history.csv").stat().st_mtime
    monkeypatch.setattr(time, "time", lambda: epoch_ended)
    now = status(tmp_path, RUN)
    assert now.state == "training"
    assert 2 <= now.epoch < now.epochs == 12
    assert 0 < now.accuracy < 1
    assert now.rate > 0
    assert now.seconds_left > 0
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert status(tmp_path, RUN).state == "stopped"
    train(spec, None, 0)
    (spec.parent / "accuracy.csv").write_text("")
    (spec.parent / "sweep-shot.csv").write_text("")
    (spec.parent / "sweep-gaussian.csv").write_text("")
    done = status(tmp_path, RUN)
    assert (done.state, done.epoch, done.seconds_left) == ("trained", 12, None)
    assert done.measured == ("tested", "swept 2x")
    asked = json.loads(spec.read_text())
    assert status(tmp_path, RUN, asked).state == "trained"
    asked["dataset"]["checksum"] = "md5:of a site whose values were given by --configfile"
    assert status(tmp_path, RUN, asked).state == "trained"
    asked["training"]["learning_rate"] /= 2
    assert status(tmp_path, RUN, asked).state == "outdated", "Snakemake would train it anew"
    with FileLock(spec.parent / ".lock", timeout=0):
        assert status(tmp_path, RUN, asked).state == "training"


def test_runs_on_images_whose_folder_is_named_elsewhere_are_shown(spec, tmp_path, monkeypatch, capsys):
    """A preset that config/config.yaml alone does not complete; `--configfile` did, where it was run."""
    (tmp_path / "config/presets").mkdir(parents=True)
    project = Path(__file__).parents[1] / "config"
    shutil.copy(project / "config.yaml", tmp_path / "config")
    shutil.copy(project / "presets/paper.yaml", tmp_path / "config/presets")
    (tmp_path / "config/presets/mine.yaml").write_text("extends: paper\ndescription: x\ndatasets: {folder: {}}\n")
    (tmp_path / "results/mine").mkdir(parents=True)
    (tmp_path / "runs").rename(tmp_path / "results/mine/runs")
    monkeypatch.chdir(tmp_path)
    cli.main(["status", "results/mine"], standalone_mode=False)
    assert RUN in capsys.readouterr().out


def test_where_files_cannot_be_locked_all_else_is_shown(spec, tmp_path, monkeypatch):
    (spec.parent / ".lock").touch()

    def no_locks(*given):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("sdnet.experiments.status.fcntl.flock", no_locks)
    assert status(tmp_path, RUN).state == "waiting"


def test_asking_keeps_no_training_from_its_lock(spec):
    lock = spec.parent / ".lock"
    lock.touch()
    assert status(spec.parents[4], RUN).state == "waiting"
    with FileLock(lock, timeout=0):
        assert status(spec.parents[4], RUN).state == "training"
    with FileLock(lock, timeout=0):
        pass


def test_a_failed_run_says_why_and_a_silent_one_has_stopped(tmp_path, spec):
    log = tmp_path / "logs" / "train" / "digits-sdnet18-seed0.log"
    log.parent.mkdir(parents=True)
    log.write_text("epoch 1/8  loss 2.0\nerror: the loss or a weight is not finite\n")
    assert status(tmp_path, RUN).state == "failed"
    page, _ = shown(tmp_path)
    assert f"{RUN} failed: error: the loss or a weight is not finite" in page
    log.write_text("epoch 1/8  loss 2.0\ninterrupted\n")
    assert (status(tmp_path, RUN).state, status(tmp_path, RUN).reason) == ("failed", "interrupted")
    log.write_text("epoch 1/8  loss 2.0\n")
    (spec.parent / "checkpoints").mkdir()
    assert status(tmp_path, RUN).state == "stopped"


def test_a_training_that_died_in_the_workflow_is_as_far_as_its_last_checkpoint(tmp_path, spec):
    """Snakemake removes history.csv then. A checkpoint of other settings is of another training."""
    other = spec.parent / "checkpoints/0123456789ab/epoch0007.pt"
    other.parent.mkdir(parents=True)
    other.touch()
    assert status(tmp_path, RUN).epoch == 0
    kept = spec.parent / "checkpoints" / experiment(read_spec(spec)) / "epoch0005.pt"
    kept.parent.mkdir()
    kept.touch()
    kept.with_name("epoch0005-copy.pt").touch()  # somebody's own
    found = status(tmp_path, RUN)
    assert (found.state, found.epoch) == ("stopped", 5)


def test_a_training_is_as_far_and_as_fast_as_its_history_says(tmp_path, spec, monkeypatch):
    """Two of eight epochs, of 4 and 8 seconds: the other six take 6 seconds each, 5 of which are over."""
    history = spec.with_name("history.csv")
    counted = "train_correct,train_total,train_seconds,test_correct,test_total"
    history.write_text(f"epoch,{counted}\n1,10,96,4,30,60\n2,20,96,8,45,60\n")
    os.utime(history, (1000, 1000))

    def at(seconds):
        monkeypatch.setattr(time, "time", lambda: seconds)
        return status(tmp_path, RUN)

    with FileLock(spec.parent / ".lock", timeout=0):
        now, late = at(1005), at(2000)
    assert (now.state, now.epoch, now.epochs) == ("training", 2, 8)
    assert (now.accuracy, now.rate, now.seconds_left, late.seconds_left) == (45 / 60, 96 / 8, 6 * 6 - 5, 0)
    assert table([now])[1].split() == [RUN, "training", "2/8", "75.00%", "12", "31", "s"]


def test_what_was_measured_and_the_states_of_runs_are_counted(tmp_path, spec):
    attacks, lines = ("attack-paper.csv", "attack-adaptive.csv"), ("lines-shot.csv", "lines-gaussian.csv")
    for name in ("model.pt", "adaptive-shot.csv", *lines, *attacks):
        spec.with_name(name).touch()
    assert status(tmp_path, RUN).measured == ("calibrated", "attacked 2x")
    states = ["waiting", "outdated", "waiting", "failed", *10 * ["trained"]]
    counts = "10 trained, 1 outdated, 1 failed, 2 waiting"
    rows = [Status(RUN, state, 0, 8) for state in states]
    assert summary(rows, 0) == f"14 runs: {counts}"
    assert summary(rows, 3) == f"17 runs: {counts}, 3 not asked for"


def test_columns_stand_below_each_other(tmp_path, spec):
    make_spec(tmp_path / "runs/digits/sdnet18-nonnegative/seed0", epochs=5)
    lines = table([status(tmp_path, RUN), status(tmp_path, "digits/sdnet18-nonnegative/seed0")])
    assert len({line.index(word) for line, word in zip(lines, ("state", "waiting", "waiting"), strict=True)}) == 1


def test_in_a_log_each_change_is_one_line_and_the_end_comes_by_itself(tmp_path, spec):
    watch = [sys.executable, "-m", "sdnet", "status", str(tmp_path), "--every", "0.1"]
    finished = make_spec(tmp_path / "runs/digits/resnet18/seed0")
    finished.with_name("model.pt").touch()
    watching = subprocess.Popen(watch, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    assert "digits/resnet18/seed0" in watching.stdout.readline()
    train(spec, None, 0)
    output, _ = watching.communicate(timeout=60)
    lines = output.splitlines()
    assert "\x1b" not in output
    assert len(lines) == len(set(lines)) <= 11, "no more than the epochs, the beginning and the end"
    assert [line.split()[3] for line in (lines[0], lines[-1])] == ["training", "trained"]


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """The results folder of the preset `quick` of a project where one of its runs was asked for, and is trained."""
    shutil.copytree(Path(__file__).parents[1] / "config", tmp_path / "config")
    monkeypatch.chdir(tmp_path)
    make_spec(tmp_path / "results/quick/runs" / RUN).with_name("model.pt").touch()
    return Path("results/quick")


def test_runs_that_nobody_asked_for_are_counted_and_not_waited_for(quick, monkeypatch, capsys):
    show((quick,), None)
    title, _, _, *rows = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"results/quick: \d+ runs: 1 trained, \d+ not asked for", title)
    assert [row.split()[0] for row in rows] == [RUN]
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it waits for a run that nobody asked for"))
    show((quick,), 1)


def test_a_preset_that_is_being_written_stands_in_nobody_s_way(quick, capsys):
    show((quick,), None)
    expected = capsys.readouterr().out
    Path("config/presets/mine.yaml").write_text("broken: [")
    show((quick,), None)
    assert capsys.readouterr().out == expected


def test_a_folder_without_runs_is_refused_in_a_sentence(quick):
    with pytest.raises(
        ValueError,
        match=r"^config holds no runs/<data set>/<network>/seed<k>: give a results folder, such as results/quick$",
    ):
        show((Path("config"),), None)
    shutil.rmtree(quick)
    with pytest.raises(
        ValueError, match=r"^config holds no runs/<data set>/<network>/seed<k>: no run has begun; `make quick` starts"
    ):
        show((Path("config"),), None)


def test_status_and_plan_load_neither_torch_nor_pandas():
    assert {"status", "plan"} <= set(cli.commands)
    code = (
        "import sys, sdnet.commands.status, sdnet.commands.plan\n"
        "assert not (loaded := {'torch', 'pandas', 'mlflow', 'snakemake'} & set(sys.modules)), loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("text", ["{", "[]", '{"training": {}}', '{"training": {"epochs": 3}}'])
def test_a_damaged_description_is_named(tmp_path, spec, text):
    spec.write_text(text)
    with pytest.raises(ValueError, match=r"spec.json describes no run .* make it anew with: snakemake --force "):
        status(tmp_path, RUN)


@pytest.mark.parametrize("rows", [b"1,96", b"1,96,4,30,sixty", b"\xff\xfe"])
def test_a_damaged_history_is_named_with_what_makes_it_anew(tmp_path, spec, rows):
    history = spec.with_name("history.csv")
    history.write_bytes(b"epoch,train_total,train_seconds,test_correct,test_total\n" + rows)
    with pytest.raises(ValueError, match=r"history\.csv is damaged .*snakemake --cores all .*history\.csv"):
        status(tmp_path, RUN)


@pytest.mark.parametrize(
    ("seconds", "text"), [(40, "40 s"), (720, "12 min"), (12600, "3.5 h"), (86400, "24.0 h"), (181440, "2.1 days")]
)
def test_a_length_of_time_is_read_at_a_glance(seconds, text):
    assert duration(seconds) == text
