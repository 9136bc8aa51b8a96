"""What a notebook reads: the runs of the data sets that were tested."""

import pandas as pd
import pytest
import yaml
from test_plan import PRESET

from sdnet.experiments import project, results, shown
from sdnet.experiments.columns import COLUMNS


@pytest.fixture
def folder(tiny_project):
    """The results folder of a preset of which a data set is tested, one was begun and one was not."""
    datasets = {"digits": {}, "imagenet": {}, "cifar100": {}}
    preset = PRESET | {"seeds": [0], "systems": {"sdnet18": {"model": "sdnet18"}}, "datasets": datasets}
    folder = tiny_project(yaml.safe_dump(preset, sort_keys=False))
    add(folder, "digits")
    begun = folder / "runs" / "imagenet" / "sdnet18" / "seed0"
    begun.mkdir(parents=True)
    (begun / "spec.json").write_text("{}")
    return folder


def add(folder, dataset):
    row = dict.fromkeys(COLUMNS["accuracy"]) | {"dataset": dataset, "system": "sdnet18", "seed": 0}
    results.write(folder / "runs" / dataset / "sdnet18" / "seed0" / "accuracy.csv", "accuracy", [row])


def test_a_data_set_whose_runs_were_only_begun_is_left_out_and_noted(folder):
    assert set(shown.read_runs(folder, "table1", "accuracy").dataset) == {"digits"}
    assert shown.left_out_note(folder) == (
        " Left out, having no runs: ImageNet (which needs imagenet_root in config/config.yaml), CIFAR-100."
    )


@pytest.mark.parametrize("content", ["systems: {mine: {model: unknown}}", "broken: [", ""])
def test_another_preset_that_is_being_written_stands_in_nobody_s_way(folder, content):
    (folder.parents[1] / "config" / "presets" / "mine.yaml").write_text(content)
    assert project.named_preset(folder) == ("tiny", project.preset_of(folder))
    assert set(shown.read_runs(folder, "table1", "accuracy").dataset) == {"digits"}


def test_a_tested_data_set_must_have_all_its_files(folder):
    add(folder, "imagenet")
    assert set(shown.read_runs(folder, "table1", "accuracy").dataset) == {"digits", "imagenet"}
    with pytest.raises(FileNotFoundError, match=r"digits/sdnet18/seed0/codes\.csv is not there; make it with"):
        shown.read_runs(folder, "figure6", "codes")


def test_under_a_figure_networks_of_another_scale_are_named(monkeypatch):
    scale = {"dataset": "cifar10", "data_source": "official", "width": 16, "train_images": 500}
    runs = [("resnet18", 12), ("mdeq", 4), ("sdnet18", 12), ("sdnet18", 12), ("scn", 4)]
    accuracy = pd.DataFrame([scale | {"system": system, "epochs": epochs} for system, epochs in runs])
    monkeypatch.setattr(shown, "read_runs", lambda *_: accuracy)
    assert shown.scale_note(None, "table1") == (
        "CIFAR-10: width 16, 12 epochs, 500 training images; MDEQ, SCN: width 16, 4 epochs, 500 training images"
    )


def test_of_checks_of_attacks_the_first_seed_alone_is_read(folder):
    preset = folder.parents[1] / "config" / "presets" / "tiny.yaml"
    preset.write_text(yaml.safe_dump(yaml.safe_load(preset.read_text()) | {"seeds": [2, 0]}, sort_keys=False))
    for seed in (0, 2):
        row = dict.fromkeys(COLUMNS["diagnostics"]) | {"dataset": "digits", "system": "sdnet18", "seed": seed}
        results.write(folder / f"runs/digits/sdnet18/seed{seed}/diagnostics.csv", "diagnostics", [row])
    assert shown.read_runs(folder, "table1", "diagnostics").seed.tolist() == [2]


def test_under_a_table_noise_is_named_with_the_number_of_noisy_images():
    made = pd.Series(["generated, cifar severities"] * 2 + ["local ImageNet-C, 50 images", None])
    assert shown.noise_note(made, pd.Series([2000, 2000, 50, 10_000])) == (
        "generated, cifar severities, on 2,000 test images; local ImageNet-C, 50 images, on 50 test images"
    )


def test_under_a_table_stands_on_how_many_training_images_algorithm_1_was_fitted(folder):
    for noise in project.preset_of(folder).robustness.noises:
        row = dict.fromkeys(COLUMNS["calibration"]) | {"noise": noise, "images": 2000}
        path = folder / "runs" / "digits" / "sdnet18" / "seed0" / f"calibration-{noise}.csv"
        results.write(path, "calibration", [row, row])
    assert shown.calibration_note(folder, "table3") == "Algorithm 1 on 2,000 training images"
    results.write(path, "calibration", [row | {"images": 120}])
    assert shown.calibration_note(folder, "table3") == "Algorithm 1 on 120 or 2,000 training images"


def test_a_solver_that_misses_its_tolerance_is_named(folder):
    def note(dataset, *unconverged):
        shares = [{"solver_unconverged": share} for share in unconverged] or [{}]
        rows = [dict.fromkeys(COLUMNS["history"], 1) | share for share in shares]
        results.write(folder / f"runs/{dataset}/sdnet18/seed0/history.csv", "history", rows)

    note("digits", 0.0, 0.251)
    add(folder, "imagenet")
    note("imagenet", 1.0, 0.0)
    add(folder, "cifar100")
    note("cifar100")
    assert shown.solver_note(folder, "table1") == (
        " Inner solvers that missed their tolerance in the last epoch of training: SDNet-18's on scikit-learn digits "
        "for 25.1% of its samples."
    )
    note("digits", 0.251, 0.0)
    assert shown.solver_note(folder, "table1") == ""
