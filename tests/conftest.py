"""Settings of all tests, and what several of them build on: a run of seconds, and a small project.

What needs the settings is imported late, so that tests of networks and training run where pydantic is not installed.
"""

import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

PROJECT = Path(__file__).parents[1]
NOT_NEEDED = ("mlflow", "pydantic", "snakemake", "papermill", "seaborn", "statsmodels")  # by a run

torch.set_num_threads(1)  # tiny tensors can be far slower on several threads

# Where the tests were started in the background Ctrl-C is ignored, and processes that they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tracking_uri(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('tracking')}/mlflow.db"


@pytest.fixture(scope="session")
def snakemake(tracking_uri):
    from small_project import Snakemake

    return Snakemake(tracking_uri)


@pytest.fixture(scope="session")
def built(tmp_path_factory, tracking_uri):
    """The project with the tiny preset, built from nothing. Tests that change it take `project`.

    The first worker that needs it builds it, which takes minutes; each has a copy, and a copy of what was tracked.
    """
    from small_project import TINY_PRESET, Snakemake, copy_project

    common = tmp_path_factory.getbasetemp()
    common = common.parent if "PYTEST_XDIST_WORKER" in os.environ else common
    where = common / "built.txt"
    with FileLock(f"{where}.lock"):
        if not where.exists():
            original = copy_project(tmp_path_factory.mktemp("original"))
            (original / "config/presets/quick.yaml").write_text(TINY_PRESET)
            process = Snakemake(f"sqlite:///{original}/mlflow.db").start(original, "--cores", "2", "quick")
            printed, _ = process.communicate()
            assert process.returncode == 0, printed
            where.write_text(str(original))
    folder = shutil.copytree(where.read_text(), tmp_path_factory.mktemp("built") / "project")
    (folder / "mlflow.db").rename(tracking_uri.removeprefix("sqlite:///"))
    return folder


@pytest.fixture
def project(built, tmp_path):
    """A copy of the built project."""
    return shutil.copytree(built, tmp_path / "project")


@pytest.fixture
def untracked(monkeypatch):
    """No MLflow; tests/test_tracking.py is about it."""
    monkeypatch.setitem(sys.modules, "mlflow", None)


@pytest.fixture(scope="session")
def bare(tmp_path_factory):
    """The environment of a cluster node that has none of the packages a run does not need."""
    folder = tmp_path_factory.mktemp("missing")
    for name in NOT_NEEDED:
        (folder / f"{name}.py").write_text(f"raise ModuleNotFoundError('{name} is not installed')\n")
    return os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A run that was trained and tested. Tests that change it take a copy."""
    from small_run import make_spec

    from sdnet.commands.evaluate import evaluate
    from sdnet.commands.train import train

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "mlflow", None)
        folder = make_spec(tmp_path_factory.mktemp("runs") / "run").parent
        train(folder / "spec.json", None, 0)
        evaluate(folder, None, 0)
    return folder


@pytest.fixture(scope="session")
def digits():
    """uint8 (1797, 8, 8, 1) and labels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return (data.images * 255 / 16).astype(np.uint8)[..., None], data.target


@pytest.fixture
def tiny_project(tmp_path, monkeypatch):
    """Makes a project with a preset `tiny`, the working directory from then on, and gives its empty results folder."""

    def make(preset):
        presets = tmp_path / "config/presets"
        presets.mkdir(parents=True)
        (presets / "tiny.yaml").write_text(preset)
        for name in ("claims.yaml", "paper_values.csv"):
            shutil.copy(PROJECT / "config" / name, tmp_path / "config")
        monkeypatch.chdir(tmp_path)
        return tmp_path / "results/tiny"

    return make


@pytest.fixture
def error_of(monkeypatch):
    """What a command that fails prints before it ends with an exit code other than 0."""

    from sdnet.__main__ import main

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
