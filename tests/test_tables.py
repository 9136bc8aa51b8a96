"""Our tables from hand-made result files, and the paper's numbers against each other."""

import csv
import math
from pathlib import Path

import pandas as pd
import pytest
from scipy.stats import binomtest

from sdnet.experiments import results, shown
from sdnet.experiments.columns import COLUMNS
from sdnet.experiments.tables import cost
from sdnet.experiments.tables.layout import accuracy, paper_values, write

PROJECT = Path(__file__).parents[1]
PRESET = """\
description: hand-made
width: 64
seeds: [0, 1, 2]
datasets:
  digits: {}
  cifar10: {}
  imagenet: {}
systems:
  sdnet18: {model: sdnet18}
  sdnet18-nonnegative: {model: sdnet18, options: {nonnegative: true}}
  resnet18: {model: resnet18}
recipes:
  default: {epochs: 220}
"""
CORRECT = {"sdnet18": (9515, 9525, 9550), "resnet18": (9540, 9550, 9560), "sdnet18-nonnegative": (1, 2, 3)}
SPEED = {"sdnet18": 1200.0, "resnet18": 1600.0}


@pytest.fixture
def folder(tiny_project):
    """The results folder of a small project: 3 seeds of 2 networks on CIFAR-10 and digits; no ImageNet."""
    folder = tiny_project(PRESET)
    for dataset in ("cifar10", "digits"):
        for system, counts in CORRECT.items():
            for seed, correct in enumerate(counts):
                write_run(folder, dataset, system, seed, correct)
        write_benchmark(folder, dataset)
    write_run(folder, "cifar10", "sdnet18", 7, 0)  # left over from other settings
    return folder


def write_run(folder, dataset, system, seed, correct):
    row = {
        "dataset": dataset,
        "system": system,
        "seed": seed,
        "data_source": "official" if dataset == "cifar10" else "scikit-learn digits",
        "train_images": 50_000,
        "width": 64,
        "epochs": 220,
        "parameters": 11_173_962,
    }
    last = row | {"checkpoint": "last", "epoch": 220, "correct": correct, "total": 10_000}
    best = row | {"checkpoint": "best_on_test", "epoch": 200, "correct": correct + 10, "total": 10_000}
    path = folder / "runs" / dataset / system / f"seed{seed}" / "accuracy.csv"
    results.write(path, "accuracy", [last, best])


def write_benchmark(folder, dataset, peak_memory_bytes=None):
    common = {"dataset": dataset, "width": 64, "device": "CPU_0 & 2 threads", "precision": "bfloat16", "threads": 2}
    rows = [
        common
        | {
            "system": system,
            "batch_size": 128,
            "train_images_per_second": rate,
            "inference_images_per_second": 5000.0,
            "saved_bytes": 1_100_000_000,
            "peak_memory_bytes": peak_memory_bytes,
            "train_rate_ratio": rate / SPEED["resnet18"],
            "train_rate_ratio_low": 0.9 * rate / SPEED["resnet18"],
            "train_rate_ratio_high": 1.1 * rate / SPEED["resnet18"],
            "saved_bytes_ratio": 1.1,
        }
        for system, rate in SPEED.items()
    ]
    results.write(folder / "benchmark" / f"{dataset}.csv", "benchmark", rows)


def cell(table, dataset, system, quantity):
    (index,) = table.index[(table.dataset == dataset) & (table.system == system) & (table.quantity == quantity)]
    return table.loc[index]


def test_accuracy_is_the_mean_over_seeds_with_spread_and_number(folder):
    accuracy = cell(cost.cost_table(folder, "table1"), "cifar10", "sdnet18", "accuracy")
    assert accuracy.ours == pytest.approx(95.30)
    assert accuracy.ours_std == pytest.approx(math.sqrt((0.15**2 + 0.05**2 + 0.20**2) / 2)), "of n - 1"
    assert accuracy.n_seeds == 3, "the folder of a seed that the preset has no more does not count"


def test_a_table_that_the_paper_has_not_has_no_numbers_of_the_paper(folder, monkeypatch):
    values = paper_values()
    monkeypatch.setattr(cost, "paper_values", lambda table: values[values.table == table.replace("6", "7")])
    assert cost.cost_table(folder, "table6").paper.isna().all()


