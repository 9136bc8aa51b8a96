"""Training shared among processes: what each of them gets, that together they train as one does, and how they end."""

import copy
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small_run
import torch
import torch.nn.functional as F
from PIL import Image
from small_run import edited, history, weights

from sdnet.commands.train import train
from sdnet.csc import update_dictionaries
from sdnet.data.folders import FolderLoader
from sdnet.data.loaders import DeviceLoader
from sdnet.models import build
from sdnet.runs.device import recipe_on
from sdnet.runs.images import open_data
from sdnet.runs.network import build_model
from sdnet.runs.spec import read_spec
from sdnet.training import distributed
from sdnet.training.evaluate import evaluate
from sdnet.training.loop import _solver_report, fit

pytestmark = pytest.mark.usefixtures("untracked")
CPU = torch.device("cpu")
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """JPEG files in the layout of ImageNet: 2 classes, 5 images of each to train and 3 to test."""
    root, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in {"train": 5, "val": 3}.items():
        for label, name in enumerate(("n01", "n02")):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(128 * label, 128 + 128 * label, size=(80, 90 + i, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.JPEG")
    return root


def make_spec(folder, **training):
    """SDNet-18 with the stem of ImageNet, 3 batches an epoch, the last one smaller."""
    # Small: a larger rate amplifies rounding, by activations that change sides of a threshold.
    slowly = {
        "epochs": 6,
        "batch_size": 4,
        "learning_rate": 1e-4,
        "schedule": "multistep",
        "milestones": [0.3, 0.6, 0.9],
    }
    images = {"name": "imagenet", "checksum": None, "train_images": None, "test_images": None, "image_size": 72}
    return edited(small_run.make_spec(folder, **slowly | training), dataset=images)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The same for processes."""
    folder = tmp_path_factory.mktemp("missing")
    (folder / "mlflow.py").write_text("raise ModuleNotFoundError('mlflow is not installed')\n")
    return os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}


class Job:
    """A training by two processes, as a user starts it; killed at the end if it still runs."""

    def __init__(self, spec, tree, environment, launcher=()):
        shared = [] if launcher else ["--processes", "2"]
        command = [*launcher, "-m", "sdnet", "train", str(spec), "--gpus", "0", *shared, "--data", str(tree)]
        self.process = subprocess.Popen(
            [sys.executable, *command], env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()

    def wait_for(self, text):
        lines = []
        for line in self.process.stderr:
            lines.append(line)
            if text in line:
                return
        raise AssertionError(f"the job ended before {text!r}: {''.join(lines)}")

    def ranks(self):
        """Process ids of the two that train."""
        return [child for child in self.children() if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]

    def children(self):
        return list(map(int, Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()))


def wait_for_the_end_of(processes, why):
    deadline = time.monotonic() + 60
    while any(map(running, processes)):
        assert time.monotonic() < deadline, why
        time.sleep(0.02)


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def shared(tree, tmp_path_factory, environment):
    """The folder of a run that torchrun, typed by hand, trained in two processes."""
    spec = make_spec(tmp_path_factory.mktemp("shared") / "run")
    command = [*TORCHRUN, "-m", "sdnet", "train", str(spec), "--gpus", "0", "--data", str(tree)]
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("epoch 6/6") == 1, "one process reports"
    return spec.parent


def test_two_processes_end_in_the_weights_of_one(shared, tree, tmp_path):
    """Every weight has moved alike, to a thousandth of its way and the rounding of float32."""
    alone = make_spec(tmp_path / "alone")
    train(alone, tree, 0)
    one, two = weights(alone.parent), weights(shared)
    assert one.keys() == two.keys()
    for name, start in build_model(read_spec(alone), 2).named_parameters():
        way = (one[name] - start).norm()
        assert (two[name] - one[name]).norm() < 1e-3 * way + 1e-7 * start.norm(), name
        assert way > 1e-5 * start.norm(), "the comparison must be of something"
    pd.testing.assert_frame_equal(history(shared), history(alone.parent), rtol=1e-5)
    assert set(history(shared).train_total) == {10}
    assert set(history(shared).test_total) == {6}


def test_a_killed_process_ends_the_job_with_one_sentence_and_the_job_resumes(shared, tree, tmp_path, environment):
    """One of the two, then the one that started them; the third start ends in the very same weights."""
    spec = make_spec(tmp_path / "run")
    with Job(spec, tree, environment) as job:
        job.wait_for("epoch 1/6")
        os.kill(job.ranks()[1], signal.SIGKILL)
        *_, message = job.process.stderr
        job.process.wait()
        assert message.startswith("error: process 2 of 2 was killed (SIGKILL); the same command goes on from")
        assert job.process.returncode == 1
    with Job(spec, tree, environment) as job:
        job.wait_for("epoch 3/6")
        ranks = job.ranks()
        assert len(ranks) == 2
        job.process.kill()
        wait_for_the_end_of(ranks, "processes outlive the one that holds the lock and the GPUs")
    assert not (spec.parent / "model.pt").exists()
    with Job(spec, tree, environment) as job:
        messages = job.process.stderr.read()
        assert job.process.wait() == 0, messages
    assert "epoch 2/6" not in messages, "it began anew instead of going on"
    pd.testing.assert_frame_equal(history(spec.parent), history(shared), check_exact=True)
    expected = weights(shared)
    assert all(torch.equal(value, expected[name]) for name, value in weights(spec.parent).items())


def test_processes_of_a_torchrun_that_is_killed_end_with_it(tree, tmp_path, environment):
    """Nobody holds a lock for them, and the same command, typed again, trains in the same folder."""
    spec = make_spec(tmp_path / "run")
    with Job(spec, tree, environment, launcher=TORCHRUN) as job:
        job.wait_for("epoch 1/6")
        ranks = job.children()
        assert len(ranks) == 2
        job.process.kill()
        wait_for_the_end_of(ranks, "processes outlive torchrun")
    assert not (spec.parent / "model.pt").exists()


def test_a_process_whose_launcher_died_while_it_started_does_not_start():
    code = "import os; from sdnet.training.distributed import _start; _start(os.getpid(), 1, print, 'lives')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


@pytest.fixture
def own_handlers():
    """Signals are handled as before, once torchrun, which puts handlers of its own, is done."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def one_step(spec, tree, out, device):
    """In float64 one step of a training, on a batch of 5, and the test images counted; into a file."""
    shard = (distributed.rank(), distributed.size())
    data = open_data(spec, tree, device, shard)
    torch.manual_seed(0)
    model = build("sdnet18", 2, width=4, small_input=False).double().to(device)
    network = distributed.shared(model, device)
    x, y = next(iter(data.train.epoch(0)))
    losses = F.cross_entropy(network(x.double()), y, reduction="none")
    images = distributed.total(torch.tensor(float(len(y)), dtype=torch.float64, device=device))
    (losses.sum() * distributed.size() / images).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    update_dictionaries(model)
    score = evaluate(model.float(), data.test, device=device)
    if distributed.rank() == 0:
        torch.save({"gradients": gradients, "state": model.state_dict(), "score": vars(score)}, out)


def one_step_of_two(spec, tree, out, gpu):
    with distributed.joined(gpu) as device:
        one_step(spec, tree, out, device)


two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")


@pytest.mark.usefixtures("own_handlers")
@pytest.mark.parametrize("gpu", [False, pytest.param(True, marks=two_gpus)])
def test_gradients_and_batch_statistics_are_those_of_the_whole_batch(tree, tmp_path, gpu):
    """To rounding in float64, though the parts of the batch differ in size."""
    spec = read_spec(make_spec(tmp_path / "run", batch_size=5))
    distributed.launch(2, one_step_of_two, spec, tree, tmp_path / "two.pt", gpu)
    one_step(spec, tree, tmp_path / "one.pt", CPU)
    one, two = (torch.load(tmp_path / f"{name}.pt", map_location="cpu") for name in ("one", "two"))
    for name, gradient in one["gradients"].items():
        torch.testing.assert_close(two["gradients"][name], gradient, rtol=1e-9, atol=1e-12)
        assert gradient.abs().max() > 1e-9, "the comparison must be of something"
    for name, value in one["state"].items():
        torch.testing.assert_close(two["state"][name], value)
    assert two["score"] == pytest.approx(one["score"], rel=1e-6)


def fail_in_the_second():
    with distributed.joined(gpu=False):
        if distributed.rank() == 1:
            raise ValueError("no such\nimage")
        distributed.total(torch.ones(1))  # waits for the other


@pytest.mark.usefixtures("own_handlers")
def test_a_process_that_fails_is_named_with_its_error():
    with pytest.raises(ChildProcessError, match=r"^process 2 of 2 failed: ValueError: no such image$"):
        distributed.launch(2, fail_in_the_second)


def epochs_of(spec, tree, checkpoints, device):
    data = open_data(spec, tree, device, (distributed.rank(), distributed.size()))
    recipe = recipe_on(device, spec)
    return fit(build_model(spec, 2), data.train, data.test, checkpoints=checkpoints, device=device, **recipe)


def go_on_apart(spec, tree, folder):
    with distributed.joined(gpu=False) as device:
        list(epochs_of(spec, tree, folder / str(distributed.rank()), device))


@pytest.mark.usefixtures("own_handlers")
def test_processes_that_find_other_checkpoints_than_the_first_are_refused(tree, tmp_path):
    """As on machines that do not share the folder; together they would train weights of no one epoch."""
    spec = read_spec(make_spec(tmp_path / "run", epochs=2))
    next(epochs_of(spec, tree, tmp_path / "0", CPU))
    with pytest.raises(ChildProcessError, match=r"checkpoints of different epochs, 0 to 1: all must see the same"):
        distributed.launch(2, go_on_apart, spec, tree, tmp_path)


@pytest.mark.parametrize("kind", ["device", "folder"])
@pytest.mark.parametrize("augment", [True, False])
@pytest.mark.parametrize("processes", [2, 3, 4])
def test_shards_together_are_the_batches(tree, kind, augment, processes):
    """Each image of each batch once, with the same augmentation, in parts that differ by at most one image."""

    def loader(shard=(0, 1)):
        if kind == "folder":
            split = "train" if augment else "val"
            return FolderLoader(
                tree, split, image_size=72, batch_size=4, augment=augment, workers=0, seed=3, shard=shard
            )
        images = np.random.default_rng(0).integers(256, size=(10, 8, 8, 1), dtype=np.uint8)
        options = {"batch_size": 4, "device": CPU, "augment": augment, "crop_padding": 2, "flip": True, "seed": 3}
        return DeviceLoader(images, np.arange(10), **options, shard=shard)

    whole = list(loader().epoch(2))
    shards = [list(loader((k, processes)).epoch(2)) for k in range(processes)]
    assert [loader((k, processes)).num_images for k in range(processes)] == [loader().num_images] * processes
    for step, (x, y) in enumerate(whole):
        parts = [shard[step] for shard in shards if step < len(shard)]
        assert len(parts) == min(processes, len(y)), "a process without an image has no batch"
        for k, (part_x, part_y) in enumerate(parts):
            assert torch.equal(part_x, x[k::processes])
            assert torch.equal(part_y, y[k::processes])
    assert all(len(shard) <= len(whole) for shard in shards)


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (torch.nn.BatchNorm1d(4), (8, 4)),
        (torch.nn.BatchNorm2d(4, affine=False), (8, 4, 5, 6)),
        (torch.nn.BatchNorm2d(4, momentum=None), (8, 4, 5, 6)),
        (torch.nn.BatchNorm2d(4, track_running_stats=False), (8, 4, 5, 6)),
    ],
)
def test_the_shared_batch_norm_computes_what_torchs_does(norm, shape):
    x = 3 + 2 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    shared = copy.deepcopy(norm)
    shared.__class__ = distributed._BatchNormOfAll
    for training, scale in ((True, 1), (True, 2), (False, 1)):
        torch.testing.assert_close(shared.train(training)(scale * x), norm.train(training)(scale * x))
    for ours, theirs in zip(shared.buffers(), norm.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_shared_batch_norm_sums_in_float32_and_gives_what_it_was_given():
    """As torch's on a GPU under autocast. Far from 0, so that sums in bfloat16 would lose what differs."""
    norm = torch.nn.BatchNorm2d(4)
    x = (10 + torch.randn(8, 4, 9, 9, generator=torch.Generator().manual_seed(0))).bfloat16()
    shared = copy.deepcopy(norm)
    shared.__class__ = distributed._BatchNormOfAll
    out = shared(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), norm(x.float()), rtol=0.01, atol=0.01)
    torch.testing.assert_close(shared.running_var, norm.running_var)


