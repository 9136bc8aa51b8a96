"""Killed and started again, everything ends in the very results of an undisturbed run.

Each job is killed once it has kept some of its work. The long form, 70 kills, is at random moments, others for another
seed:

    SDNET_KILLS=7 SDNET_KILL_SEED=1 python -m pytest tests/test_kills.py
"""

import contextlib
import hashlib
import json
import os
import random
import re
import shlex
import shutil
import signal
import socketserver
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from small_project import EPOCHS, FORKS, RESULTS, SPARSE_RUN, TINY_PRESET, copy_project, run_command
from test_datasets import Archive

from sdnet.data import cifar

KILLS = int(os.environ.get("SDNET_KILLS", "1"))  # of each job
SEED = int(os.environ.get("SDNET_KILL_SEED", "0"))
pytestmark = pytest.mark.timeout(900 * KILLS)

# Jobs as the workflow starts them, by a pattern of their command: what they keep of their work, and what they make.
PARTS = f"{SPARSE_RUN}/parts/*/*.npz"
JOBS = {
    "train .*/sdnet18/": (
        f"{SPARSE_RUN}/checkpoints/*/epoch*.pt",
        [SPARSE_RUN / name for name in ("model.pt", "history.csv", "environment.json", "checkpoints")],
    ),
    "evaluate .*/sdnet18/": (
        f"{SPARSE_RUN}/accuracy.csv",
        [SPARSE_RUN / f"{name}.csv" for name in ("accuracy", "codes", "dictionary")],
    ),
    "sweep .*/sdnet18/": (PARTS, [SPARSE_RUN / f"sweep-gaussian.{kind}" for kind in ("csv", "npz")]),
    "calibrate .*/sdnet18/": (
        PARTS,
        [SPARSE_RUN / f"{name}-gaussian.csv" for name in ("calibration", "peaks", "lines", "adaptive")],
    ),
    "attack .*/sdnet18/": (PARTS, [SPARSE_RUN / f"attack-paper.{kind}" for kind in ("csv", "npz")]),
    "attack-adaptive .*/sdnet18/": (
        PARTS,
        [SPARSE_RUN / name for name in ("attack-adaptive.csv", "attack-adaptive.npz", "adversarial.npz")],
    ),
    "notebook .*/table2.ipynb": (
        f"{RESULTS}/table2.csv",
        [RESULTS / f"table2.{kind}" for kind in ("csv", "md", "tex")],
    ),
}
# What no two runs agree on, killed or not: figures of speed, and when and where something ran.
VARYING = ("environment.json", "mlflow.json", "table1", "benchmark", "effects", "claims", "report")
VARYING += ("logs", "notebooks", "checkpoints", "former-")


def download(folder: Path, words: list[str], environment: dict[str, str]) -> None:
    """The same, of an archive with fewer images than the official one."""
    cifar.IMAGES_PER_SPLIT = {"train": 150, "test": 10}
    run_command(folder, words, environment)


class Victim:
    """A job that is started until it is done, and killed in between.

    Args:
        target: a function, called in a process of its own with
        folder, *arguments: where it works, and what else it is called with.
        kept: a pattern of files in the folder that it keeps while it works.
        outputs: the files that it makes.
    """

    def __init__(self, target, folder: Path, *arguments, kept: str, outputs: list[Path]):
        self.target, self.folder, self.arguments, self.kept = target, folder, arguments, kept
        self.outputs = [folder / path for path in outputs]

    def start(self) -> BaseProcess:
        process = FORKS.Process(target=self.target, args=(self.folder, *self.arguments))
        process.start()
        return process

    def finish(self) -> None:
        process = self.start()
        process.join()
        assert process.exitcode == 0, (self.folder / "log").read_text()

    def clear(self) -> None:
        for path in self.outputs:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def kill(self, times: int, chance: random.Random, check) -> None:
        """Kill it while it works; check what it made whenever it was done before that, and what it makes at last.

        Once, as soon as it has kept some of its work; or that many times, each at a random moment.
        """
        self.clear()
        seconds = self.measure(check) if times > 1 else None
        while times:
            process = self.start()
            if seconds:
                process.join(chance.uniform(0, seconds))
            while not seconds and process.is_alive() and not any(self.folder.glob(self.kept)):
                time.sleep(0.005)
            if process.is_alive():
                process.kill()
                process.join()
                times -= 1
            else:
                assert process.exitcode == 0, (self.folder / "log").read_text()
                check()
                self.clear()
        self.finish()
        check()

    def measure(self, check) -> float:
        """How long it takes."""
        began = time.monotonic()
        self.finish()
        seconds = time.monotonic() - began
        check()
        self.clear()
        return seconds


def content(path: Path):
    """What a result file says, in a form that compares bit for bit."""
    if path.suffix == ".pt":
        return {name: value.numpy().tobytes() for name, value in torch.load(path, weights_only=True).items()}
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()}
    if path.name == "history.csv":
        return pd.read_csv(path).drop(columns="train_seconds").to_csv()
    return path.read_bytes()


def results_of(project: Path) -> set[Path]:
    """The files of its results folder that must be the same each time."""
    found = [path.relative_to(project) for path in (project / RESULTS).rglob("*") if path.is_file()]
    return {path for path in found if not any(part.startswith((".", *VARYING)) for part in path.parts)}


def assert_same_content(project: Path, undisturbed: Path) -> None:
    for path in results_of(project):
        assert content(project / path) == content(undisturbed / path), path


