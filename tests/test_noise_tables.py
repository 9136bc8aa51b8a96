"""Tables 2, 3 and 5, the two readings and the control from hand-made result files."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sdnet.experiments import results
from sdnet.experiments.columns import COLUMNS
from sdnet.experiments.labels import DATASETS
from sdnet.experiments.tables import noise as noise_tables

PRESET = """\
description: hand-made
width: 64
seeds: [0, 1]
datasets:
  cifar10: {}
systems:
  sdnet18: {model: sdnet18}
  resnet18: {model: resnet18}
  sdnet18-nonnegative: {model: sdnet18, options: {nonnegative: true}}
  sdnet18-iter4: {model: sdnet18, options: {n_iter: 4}}
recipes:
  default: {epochs: 220}
robustness: {noises: [gaussian, speckle]}
"""
# Correct of 1,000 by network: clean; noisy at lambda_0 (mean of five severities) and at Algorithm 1's, first seed.
CLEAN = {"resnet18": 930, "sdnet18": 950, "sdnet18-nonnegative": 940, "sdnet18-iter4": 960}
FIXED = {"resnet18": 400, "sdnet18": 500, "sdnet18-nonnegative": 520, "sdnet18-iter4": 510}
ADAPTIVE = {"sdnet18": 600, "sdnet18-nonnegative": 640, "sdnet18-iter4": 620}
RENORMALISED = {  # with batch norms of the noisy images, at lambda_0 and at Algorithm 1's
    "resnet18": (700, None),
    "sdnet18": (650, 660),
    "sdnet18-nonnegative": (670, 690),
    "sdnet18-iter4": (0, 0),
}
ZEROS = {"sdnet18": 6, "sdnet18-nonnegative": 52, "sdnet18-iter4": 7}  # percent
SEVERITIES = (1, 2, 3, 4, 5)


@pytest.fixture(params=["cifar10"])
def folder(tiny_project, request):
    """The results folder of two seeds of four networks; the second seed has 10 more correct everywhere."""
    folder = tiny_project(PRESET.replace("cifar10", request.param))
    for system in CLEAN:
        for seed in (0, 1):
            write_run(folder, request.param, system, seed)
    return folder


def write_run(folder, dataset, system, seed):
    run = folder / "runs" / dataset / system / f"seed{seed}"
    common = {"dataset": dataset, "system": system, "seed": seed}
    scale = {"data_source": "official", "train_images": 50_000, "width": 64, "epochs": 220, "parameters": 11_173_962}
    correct = {"last": CLEAN[system] + 10 * seed, "best_on_test": 990}
    rows = [
        common | scale | {"checkpoint": name, "epoch": 220, "correct": count, "total": 1000}
        for name, count in correct.items()
    ]
    results.write(run / "accuracy.csv", "accuracy", rows)
    adjustable = system in ADAPTIVE
    bins = [
        common | {"layer": layer, "lambda": 0.1, "bin_low": 0.0, "bin_high": high, "count": count}
        for layer, zeros in {"network.conv1": ZEROS.get(system, 0) + 2 * seed, "network.another": 99}.items()
        for high, count in ((0.0, zeros), (1.0, 100 - zeros))
    ]
    results.write(run / "codes.csv", "codes", bins)
    for noise in ("gaussian", "speckle"):
        noisy = common | {"data_source": "official", "noise": noise, "noise_source": "official"}
        residuals = {"residual_norm": 30.0, "residual_squared": 900.0}
        lambdas = (0.1, 0.5) if adjustable else (math.nan,)
        fixed = [FIXED[system] + 10 * seed + 50 * (3 - severity) for severity in SEVERITIES]
        sweep = [
            noisy
            | {"severity": severity, "lambda": lmbd, "lambda0": lambdas[0], "correct": correct, "total": 1000}
            | residuals
            for severity, at_lambda0 in zip(SEVERITIES, fixed, strict=True)
            for lmbd, correct in zip(lambdas, (at_lambda0, 0), strict=False)
        ]
        results.write(run / f"sweep-{noise}.csv", "sweep", sweep)
        renormalised = [
            noisy
            | {"severity": severity, "choice": choice, "lambda": None, "total": 1000}
            | {"correct": correct + 10 * seed + 50 * (3 - severity)}
            for severity in SEVERITIES
            for choice, correct in zip(("trained", "algorithm1"), RENORMALISED[system], strict=True)
            if correct is not None
        ]
        results.write(run / f"renormalised-{noise}.csv", "renormalised", renormalised)
        if not adjustable:
            continue
        columns = dict.fromkeys(COLUMNS["adaptive"]) | noisy | {"fixed_correct": sum(fixed), "total": 5000}
        adaptive = [
            columns
            | {"variant": variant, "severity": severity, "gain": 1.0, "gain_low": 0.5, "gain_high": 1.5}
            | {"correct": 5 * (ADAPTIVE[system] + 10 * seed) if (variant, severity) == ("paper", "mean") else 0}
            for variant in ("paper", "squared")
            for severity in ("0", *map(str, SEVERITIES), "mean")
        ]
        results.write(run / f"adaptive-{noise}.csv", "adaptive", adaptive)


def one(table, **where):
    for key, value in where.items():
        table = table[table[key] == value]
    (row,) = table.itertuples()
    return row


def test_table_5_has_clean_accuracy_and_each_noise_at_the_lambda_of_algorithm_1(folder):
    table = noise_tables.table5(folder)
    assert len(table) == 2 * 3, "two networks; clean and two noises, of Algorithm 1 as printed alone"
    for system, n_iter in {"sdnet18": 2, "sdnet18-iter4": 4}.items():
        clean = one(table, system=system, noise="clean")
        assert (clean.n_iter, clean.n_seeds, clean.setting) == (n_iter, 2, "")
        assert clean.images == one(table, system=system, noise="gaussian").images == 1000, "of each severity"
        assert clean.ours == pytest.approx((CLEAN[system] + 5) / 10)
        noisy = one(table, system=system, noise="gaussian")
        assert (noisy.ours, noisy.ours_std) == pytest.approx(((ADAPTIVE[system] + 5) / 10, math.sqrt(0.5)))
    assert table.paper.isna().all(), "the paper's Table 5 is of ImageNet alone"


def test_table_5_shows_the_papers_imagenet_values_apart_from_another_data_set_s(folder):
    layout = noise_tables.table5_layout(noise_tables.table5(folder))
    rows = layout.to_numpy().tolist()
    assert list(layout.columns)[:3] == ["Data set", "FISTA iterations", "Natural accuracy"]
    assert rows[0] == ["CIFAR-10", 2, "95.50 ± 0.71", "60.50 ± 0.71", "60.50 ± 0.71", "", ""]
    assert list(layout.columns)[3:] == ["Gaussian", "Speckle", "Shot", "Impulse"]
    assert rows[2:] == [
        ["ImageNet, the paper's values", 2, "69.47", "29.16", "", "27.59", "22.01"],
        ["ImageNet, the paper's values", 4, "69.51", "29.69", "", "28.15", "24.15"],
    ], "and none for the iterations that the preset lacks"


@pytest.mark.parametrize("folder", ["imagenet"], indirect=True)
def test_table_5_has_them_in_brackets_where_imagenet_was_run(folder):
    table = noise_tables.table5(folder)
    gaussian = one(table, system="sdnet18-iter4", noise="gaussian")
    assert (gaussian.paper, gaussian.difference) == pytest.approx((29.69, gaussian.ours - 29.69))
    layout = noise_tables.table5_layout(table)
    assert set(layout["Data set"]) == {DATASETS["imagenet"]}
    assert layout["Natural accuracy"].tolist() == ["95.50 ± 0.71 (69.47)", "96.50 ± 0.71 (69.51)"]


def test_the_readings_have_accuracy_at_both_lambdas_and_the_first_layer_s_zeros(folder):
    table = noise_tables.readings(folder)
    assert set(table.system) == {"sdnet18", "sdnet18-nonnegative"}
    assert set(table.setting) == {"fixed", "adaptive"}, "of Algorithm 1 as printed alone"
    for system in ("sdnet18", "sdnet18-nonnegative"):
        of_system = {"system": system, "quantity": "accuracy"}
        assert one(table, **of_system, noise="clean").ours == pytest.approx((CLEAN[system] + 5) / 10)
        for setting, correct in {"fixed": FIXED, "adaptive": ADAPTIVE}.items():
            noisy = one(table, **of_system, noise="speckle", setting=setting)
            assert noisy.ours == pytest.approx((correct[system] + 5) / 10)
        zeros = one(table, system=system, quantity="zeros")
        assert (zeros.ours, zeros.ours_std) == pytest.approx((ZEROS[system] + 1, math.sqrt(2)))
    assert table.paper.isna().all()


def test_the_readings_are_laid_out_above_the_paper_s_values(folder):
    layout = noise_tables.readings_layout(noise_tables.readings(folder))
    rows = {row[1]: row[2:] for row in layout.to_numpy().tolist()}
    assert list(layout.columns)[2:] == ["Clean", "Gaussian", "Speckle", "Zeros in the code"]
    assert rows["SDNet-18 at the λ of training"] == ["95.50 ± 0.71", "50.50 ± 0.71", "50.50 ± 0.71", "7.00 ± 1.41"]
    assert rows["SDNet-18, released reading at adaptive λ"] == ["", "64.50 ± 0.71", "64.50 ± 0.71", ""]
    assert rows["SDNet-18 of the paper at the λ of training"] == ["95.20", "50.58", "67.11", "52.00"]
    assert rows["SDNet-18 of the paper at adaptive λ"] == ["", "64.92", "71.42", ""]


def test_the_control_has_each_network_as_trained_by_algorithm_1_and_with_batch_norms_of_the_noisy_images(folder):
    table = noise_tables.control(folder)
    rows = {row[1]: row[2:] for row in noise_tables.table3_layout(table).to_numpy().tolist()}
    assert list(rows) == [
        "ResNet-18",
        "ResNet-18, batch norms of the noisy images",
        "SDNet-18 at the λ of training",
        "SDNet-18 at adaptive λ",
        "SDNet-18 at the λ of training, batch norms of the noisy images",
        "SDNet-18 at adaptive λ, batch norms of the noisy images",
        "SDNet-18, released reading at the λ of training",
        "SDNet-18, released reading at adaptive λ",
        "SDNet-18, released reading at the λ of training, batch norms of the noisy images",
        "SDNet-18, released reading at adaptive λ, batch norms of the noisy images",
    ]
    assert rows["SDNet-18 at adaptive λ"][0] == "60.50 ± 0.71 (64.92)", "the paper's value of Table 3 in brackets"
    assert rows["ResNet-18, batch norms of the noisy images"] == 2 * ["70.50 ± 0.71"]
    assert rows["SDNet-18 at the λ of training, batch norms of the noisy images"] == 2 * ["65.50 ± 0.71"]
    assert rows["SDNet-18 at adaptive λ, batch norms of the noisy images"] == 2 * ["66.50 ± 0.71"]
    assert (table.images == 1000).all()


def test_table_2_has_each_severity_at_both_lambdas_and_the_lambda_itself(folder):
    for system in ADAPTIVE:
        for seed in (0, 1):
            path = folder / f"runs/cifar10/{system}/seed{seed}/adaptive-gaussian.csv"
            rows = results.read(path, "adaptive").astype({"severity": str})
            noisy = rows.severity != "mean"
            severity = rows.severity.where(noisy).astype(float)
            rows.loc[noisy, "lambda"] = 0.1 * (1 + severity) + 0.2 * seed
            rows.loc[noisy, "lambda_low"], rows.loc[noisy, "lambda_high"] = rows["lambda"] - 0.05, rows["lambda"] + 0.1
            rows.loc[noisy, ["correct", "fixed_correct", "total"]] = 700 + 10 * seed, 600 + 10 * seed, 1000
            rows["gain"], rows["gain_low"], rows["gain_high"] = 10.0 + 2 * seed, 9.0 + seed, 12.0 + 3 * seed
            rows["p_value"] = 0.01
            results.write(path, "adaptive", rows.to_dict("records"))
    table = noise_tables.table2(folder)
    of = {"system": "sdnet18", "quantity": "accuracy"}
    for severity in ("0", "3"):
        adaptive = one(table, **of, setting="adaptive", severity=severity)
        assert adaptive.ours == pytest.approx(70.5)
        assert (adaptive.gain, adaptive.gain_low, adaptive.gain_high) == pytest.approx((11, 9.5, 13.5))
        assert math.isnan(adaptive.p_value), "which is of one seed's images"
    assert one(table, **of, setting="fixed", severity="0").ours == pytest.approx(60.5), "the same clean images"
    assert one(table, **of, setting="fixed", severity="1").ours == pytest.approx((FIXED["sdnet18"] + 105) / 10)
    chosen = one(table, system="sdnet18", quantity="lambda", setting="adaptive", severity="3")
    assert (chosen.ours, chosen.ours_low, chosen.ours_high) == pytest.approx((0.5, 0.45, 0.6))
    assert chosen.ours_std == pytest.approx(math.sqrt(0.02)), "of 0.4 and 0.6"
    Path("config/presets/tiny.yaml").write_text(PRESET.replace("[0, 1]", "[0]"))
    assert one(noise_tables.table2(folder), **of, setting="adaptive", severity="3").p_value == 0.01
    layout = noise_tables.table2_layout(table).set_index("Network")
    assert layout.loc["SDNet-18 at the λ of training", ["Level-0", "Level-4"]].str[:5].tolist() == ["60.50", "40.50"]


def test_table_3_has_the_mean_over_severities_of_each_noise_with_a_lambda_and_without(folder):
    table = noise_tables.table3(folder)
    resnet18 = one(table, system="resnet18", noise="speckle")
    assert (resnet18.setting, resnet18.severity, resnet18.images) == ("", "mean", 1000)
    assert (resnet18.ours, resnet18.n_seeds) == (pytest.approx((FIXED["resnet18"] + 5) / 10), 2)
    assert (resnet18.paper, resnet18.difference) == pytest.approx((62.16, 40.5 - 62.16))
    adaptive = one(table, system="sdnet18", noise="gaussian", setting="adaptive")
    assert (adaptive.ours, adaptive.gain, adaptive.paper) == pytest.approx((60.5, 1, 64.92))
    layout = noise_tables.table3_layout(table)
    assert layout.columns.tolist() == ["Data set", "Network", "Gaussian", "Speckle"]
    assert layout.Network.tolist()[:3] == ["ResNet-18", "SDNet-18 at the λ of training", "SDNet-18 at adaptive λ"]


def test_the_best_lambda_gains_over_that_of_training():
    cell = {"dataset": "digits", "system": "sdnet18", "seed": 0, "noise": "shot", "lambda0": 0.1, "total": 200}
    sweep = pd.DataFrame(
        cell | {"severity": severity, "lambda": 0.1 * k, "correct": count}
        for severity, counts in {2: (100, 150, 120), 3: (80, 90, 110)}.items()
        for k, count in enumerate(counts, 1)
    )
    best = noise_tables.gains_of_best_lambdas(sweep)
    assert best.severity.tolist() == [2, 3]
    assert best.iloc[:, -3:].to_numpy() == pytest.approx(np.array([[0.2, 75, 25], [0.3, 55, 15]]))