def note_threads(folder):
    with distributed.joined(gpu=False):
        distributed.total(torch.ones(1))  # the other has come, too
        (folder / str(distributed.rank())).write_text(str(torch.get_num_threads()))


@pytest.mark.usefixtures("own_handlers")
def test_processes_share_the_threads_and_logging_goes_on_afterwards(tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(6)
    try:
        distributed.launch(2, note_threads, tmp_path)
    finally:
        torch.set_num_threads(before)
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["3", "3"]
    assert logging.getLogger().isEnabledFor(logging.ERROR)


class Solver(torch.nn.Module):
    def solver_report(self):
        return {"residual": 1.0 + distributed.rank(), "steps": 3.0}


def note_report(folder):
    with distributed.joined(gpu=False) as device:
        (folder / str(distributed.rank())).write_text(repr(_solver_report(Solver(), device)))


@pytest.mark.usefixtures("own_handlers")
def test_what_inner_solvers_report_is_of_all_processes(tmp_path):
    distributed.launch(2, note_report, tmp_path)
    assert [(tmp_path / rank).read_text() for rank in "01"] == 2 * ["{'solver_residual': 1.5, 'solver_steps': 3.0}"]


@pytest.mark.parametrize(("batch_size", "fewest"), [(4, 2), (5, 5), (16, 10)])
def test_a_batch_that_cannot_be_shared_is_refused(tree, tmp_path, monkeypatch, batch_size, fewest):
    """Of 10 images: a process without one would leave the others waiting, for ever."""
    spec = read_spec(make_spec(tmp_path / "run", batch_size=batch_size))
    monkeypatch.setattr(distributed, "size", lambda: fewest + 1)
    with pytest.raises(ValueError, match=f"the last batch of an epoch, of {fewest}, cannot be shared by {fewest + 1}"):
        next(epochs_of(spec, tree, tmp_path, CPU))
    monkeypatch.setattr(distributed, "size", lambda: fewest)
    monkeypatch.setattr(distributed, "agree", lambda *_: 1 / 0)  # what comes next
    with pytest.raises(ZeroDivisionError):
        next(epochs_of(spec, tree, tmp_path, CPU))