@pytest.fixture(scope="module")
def commands(built, snakemake):
    """What the workflow's jobs run."""
    printed = snakemake.succeed(built, "--cores", "2", "--forceall", "--dry-run", "--printshellcmds", "quick")
    lines = re.findall(r"python -m sdnet (.+?)(?: 2?> |$)", printed, re.MULTILINE)
    return [re.sub(r"\$\(dirname (\S+)/model\.pt\)", r"\1", line) for line in lines]


@pytest.mark.parametrize("pattern", JOBS)
def test_a_killed_job_ends_in_the_same_results(built, project, commands, tracking_uri, pattern):
    (command,) = [line for line in commands if re.match(pattern, line)]
    kept, outputs = JOBS[pattern]
    environment = {"MLFLOW_TRACKING_URI": tracking_uri}
    victim = Victim(run_command, project, shlex.split(command), environment, kept=kept, outputs=outputs)
    (project / SPARSE_RUN / "mlflow.json").unlink()  # the undisturbed run's

    aside = set()  # what was measured, since without checkpoints nothing says that the weights will be the same
    if command.startswith("train"):
        measured = {path for path in results_of(built) if path.parent == SPARSE_RUN and path.suffix in (".csv", ".npz")}
        aside = measured - {SPARSE_RUN / "history.csv"}

    def check():
        assert results_of(project) == results_of(built) - aside
        assert_same_content(project, built)
        if command.startswith("train"):
            assert recorded_epochs(project, tracking_uri) == list(range(1, EPOCHS["sdnet18"] + 1))

    victim.kill(KILLS, random.Random(f"{SEED} {pattern}"), check)


def recorded_epochs(project, tracking_uri):
    from mlflow import MlflowClient

    run_id = json.loads((project / SPARSE_RUN / "mlflow.json").read_text())["run_id"]
    client = MlflowClient(tracking_uri)
    assert client.get_run(run_id).info.status == "FINISHED"
    return [point.step for point in client.get_metric_history(run_id, "test_accuracy")]


class Slow(BaseHTTPRequestHandler):
    """Serves `server.content` in a second, from any byte on."""

    def do_GET(self):
        start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        body = self.server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        step = len(self.server.content) // 50
        with contextlib.suppress(OSError):  # it was killed
            for i in range(0, len(body), step):
                self.wfile.write(body[i : i + step])
                time.sleep(0.02)

    def log_message(self, *args):
        pass


def test_a_killed_download_ends_in_the_same_images(tmp_path, monkeypatch):
    archive = Archive("cifar10", tmp_path)
    monkeypatch.setattr(cifar, "IMAGES_PER_SPLIT", {"train": 150, "test": 10})
    archive.convert()
    expected = content(archive.out)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Slow) as server:
        server.daemon_threads, server.content = True, archive.path.read_bytes()
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/archive.tar.gz"
        checksum = f"sha256:{hashlib.sha256(server.content).hexdigest()}"
        data, archived = tmp_path / "data", f"data/{cifar.OFFICIAL['cifar10'].filename}"
        words = ["data", "cifar10", "--url", url, "--checksum", checksum, "--out", str(data / "cifar10.npz")]
        outputs = [Path("data/cifar10.npz"), Path(archived), Path(f"{archived}.part")]

        def check():
            assert content(data / "cifar10.npz") == expected

        victim = Victim(download, tmp_path, words, {"no_proxy": "127.0.0.1"}, kept=f"{archived}.part", outputs=outputs)
        victim.kill(KILLS, random.Random(f"{SEED} download"), check)
        server.shutdown()


def processes_in(folder: Path) -> list[int]:
    """Those whose working directory it is."""
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):  # it ended
            found += [int(link.parent.name)] * (link.readlink() == folder)
    return found


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="needs /proc, to see what is left behind")
@pytest.mark.parametrize("whom", ["the whole group", "Snakemake alone"])
def test_a_killed_workflow_ends_in_the_same_results(built, tmp_path, snakemake, whom):
    """Killed alone, it leaves its jobs running, and the next one starts them a second time."""
    project, chance = copy_project(tmp_path / "project"), random.Random(f"{SEED} {whom}")
    (project / "config/presets/quick.yaml").write_text(TINY_PRESET)
    target, seconds = ("quick", 60) if KILLS > 1 else (str(RESULTS / "figure5.pdf"), 10)

    def start():
        with open(project / "log", "w") as log:
            return snakemake.start(project, "--cores", str(chance.randint(1, 3)), target, output=log)

    kills = 0
    while kills < KILLS:
        process = start()
        while not (project / RESULTS).exists():
            assert process.poll() in (None, 0), (project / "log").read_text()
            time.sleep(0.1)
        try:
            assert process.wait(chance.uniform(0, seconds)) == 0, (project / "log").read_text()
            shutil.rmtree(project / RESULTS)  # it was done before that: from the start again
        except subprocess.TimeoutExpired:
            kills += 1
            process.kill() if whom == "Snakemake alone" else os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            snakemake(project, "--unlock")
    process = start()
    assert process.wait() == 0, (project / "log").read_text()
    assert_same_content(project, built)
    while processes_in(project):
        time.sleep(0.1)
    assert_same_content(project, built)
    assert {path.name for path in results_of(project)} >= {"model.pt", "accuracy.csv", "figure5.pdf", "figure5.png"}
    assert target != "quick" or results_of(project) == results_of(built)