def test_the_interval_is_wilson_s_over_the_test_images_that_seeds_share(folder):
    accuracy = cell(cost.cost_table(folder, "table1"), "cifar10", "sdnet18", "accuracy")
    expected = binomtest(sum(CORRECT["sdnet18"]) // 3, 10_000).proportion_ci(0.95, method="wilson")
    assert (accuracy.ours_low, accuracy.ours_high) == pytest.approx((100 * expected.low, 100 * expected.high))


def test_severities_share_their_images_too():
    counts = pd.DataFrame({"severity": ["mean"], "correct": [2500], "total": [5000]})  # five times 1,000 images
    expected = binomtest(500, 1000).proportion_ci(0.95, method="wilson")
    found = accuracy(counts)
    assert (found["ours_low"], found["ours_high"]) == pytest.approx((100 * expected.low, 100 * expected.high))


def test_the_difference_is_ours_minus_the_paper_s(folder):
    table = cost.cost_table(folder, "table1")
    accuracy = cell(table, "cifar10", "sdnet18", "accuracy")
    assert (accuracy.paper, accuracy.released) == (95.20, 95.34)
    assert accuracy.difference == pytest.approx(0.10)
    assert cell(table, "cifar10", "resnet18", "accuracy").difference == pytest.approx(95.50 - 95.54)
    for one in (table, cost.cost_table(folder, "table6")):  # in which the paper has no ResNet-18
        ratio = cell(one, "cifar10", "sdnet18", "speed_ratio")
        assert (ratio.ours, ratio.paper) == pytest.approx((1200 / 1600, 1500 / 1600))
    parameters = cell(table, "cifar10", "sdnet18", "parameters")
    assert (parameters.ours, parameters.paper) == pytest.approx((11.173962, 11.2))


def test_the_best_epoch_stands_beside_the_last_and_has_no_paper_s_value(folder):
    best = cell(cost.cost_table(folder, "table1"), "cifar10", "sdnet18", "accuracy_best_epoch")
    assert best.ours == pytest.approx(95.40)
    assert math.isnan(best.paper)
    assert "test set picks" in best.measure


def test_the_paper_s_columns_are_blank_where_it_has_no_value(folder):
    digits = cost.cost_table(folder, "table1").query("dataset == 'digits'")
    assert len(digits) == 12
    assert digits[["paper", "released", "difference"]].isna().all(axis=None)
    assert digits.ours.notna().all()


def test_the_rows_are_those_of_the_table_in_the_paper_s_order(folder):
    table = cost.cost_table(folder, "table1")
    assert list(table.columns) == list(cost.COLUMNS)
    assert table[["dataset", "system"]].drop_duplicates().to_numpy().tolist() == [
        ["digits", "resnet18"],
        ["digits", "sdnet18"],
        ["cifar10", "resnet18"],
        ["cifar10", "sdnet18"],
    ], "no variant that Table 1 lacks, no data set without runs"
    assert not table.duplicated(["dataset", "system", "quantity"]).any()


def test_memory_is_the_gpu_s_where_it_was_measured(folder):
    memory = cell(cost.cost_table(folder, "table1"), "cifar10", "sdnet18", "memory")
    assert memory.ours == pytest.approx(1.1)
    assert memory.measure.startswith("kept for the backward pass; CPU")
    write_benchmark(folder, "cifar10", peak_memory_bytes=1_300_000_000)
    memory = cell(cost.cost_table(folder, "table1"), "cifar10", "sdnet18", "memory")
    assert memory.ours == pytest.approx(1.3)
    assert memory.measure.startswith("largest memory allocated")


def test_one_seed_has_no_spread(folder):
    (folder.parents[1] / "config" / "presets" / "tiny.yaml").write_text(PRESET.replace("[0, 1, 2]", "[0]"))
    accuracy = cell(cost.cost_table(folder, "table1"), "cifar10", "sdnet18", "accuracy")
    assert (accuracy.ours, accuracy.n_seeds) == (95.15, 1)
    assert math.isnan(accuracy.ours_std)


def test_data_that_are_not_official_are_named_in_every_row(folder):
    for seed in range(3):
        path = folder / "runs" / "cifar10" / "sdnet18" / f"seed{seed}" / "accuracy.csv"
        path.write_text(path.read_text().replace("official", "a JPEG copy"))
    rows = cost.cost_table(folder, "table1").query("dataset == 'cifar10' and system == 'sdnet18'")
    assert set(rows.data) == {"CIFAR-10 (a JPEG copy)"}
    assert set(rows.scale) == {"width 64, 220 epochs, 50,000 training images"}


def test_imagenet_s_rows_come_with_its_runs_and_without_them_a_note(folder):
    note = shown.left_out_note(folder)
    assert note == " Left out, having no runs: ImageNet (which needs imagenet_root in config/config.yaml)."
    preset = folder.parents[1] / "config" / "presets" / "tiny.yaml"
    preset.write_text(PRESET.replace("imagenet: {}", "imagenet: {gpus: 4}"))
    for system, counts in CORRECT.items():
        for seed, correct in enumerate(counts):
            write_run(folder, "imagenet", system, seed, correct)
    write_benchmark(folder, "imagenet")
    table = cost.cost_table(folder, "table1")
    assert cell(table, "imagenet", "sdnet18", "accuracy").paper == 69.47
    assert cell(table, "imagenet", "sdnet18", "speed").measure.endswith(
        "batch size 128 (the part of one of 4 GPUs; the paper's is taken to be of all)"
    )
    assert "batch size 128 or" in cost.cost_caption("Table 1", table, "small"), (
        "the caption has each way that was measured"
    )
    assert shown.left_out_note(folder) == ""


def test_a_data_set_is_read_under_the_noises_it_has(folder):
    preset = folder.parents[1] / "config" / "presets" / "tiny.yaml"
    preset.write_text(PRESET.replace("digits: {}", "digits: {noises: [shot]}").replace("[0, 1, 2]", "[0]"))
    noises = {"cifar10": ["gaussian", "shot", "speckle", "impulse"], "digits": ["shot"]}
    for path in folder.glob("runs/*/*/seed0"):
        _, dataset, system, _ = path.relative_to(folder).parts
        for noise in noises[dataset]:
            row = {"dataset": dataset, "system": system, "seed": 0, "noise": noise}
            results.write(path / f"sweep-{noise}.csv", "sweep", [dict.fromkeys(COLUMNS["sweep"]) | row])
    read = shown.read_runs(folder, "figure2", "sweep")
    assert read.groupby("dataset").noise.unique().map(list).to_dict() == noises


@pytest.mark.parametrize("missing", ["runs/digits/resnet18/seed1/accuracy.csv", "benchmark/cifar10.csv"])
def test_a_missing_file_is_named_with_the_command_that_makes_it(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{missing} is not there; make it with: snakemake"):
        cost.cost_table(folder, "table1")


def test_a_folder_that_is_no_preset_s_is_refused_with_the_ones_there_are(folder):
    with pytest.raises(ValueError, match="is no preset's results folder; choose one of results/tiny"):
        cost.cost_table(folder.with_name("other"), "table1")


def test_the_text_outputs_hold_our_numbers_and_the_paper_s_in_brackets(folder, tmp_path):
    table = cost.cost_table(folder, "table1")
    path, layout = tmp_path / "out" / "table1", cost.cost_layout(table)
    assert layout["Data set"].unique().tolist() == ["scikit-learn digits", "CIFAR-10"], "in the table's order"
    write(table, layout, path, cost.cost_caption("Table 1", table, "width 64"))
    assert sorted(file.name for file in path.parent.iterdir()) == ["table1.csv", "table1.md", "table1.tex"]
    pd.testing.assert_frame_equal(pd.read_csv(path.with_suffix(".csv")), table, check_dtype=False)
    rows = {
        "CIFAR-10": ["11.2 (11.2)", "95.30 ± 0.18 (95.20)", "1.1 (1.2)", "1,200 (1,500)"],
        "scikit-learn digits": ["11.2", "95.30 ± 0.18", "1.1", "1,200"],
    }
    for suffix, separator in {".md": "|", ".tex": "&"}.items():
        lines = path.with_suffix(suffix).read_text().splitlines()
        cells = [[part.strip(" \\") for part in line.strip("| ").split(separator)] for line in lines]
        for data, numbers in rows.items():
            assert [data, "SDNet-18", *numbers] in cells
    assert "Scale of ours: width 64" in path.with_suffix(".md").read_text()
    assert r"CPU\_0 \& 2 threads" in path.with_suffix(".tex").read_text(), "LaTeX's own characters are escaped"


# The paper's numbers, config/paper_values.csv


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda text: text[:5000], "it has no number of table3, table4, table5, table6"),
        (lambda text: text + "table6,mine,,,,,,accuracy,percent,1,,\n", "Expected 10 fields in line 179, saw 12"),
        (lambda text: "", "No columns to parse from file"),
        (lambda text: "no table\n", "it has no number of table1, table2"),
    ],
)
def test_a_damaged_file_of_the_paper_s_numbers_is_named(tmp_path, monkeypatch, damage, reason):
    (tmp_path / "config/presets").mkdir(parents=True)
    text = (PROJECT / "config/paper_values.csv").read_text()
    (tmp_path / "config/paper_values.csv").write_text(damage(text))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=rf"paper_values\.csv is damaged \(.*{reason}.*\); mend it, or put the"):
        paper_values()


