"""`python -m sdnet benchmark`: ratios of one run, with the paper's beside them."""

import gc
import weakref
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from small_run import edited, make_spec

from sdnet.__main__ import cli
from sdnet.commands.benchmark import PAPER, against, benchmark, paper_ratios
from sdnet.commands.contender import Contender
from sdnet.commands.speed import leased_machine
from sdnet.csc import csc_layers
from sdnet.experiments import results
from sdnet.runs.spec import read_spec


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """What is written and what is printed of two narrow networks on images of CIFAR-10's size."""
    folder = tmp_path_factory.mktemp("benchmark")
    specs = [
        edited(make_spec(folder / name), system=name, dataset__name="cifar10", model__name=name)
        for name in ("resnet18", "sdnet18-all")
    ]
    with pytest.MonkeyPatch.context() as patch:
        printed = []
        patch.setattr("builtins.print", lambda *words: printed.append(" ".join(map(str, words))))
        options = ["--out", str(folder / "benchmark.csv"), "--batch-size", "4", "--gpus", "0"]
        cli.main(["benchmark", *map(str, specs), *options], standalone_mode=False)
    return results.read(folder / "benchmark.csv", "benchmark").set_index("system"), "\n".join(printed)


def test_ratios_are_those_to_resnet18_of_the_same_run(measured):
    rows, _ = measured
    assert rows.train_rate_ratio["resnet18"] == rows.saved_bytes_ratio["resnet18"] == 1
    assert rows.train_rate_ratio_low["resnet18"] == rows.train_rate_ratio_high["resnet18"] == 1
    assert rows.train_rate_ratio["sdnet18-all"] < 0.9, "many more convolutions"
    assert rows.train_rate_ratio_low["sdnet18-all"] < rows.train_rate_ratio["sdnet18-all"]
    saved = rows.saved_bytes
    assert rows.saved_bytes_ratio["sdnet18-all"] == pytest.approx(saved["sdnet18-all"] / saved["resnet18"])
    assert rows.peak_memory_bytes.isna().all()


def test_the_paper_s_ratio_stands_behind_ours(measured):
    _, page = measured
    assert "cifar10, width 4, batch size 4, float32, CPU" in page
    row = next(line for line in page.splitlines() if line.split()[0:1] == ["sdnet18-all"])
    assert row.count("(0.25)") == 1
    assert row.count("(4.10)") == 1


def test_the_paper_s_ratios_are_of_its_printed_numbers():
    ratios = paper_ratios("cifar10")
    printed = pd.read_csv(PAPER).query("table == 'table1' and dataset == 'cifar10'")
    for quantity, of_networks in ratios.items():
        values = printed[printed.quantity == quantity].set_index("system").value
        assert of_networks["resnet18"] == 1
        assert of_networks["sdnet18"] == values["sdnet18"] / values["resnet18"]
    assert paper_ratios("digits") == {"speed": {}, "memory": {}}


def test_a_machine_that_slows_between_turns_is_in_no_ratio_and_one_that_slows_within_them_in_its_interval():
    slower = np.array([1, 0.5, 0.25, 0.8])[:, None]
    steady = against((slower * [100, 30])[..., None], reference=0)
    assert steady[:, :, 0] == pytest.approx(np.array([[1, 0.3]] * 3))
    ratios = np.array([0.25, 0.30, 0.35, 0.30])
    sat_out = np.append(ratios, np.nan)
    low, mean, high = against(np.stack([np.full(5, 100), 100 * sat_out], axis=1)[..., None], reference=0)[:, 1, 0]
    assert mean == pytest.approx(np.exp(np.log(ratios).mean()))
    spread = 3.182 * np.log(ratios).std(ddof=1) / 2  # Student's t of four turns
    assert np.log([low, high]) == pytest.approx(np.log(mean) + np.array([-spread, spread]), abs=1e-4)


def test_the_ratios_are_of_training_by_processor_time_without_the_first_turn_and_slow_networks_sit_out(
    tmp_path, monkeypatch
):
    """Images per second by the clock and by processor time, of which the latter are twice, and with CSC layers half."""
    turns = Counter()

    def rates(step, contender):
        system, training = contender.spec["system"], step.__name__ == "train_step"
        turns[system, training] += 1
        first, slow = turns[system, training] == 1, system == "sdnet18"
        by_clock = 1 if first else 80 * (1 if training else 5) / (40 if slow else 1)
        return by_clock, (1 if slow else 2) * by_clock

    monkeypatch.setattr("sdnet.commands.benchmark.rates", rates)
    specs = [edited(make_spec(tmp_path / name), system=name, model__name=name) for name in ("sdnet18", "resnet18")]
    benchmark(tuple(specs), tmp_path / "benchmark.csv", 4, gpus=0)
    rows = results.read(tmp_path / "benchmark.csv", "benchmark").set_index("system")
    assert rows.train_images_per_second.to_dict() == {"sdnet18": 2, "resnet18": 80}
    assert rows.inference_images_per_second.to_dict() == {"sdnet18": 10, "resnet18": 400}
    assert rows.train_rate_ratio.to_dict() == pytest.approx({"sdnet18": 1 / 80, "resnet18": 1})
    assert [turns[name, True] for name in ("sdnet18", "resnet18")] == [5, 13], "4 images take it 2.4 s"


def test_what_noise_and_attacks_will_take_is_measured_in_float32(tmp_path, monkeypatch):
    used = set()

    class Noted(Contender):
        def loss(self):
            used.add(("test", self.precision))
            return super().loss()

        def train_step(self):
            used.add(("train", self.step.precision))
            super().train_step()

    monkeypatch.setattr("sdnet.runs.device.has_bfloat16", lambda device: True)
    monkeypatch.setattr("sdnet.commands.speed.Contender", Noted)
    with leased_machine(0) as machine:
        machine.speed(read_spec(make_spec(tmp_path / "run", precision="bfloat16")), gpus=1)
    assert used == {("train", "bfloat16"), ("test", "float32")}


def test_networks_are_measured_at_one_batch_size(tmp_path, error_of):
    one = edited(make_spec(tmp_path / "one"), system="resnet18", model__name="resnet18")
    message = error_of("benchmark", one, make_spec(tmp_path / "two", batch_size=8), "--out", tmp_path / "benchmark.csv")
    assert message == "benchmark: given runs of batch size 32, 8; networks are compared at one"


def test_a_measured_network_keeps_nothing_alive(tmp_path):
    spec = read_spec(edited(make_spec(tmp_path / "run"), model__name="sdnet18-all"))
    contender, outputs = Contender(spec, 4, torch.device("cpu")), []
    for layer in csc_layers(contender.model):
        layer.register_forward_hook(lambda layer, x, z: outputs.append(weakref.ref(z)))
    gc.disable()
    try:
        contender.saved_bytes()
        assert outputs
        assert all(output() is None for output in outputs)
    finally:
        gc.enable()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_peak_memory_of_a_network_is_the_same_beside_others(tmp_path):
    names = ("resnet18", "sdnet18", "sdnet18-all")
    specs = [
        str(edited(make_spec(tmp_path / name), system=name, dataset__name="cifar10", model__name=name))
        for name in names
    ]
    peaks = []
    for given in (specs, specs[::-1]):
        cli.main(["benchmark", *given, "--out", str(tmp_path / "benchmark.csv")], standalone_mode=False)
        peaks.append(results.read(tmp_path / "benchmark.csv", "benchmark").set_index("system").peak_memory_bytes)
    assert peaks[0][list(names)].tolist() == pytest.approx(peaks[1][list(names)].tolist(), rel=0.02)
