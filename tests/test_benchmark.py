"""`python -m sdnet benchmark`: ratios of one run, with the paper's beside them."""

import pandas as pd
import pytest
from test_commands import edited, make_spec

from sdnet.__main__ import cli
from sdnet.commands.benchmark import PAPER, paper_ratios
from sdnet.experiments import results


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
    assert rows.train_rate_ratio["sdnet18-all"] < 0.9, "many more convolutions"
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