@pytest.fixture(scope="module")
def paper():
    with open(PROJECT / "config" / "paper_values.csv") as file:
        return list(csv.DictReader(file))


def value(rows, **where):
    (row,) = [row for row in rows if all(row[key] == text for key, text in where.items())]
    return float(row["value"])


def accuracies(rows, table, system, setting="", **where):
    chosen = {"table": table, "system": system, "setting": setting, "quantity": "accuracy"} | where
    return [float(row["value"]) for row in rows if all(row[key] == text for key, text in chosen.items())]


def test_every_number_of_the_paper_s_tables_is_there_once(paper):
    counts = dict.fromkeys(["table1", "table2", "table3", "table4", "table5", "table6", "figure6"], 0)
    for row in paper:
        counts[row["table"]] += 1
    assert counts == {"table1": 76, "table2": 25, "table3": 25, "table4": 6, "table5": 12, "table6": 32, "figure6": 1}
    keys = [tuple(text for key, text in row.items() if key not in ("value", "released", "unit")) for row in paper]
    assert len(set(keys)) == 177


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"table": "table1", "dataset": "cifar10", "system": "mdeq", "quantity": "accuracy"}, 93.80),
        ({"table": "table1", "dataset": "cifar100", "system": "scn", "quantity": "accuracy"}, 80.07),
        ({"table": "table1", "dataset": "cifar100", "system": "sdnet34", "quantity": "parameters"}, 21.2),
        ({"table": "table1", "dataset": "imagenet", "system": "scn", "quantity": "memory"}, 95.1),
        ({"table": "table1", "dataset": "imagenet", "system": "sdnet34", "quantity": "speed"}, 1200),
        ({"table": "table2", "system": "sdnet18", "severity": "4", "quantity": "lambda"}, 0.84),
        ({"table": "table2", "system": "scn", "severity": "3"}, 44.97),
        ({"table": "table3", "dataset": "cifar10", "system": "resnet18", "condition": "speckle"}, 62.16),
        (
            {"table": "table3", "dataset": "imagenet", "system": "sdnet18", "setting": "fixed", "condition": "shot"},
            23.97,
        ),
        ({"table": "table4", "system": "sdnet18", "setting": "tuned", "condition": "linf 8/255"}, 35.18),
        ({"table": "table4", "system": "resnet18", "condition": "l2 0.5"}, 29.47),
        ({"table": "table5", "system": "sdnet18-iter8", "condition": "impulse"}, 25.69),
        ({"table": "table6", "dataset": "imagenet", "system": "sdnet34-all", "quantity": "memory"}, 157.7),
        ({"table": "table6", "dataset": "cifar100", "system": "sdnet18-all", "quantity": "accuracy"}, 78.16),
    ],
)
def test_spot_checks_against_the_printed_page(paper, where, expected):
    assert value(paper, **where) == expected


