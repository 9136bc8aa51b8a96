"""Which device and precision a command computes with, and what it says where they are not enough."""

import json
import re
from contextlib import nullcontext

import pytest
import torch
from small_run import assert_same_run, edited, history, make_spec

from sdnet.commands.train import train
from sdnet.experiments import environment
from sdnet.runs.device import choose_device, has_bfloat16

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("untracked")


def test_a_device_that_only_imitates_bfloat16_trains_in_float32_and_says_so(tmp_path, monkeypatch, capsys):
    train(make_spec(tmp_path / "float32"), None, 0)
    assert "instructions" not in capsys.readouterr().err
    monkeypatch.setattr("sdnet.runs.device.has_bfloat16", lambda device: False)
    train(make_spec(tmp_path / "bfloat16", precision="bfloat16"), None, 0)
    assert "has no bfloat16 instructions; training in float32" in capsys.readouterr().err
    for run in ("float32", "bfloat16"):
        about = json.loads((tmp_path / run / "environment.json").read_text())
        assert (about["precision"], environment.tags(about)["precision"]) == ("float32", "float32")
    assert_same_run(tmp_path / "bfloat16", tmp_path / "float32")


@pytest.mark.parametrize(
    ("machine", "instructions", "expected"),
    [("x86_64", True, True), ("x86_64", False, False), ("aarch64", False, True)],
)
def test_on_x86_bfloat16_takes_its_instructions(machine, instructions, expected, monkeypatch):
    """torch's own test says yes to any AVX-512 there."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: instructions)
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert has_bfloat16(CPU) == expected


def test_commands_compute_float32_in_float32(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    choose_device(())
    assert not torch.backends.cudnn.allow_tf32


def test_a_device_with_bfloat16_trains_in_it(tmp_path, monkeypatch):
    monkeypatch.setattr("sdnet.runs.device.has_bfloat16", lambda device: True)
    train(make_spec(tmp_path / "float32"), None, 0)
    train(make_spec(tmp_path / "bfloat16", precision="bfloat16"), None, 0)
    assert json.loads((tmp_path / "bfloat16/environment.json").read_text())["precision"] == "bfloat16"
    assert not history(tmp_path / "bfloat16").equals(history(tmp_path / "float32"))


def test_memory_that_is_too_small_is_named_with_what_to_lower(tmp_path, error_of):
    spec = edited(make_spec(tmp_path / "run"), model__name="resnet18", model__width=3_000_000)  # 300 TB of weights
    message = error_of("train", spec, "--gpus", 0)
    assert re.fullmatch(r"the memory is too small: lower the recipe's batch_size or the width \(.*\)", message)


def test_a_gpu_out_of_memory_is_named_with_what_to_lower(tmp_path, error_of, monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has none of it free.")

    monkeypatch.setattr("sdnet.training.step.F.cross_entropy", full)
    assert error_of("train", make_spec(tmp_path / "run"), "--gpus", 0) == (
        "the GPU's memory is too small: lower the recipe's batch_size or the width "
        "(CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has none of it free.)"
    )


def test_a_gpu_that_torch_cannot_use_is_said_to_be_left_for_the_cpu(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device((2,)) == CPU
    assert "cannot use GPU 2, which nvidia-smi lists; working on the CPU" in capsys.readouterr().err
    assert choose_device(()) == CPU
    assert capsys.readouterr().err == "", "where none is leased there is nothing to say"


def test_gpus_that_torch_cannot_use_are_left_for_one_process_on_the_cpu(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sdnet.commands.train.lease", lambda count: nullcontext(tuple(range(count))))
    train(make_spec(tmp_path / "run"), None, 2)
    assert "cannot use GPU 0, 1, which nvidia-smi lists; working on the CPU" in capsys.readouterr().err
    assert (tmp_path / "run/model.pt").exists()
