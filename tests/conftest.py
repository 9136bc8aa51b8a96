"""Settings of all tests, and the small project that several of them build on.

What needs the settings is imported late, so that tests of networks and training run where pydantic is not installed.
"""

import os
import shutil
import signal

import pytest
import torch
from filelock import FileLock

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
            Snakemake(f"sqlite:///{original}/mlflow.db").succeed(original, "--cores", "2", "quick")
            where.write_text(str(original))
    folder = shutil.copytree(where.read_text(), tmp_path_factory.mktemp("built") / "project")
    (folder / "mlflow.db").rename(tracking_uri.removeprefix("sqlite:///"))
    return folder


@pytest.fixture
def project(built, tmp_path):
    """A copy of the built project."""
    return shutil.copytree(built, tmp_path / "project")