@pytest.mark.parametrize(
    ("system", "setting"), [("resnet18", ""), ("scn", ""), ("sdnet18", "fixed"), ("sdnet18", "adaptive")]
)
def test_the_rows_of_table_2_average_to_the_gaussian_column_of_table_3(paper, system, setting):
    severities = accuracies(paper, "table2", system, setting)
    (mean,) = accuracies(paper, "table3", system, setting, dataset="cifar10", condition="gaussian")
    assert len(severities) == 5
    assert sum(severities) / 5 == pytest.approx(mean, abs=0.01)  # two printed decimals


def test_the_first_row_of_table_5_is_that_of_tables_1_and_3(paper):
    clean = accuracies(paper, "table5", "sdnet18", condition="clean")
    noisy = accuracies(paper, "table5", "sdnet18", "adaptive")
    assert clean == accuracies(paper, "table1", "sdnet18", dataset="imagenet")
    assert noisy == accuracies(paper, "table3", "sdnet18", "adaptive", dataset="imagenet")
    assert len(noisy) == 3


def test_table_6_repeats_table_1(paper):
    repeated = [row for row in paper if row["table"] == "table6" and row["system"] in ("sdnet18", "sdnet34")]
    first = [{**row, "table": "table6"} for row in paper if row["table"] == "table1"]
    assert len(repeated) == 16
    assert all(row in first for row in repeated)


def test_accuracies_are_percentages_and_fall_with_the_severity(paper):
    assert all(0 <= float(row["value"]) <= 100 for row in paper if row["unit"] == "percent")
    for system, setting in [("resnet18", ""), ("scn", ""), ("sdnet18", "fixed"), ("sdnet18", "adaptive")]:
        severities = accuracies(paper, "table2", system, setting)
        assert severities == sorted(severities, reverse=True)
