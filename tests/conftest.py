"""Settings of all tests, and the small project that several of them build on."""

import shutil
import signal

import pytest
import torch
from test_workflow import TINY_PRESET, Snakemake, copy_project

torch.set_num_threads(1)  # tiny tensors can be far slower on several threads

# Where the tests were started in the background Ctrl-C is ignored, and processes that they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tracking_uri(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('tracking')}/mlflow.db"


@pytest.fixture(scope="session")
def snakemake(tracking_uri):
    return Snakemake(tracking_uri)


@pytest.fixture(scope="session")
def built(tmp_path_factory, snakemake):
    """The project with the tiny preset, built from nothing. Tests that change it take `project`."""
    folder = copy_project(tmp_path_factory.mktemp("built"))
    (folder / "config/presets/quick.yaml").write_text(TINY_PRESET)
    snakemake.succeed(folder, "--cores", "2", "quick")
    return folder


@pytest.fixture
def project(built, tmp_path):
    """A copy of the built project."""
    return shutil.copytree(built, tmp_path / "project")
