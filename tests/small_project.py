"""A project small enough to be built in tests, and Snakemake and the project's commands as they are typed there."""

import multiprocessing
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sdnet.experiments import catalogue

PROJECT = Path(__file__).parents[1]
PARTS = ("Snakefile", "workflow", "config", "profiles", "notebooks", "envs", "docs")

# ResNet-18 is what speeds are compared with; SDNet-18 is in every figure but the fourth and alone in its recipe. Its
# epochs are many enough to be interrupted among them. Figure 4 is of a network without shortcuts.
TINY_PRESET = """
description: digits, as small as it gets
extends: paper
width: 4
seeds: [0]
datasets:
  digits: {train_images: 100, test_images: 60}
systems:
  resnet18: {model: resnet18}
  sdnet18: {model: sdnet18, recipe: sparse}
  sdnet18-all-plain: {model: sdnet18-all, options: {shortcut: false, nonnegative: true}}
recipes:
  default: {epochs: 2, batch_size: 50, precision: float32}
  sparse: {epochs: 24, batch_size: 50, learning_rate: 0.05}
robustness: {noises: [gaussian], lambdas: [0.1, 0.5], test_images: 20, calibration_images: 20, variants: [paper]}
adversarial:
  {datasets: [digits], linf: 64, l2: 2, paper_images: 20, images: 10, lambdas: [0.1], steps: 3, restarts: 1,
   autoattack: [], autoattack_images: 1, diagnostic_images: 5}
"""
RESULTS = Path("results/quick")
SPARSE_RUN = RESULTS / "runs/digits/sdnet18/seed0"
EPOCHS = {"resnet18": 2, "sdnet18": 24, "sdnet18-all-plain": 2}

# Processes are forked from one that has imported what takes seconds to import, or what they would import at once.
FORKS = multiprocessing.get_context("forkserver")
COMMANDS = ("train", "evaluate", "calibrate", "stability", "invert", "attack", "claims", "report")
FORKS.set_forkserver_preload(
    ["pytest", "torch._dynamo", "sdnet.data.digits", "papermill", "nbconvert"]
    + ["mlflow.store.tracking.sqlalchemy_store", "mlflow.store.db.utils"]
    + [f"snakemake.{name}" for name in ("cli", "assets", "profiles", "storage", "report")]
    + [f"sdnet.commands.{name}" for name in COMMANDS]
)


def into(file: Path | str) -> None:
    """What this process prints goes to the end of a file."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


def run_command(folder: Path, words: Sequence[str], environment: dict[str, str]) -> None:
    """`python -m sdnet <words>` in a folder, on one thread, in a process of its own; what it prints goes to `log`."""
    import torch

    from sdnet.__main__ import main

    torch.set_num_threads(1)
    os.chdir(folder)
    os.environ.update(environment)
    into("log")
    sys.argv = ["sdnet", *words]
    main()


def sdnet(folder: Path, environment: dict[str, str], *words: str) -> None:
    """The same, which must succeed."""
    process = FORKS.Process(target=run_command, args=(folder, words, environment))
    process.start()
    process.join()
    assert process.exitcode == 0, f"{shlex.join(words)}\n{(folder / 'log').read_text()}"


def run_snakemake(folder: Path, words: tuple[str, ...], environment: dict[str, str], output: Path) -> None:
    """`snakemake <words>` in a folder, in a process group of its own; what it prints goes to a file."""
    from snakemake.cli import main

    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    into(output)
    sys.argv = ["snakemake", *words]
    main()


def copy_project(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for part in PARTS:
        copy = shutil.copytree if (PROJECT / part).is_dir() else shutil.copy2
        copy(PROJECT / part, folder / part)
    return folder


@dataclass(frozen=True)
class Planned:
    """What a dry run says it would do."""

    jobs: Counter  # by rule
    trained: set[str]  # folders of runs

    @property
    def drawn(self) -> set[str]:
        """Tables and figures."""
        return self.jobs.keys() & {*catalogue.TABLES, *catalogue.FIGURES}

    @property
    def computed(self) -> set[str]:
        """Rules behind them; not those that conclude a preset."""
        return self.jobs.keys() - self.drawn - {"quick", "claims", "report", "track"}


class Snakemake:
    """The command, as typed in the environment of the tests; on the CPU, where results are the same each time."""

    def __init__(self, tracking_uri: str):
        unwanted = ("PYTHONDONTWRITEBYTECODE", "SNAKEMAKE_PROFILE")  # the first makes every job compile every import
        kept = {name: value for name, value in os.environ.items() if name not in unwanted}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        own = {"CUDA_VISIBLE_DEVICES": "", "MLFLOW_TRACKING_URI": tracking_uri, "PATH": path}
        self.environment = kept | own

    def start(self, folder: Path, *arguments: str, output=subprocess.PIPE) -> subprocess.Popen:
        """In a process group of its own, as from a shell."""
        return subprocess.Popen(
            ["snakemake", *arguments],
            cwd=folder,
            env=self.environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def __call__(self, folder: Path, *arguments: str) -> tuple[int, str]:
        """Exit code and all that was printed, of a fork that does what the command would do."""
        with tempfile.NamedTemporaryFile("r") as output:
            process = FORKS.Process(target=run_snakemake, args=(folder, arguments, self.environment, output.name))
            process.start()
            try:
                process.join()
            finally:
                if process.exitcode is None:
                    os.killpg(process.pid, signal.SIGKILL)
            return process.exitcode, output.read()

    def succeed(self, folder: Path, *arguments: str) -> str:
        code, printed = self(folder, *arguments)
        assert code == 0, printed
        return printed

    def fail(self, folder: Path, *arguments: str) -> str:
        code, printed = self(folder, *arguments)
        assert code != 0, printed
        return printed

    def plan(self, folder: Path, *arguments: str) -> Planned:
        """Of a dry run, which must succeed."""
        printed = self.succeed(folder, *arguments, "--dry-run", "--printshellcmds")
        table = re.search(r"^Job stats:\njob +count\n[- ]+\n(.*?)^total ", printed, re.MULTILINE | re.DOTALL)
        assert (table is None) == ("Nothing to be done" in printed), printed
        rows = [line.split() for line in table[1].splitlines()] if table else []
        trained = re.findall(r"-m sdnet train (\S+)/spec\.json", printed)
        return Planned(Counter({rule: int(count) for rule, count in rows}), set(trained))
