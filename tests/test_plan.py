"""The plan: which runs a preset has, and what of the settings reaches a run."""

import json
import re
from contextlib import nullcontext
from pathlib import Path
from typing import get_args

import pytest
from torchvision.datasets.folder import IMG_EXTENSIONS

from sdnet.data import cifar_c
from sdnet.experiments import arguments, catalogue, places, plan
from sdnet.experiments.settings.files import SettingsError, read_yaml
from sdnet.experiments.settings.loading import load_presets, load_site
from sdnet.experiments.settings.names import Noise
from sdnet.experiments.settings.preset import Preset

PROJECT = Path(__file__).parents[1]
CONFIG = read_yaml(PROJECT / "config" / "config.yaml")
SITE = load_site(CONFIG)
PRESET = {
    "description": "two data sets, two networks, two recipes",
    "width": 16,
    "seeds": [0, 1],
    "datasets": {"digits": {}, "cifar10": {"recipe": "long"}},
    "systems": {"resnet18": {"model": "resnet18"}, "sdnet18": {"model": "sdnet18", "options": {"nonnegative": True}}},
    "recipes": {"default": {"epochs": 2}, "long": {"epochs": 20, "milestones": [0.5], "schedule": "multistep"}},
}


def specs(preset=PRESET, site=SITE):
    """The text of each run's spec.json, by the run's name."""
    return {run.name: run.spec_json for run in plan.runs("tiny", Preset.model_validate(preset), site)}


def changed_runs(preset=PRESET, site=SITE):
    before, after = specs(), specs(preset, site)
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


def of(name, value, of_dataset=None):
    """The preset with another value of one key, or of one key of a data set, network or recipe."""
    if of_dataset is None:
        return PRESET | {name: value}
    group, member = of_dataset
    return PRESET | {group: PRESET[group] | {member: PRESET[group][member] | {name: value}}}


def test_a_run_for_every_data_set_network_and_seed():
    assert set(specs()) == {
        f"{dataset}/{system}/seed{seed}"
        for dataset in ("digits", "cifar10")
        for system in ("resnet18", "sdnet18")
        for seed in (0, 1)
    }


def test_a_network_may_have_more_seeds_which_leave_the_runs_of_the_others_as_they_are():
    more = PRESET | {"more_seeds": {"resnet18": [5]}}
    before, after = specs(), specs(more)
    assert after.keys() - before.keys() == {"digits/resnet18/seed5", "cifar10/resnet18/seed5"}
    assert {name: after[name] for name in before} == before
    others = ["digits/sdnet18/seed5", "digits/scn/seed0", "cifar100/resnet18/seed0"]
    kept = [name for name in [*after, *others] if plan.has_run(Preset.model_validate(more), Path("results/runs", name))]
    assert kept == [*after], "of a results folder that holds other runs, too"
    less = of("datasets", ["cifar10"], ("systems", "resnet18"))
    assert not plan.has_run(Preset.model_validate(less), Path("results/runs/digits/resnet18/seed0"))


def test_a_spec_says_all_that_a_run_needs():
    assert json.loads(specs()["cifar10/sdnet18/seed1"]) == {
        "preset": "tiny",
        "system": "sdnet18",
        "seed": 1,
        "dataset": {
            "name": "cifar10",
            "checksum": CONFIG["downloads"]["cifar10"]["checksum"],
            "train_images": None,
            "test_images": None,
            "image_size": None,
        },
        "model": {"name": "sdnet18", "width": 16, "options": {"nonnegative": True}},
        "training": {
            "epochs": 20,
            "batch_size": 128,
            "optimizer": "sgd",
            "learning_rate": 0.1,
            "momentum": 0.9,
            "nesterov": True,
            "weight_decay": 5e-4,
            "schedule": "multistep",
            "milestones": [0.5],
            "precision": "bfloat16",
            "deterministic": False,
        },
    }


def test_a_spec_is_read_and_trained_as_it_is_planned(tmp_path):
    from inspect import signature

    from sdnet.runs.network import build_model
    from sdnet.runs.spec import read_spec
    from sdnet.training.loop import fit

    (tmp_path / "spec.json").write_text(specs()["digits/sdnet18/seed0"])
    spec = read_spec(tmp_path / "spec.json")
    assert set(spec["training"]) - {"batch_size"} <= set(signature(fit).parameters)
    assert build_model(spec, 10).network.conv1.nonnegative


def reordered(value):
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return value


def test_equal_settings_give_equal_text():
    assert specs(reordered(PRESET)) == specs()
    with_defaults = of("recipes", {"default": {"epochs": 2, "learning_rate": 0.1}, "long": PRESET["recipes"]["long"]})
    assert specs(with_defaults) == specs()
    assert specs(of("options", {"nonnegative": True, "n_iter": 2}, ("systems", "sdnet18"))) == specs()
    assert specs(of("options", {}, ("systems", "resnet18"))) == specs()


def test_a_learning_rate_changes_the_runs_of_its_recipe_alone():
    assert changed_runs(of("learning_rate", 0.05, ("recipes", "default"))) == {n for n in specs() if "digits" in n}
    assert changed_runs(of("learning_rate", 0.05, ("recipes", "long"))) == {n for n in specs() if "cifar10" in n}


def test_a_network_s_own_recipe_wins_over_that_of_the_data_set():
    assert changed_runs(of("recipe", "default", ("systems", "sdnet18"))) == {
        "cifar10/sdnet18/seed0",
        "cifar10/sdnet18/seed1",
    }


@pytest.mark.parametrize(
    ("preset", "changed"),
    [
        (of("width", 32), ""),
        (of("train_images", 100, ("datasets", "digits")), "digits"),
        (of("test_images", 100, ("datasets", "cifar10")), "cifar10"),
        (of("options", {}, ("systems", "sdnet18")), "sdnet18"),
    ],
)
def test_what_a_run_depends_on_changes_it_and_no_other(preset, changed):
    assert changed_runs(preset) == {name for name in specs() if changed in name}


@pytest.mark.parametrize(
    "preset",
    [
        of("description", "other words"),
        of("gpus", 4, ("datasets", "digits")),
        of("robustness", {"lambdas": [0.1, 0.2], "seed": 3}),
        of("recipes", PRESET["recipes"] | {"unused": {"epochs": 1}}),
    ],
)
def test_what_no_training_depends_on_changes_no_run(preset):
    assert preset != PRESET
    assert not changed_runs(preset)


def site(**changes):
    return load_site(CONFIG | changes)


def downloads(**changes):
    return CONFIG["downloads"] | {"cifar10": CONFIG["downloads"]["cifar10"] | changes}


@pytest.mark.parametrize(
    "changes",
    [
        {"data_dir": "/elsewhere"},
        {"mlflow_uri": "http://localhost:5000"},
        {"downloads": downloads(urls=["https://mirror.example/cifar-10.tar.gz"])},
    ],
)
def test_moving_to_another_site_changes_no_run(changes):
    assert not changed_runs(site=site(**changes))


def test_another_checksum_is_another_data_set():
    other = site(downloads=downloads(checksum="sha256:" + "0" * 64))
    assert changed_runs(site=other) == {name for name in specs() if "cifar10" in name}


def with_dataset(name, **options):
    return Preset.model_validate(PRESET | {"datasets": PRESET["datasets"] | {name: options}})


def tree(root, *folders):
    for folder in folders or ("train", "val"):
        (root / folder).mkdir(parents=True)
    return str(root)


def test_imagenet_is_left_out_until_its_root_is_set(tmp_path):
    preset = with_dataset("imagenet", gpus=4)
    assert "imagenet" not in {run.dataset for run in plan.runs("tiny", preset, SITE)}
    here = site(imagenet_root=tree(tmp_path / "here"))
    assert {run.gpus for run in plan.runs("tiny", preset, here) if run.dataset == "imagenet"} == {4}
    there = site(imagenet_root=tree(tmp_path / "there", "train", "test"))
    assert [r.spec for r in plan.runs("tiny", preset, here)] == [r.spec for r in plan.runs("tiny", preset, there)]


@pytest.mark.parametrize("name", ["imagenet", "folder"])
@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_root_that_is_no_folder_is_refused(tmp_path, name, kind):
    root = tmp_path / "root"
    if kind == "file":
        root.write_text("")
    with pytest.raises(SettingsError) as error:
        plan.runs("tiny", with_dataset(name), site(**{f"{name}_root": str(root)}))
    message = str(error.value)
    source = "config/config.yaml or --configfile"
    assert message.startswith(f"{source}: {name}_root: given '{root}', which is no folder; it must hold")


@pytest.mark.parametrize("name", ["imagenet", "folder"])
@pytest.mark.parametrize(("given", "missing"), [("val", "train"), ("train", "val"), ("n01440764", "train")])
def test_a_root_without_train_or_val_is_refused(tmp_path, name, given, missing):
    root = tree(tmp_path / "root", given)
    with pytest.raises(SettingsError) as error:
        plan.runs("tiny", with_dataset(name), site(**{f"{name}_root": root}))
    assert str(error.value) == (
        f"config/config.yaml or --configfile: {name}_root: given '{root}', which has no folder {missing}/; "
        "it must hold train/<class>/ and val/<class>/"
    )


def official_noise(preset, site):
    (folder,) = {run.official_noise for run in plan.runs("tiny", preset, site) if run.dataset == "imagenet"}
    return folder


def test_imagenet_c_is_taken_where_its_root_is_set_and_has_every_noise(tmp_path):
    three = with_dataset("imagenet", noises=["gaussian", "shot", "impulse"])
    roots = {"imagenet_root": tree(tmp_path / "clean"), "imagenet_c_root": str(tmp_path / "noisy")}
    assert official_noise(three, site(imagenet_root=roots["imagenet_root"])) is None
    with pytest.raises(SettingsError, match=r"imagenet_c_root: given .*noisy', which has no folder gaussian_noise/"):
        plan.runs("tiny", three, site(**roots))
    tree(tmp_path / "noisy", "gaussian_noise", "shot_noise", "impulse_noise")
    assert official_noise(three, site(**roots)) == roots["imagenet_c_root"]
    assert three.noises_on("imagenet") == ["gaussian", "shot", "impulse"]
    with pytest.raises(SettingsError, match="which has no folder speckle_noise/"):
        plan.runs("tiny", with_dataset("imagenet"), site(**roots))


def test_images_of_another_size_than_imagenet_c_s_get_generated_noise(tmp_path):
    noisy = tree(tmp_path / "noisy", "gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise")
    here = site(imagenet_root=tree(tmp_path / "clean"), imagenet_c_root=noisy)
    sizes = {size: with_dataset("imagenet", image_size=size) for size in (None, 224, 96)}
    assert [official_noise(preset, here) for preset in sizes.values()] == [noisy, noisy, None]
    with pytest.raises(SettingsError, match=r"datasets\.imagenet\.noise_source: given 'official'.*image_size at 224"):
        plan.runs("tiny", with_dataset("imagenet", image_size=96, noise_source="official"), here)


def test_a_folder_of_other_classes_or_images_is_another_data_set_and_the_same_one_elsewhere_is_not(
    tmp_path, monkeypatch
):
    def specs(name, classes):
        root = Path(tree(tmp_path / name))
        for split in ("train", "val"):
            for label, count in classes.items():
                (root / split / label).mkdir()
                for number in range(count):
                    (root / split / label / f"{number}.PNG").touch()
        (root / "val" / next(iter(classes)) / f"notes on {name}.txt").touch()
        if name == "moved":
            (root / "train" / "dog" / "Thumbs.db").touch()
        planned = plan.runs("tiny", with_dataset("folder"), site(folder_root=str(root)))
        return [run.spec for run in planned if run.dataset == "folder"]

    assert IMG_EXTENSIONS == plan.IMAGE_SUFFIXES, "torchvision passes over other files"
    first = specs("first", {"cat": 2, "dog": 3})
    with monkeypatch.context() as patch:  # file systems list folders in any order
        glob = Path.glob
        patch.setattr(Path, "glob", lambda *given: reversed(list(glob(*given))))
        assert specs("moved", {"cat": 2, "dog": 3}) == first
    assert specs("more", {"cat": 2, "dog": 4}) != first
    assert specs("others", {"cat": 2, "eel": 3}) != first


def test_what_gpus_share_is_measured_on_one_of_them():
    preset = with_dataset("imagenet", gpus=4)
    assert (
        arguments.benchmark_options("imagenet", preset) == f"--batch-size {preset.recipes['default'].batch_size // 4}"
    )
    assert arguments.benchmark_options("digits", preset) == ""


def test_a_wrong_root_that_no_data_set_needs_does_no_harm():
    assert not changed_runs(site=site(imagenet_root="/nowhere"))


def test_a_preset_of_one_s_own_images_stands_in_no_other_s_way_without_their_root():
    assert {run.dataset for run in plan.runs("tiny", with_dataset("folder"), SITE)}.isdisjoint({"folder"})


def test_the_path_names_the_preset():
    assert places.results_of("paper") == "results"
    assert places.results_of("quick") == "results/quick"


@pytest.mark.parametrize("name", ["paper", "short", "small", "quick"])
def test_every_table_and_figure_has_a_network_in_every_preset(name):
    preset = load_presets(PROJECT / "config" / "presets")[name]
    planned = plan.runs(name, preset, SITE)
    for target in catalogue.TABLES | catalogue.FIGURES:
        assert catalogue.runs_of(target, planned, preset), target


def targets_of(preset):
    return catalogue.targets(plan.runs("tiny", preset, SITE), preset)


def test_a_preset_s_targets_are_those_it_has_networks_for():
    paper = load_presets(PROJECT / "config" / "presets")["paper"]
    assert targets_of(paper) == list(catalogue.SYSTEMS_OF)
    shown = targets_of(Preset.model_validate(of("systems", {"sdnet18": {"model": "sdnet18"}})))
    assert {"table2", "table3", "readings", "control"} <= set(shown)
    assert not {"table1", "table6"} & set(shown), "speeds are compared with those of ResNet-18"
    assert "figure2" in shown
    assert "figure4" not in shown


def test_without_a_network_with_a_lambda_nothing_of_algorithm_1_is_a_target():
    preset = of("systems", {"resnet18": {"model": "resnet18"}, "scn": {"model": "scn"}})
    shown = targets_of(Preset.model_validate(preset))
    assert "table1" in shown
    assert not {"table2", "table3", "table5", "readings", "control"} & set(shown)
    assert not {"figure3", "figure_attacks"} & set(shown)


def test_a_network_without_a_lambda_has_no_place_in_what_is_of_lambda_alone(monkeypatch):
    preset = Preset.model_validate(of("systems", {"resnet18": {"model": "resnet18"}, "sdnet18": {"model": "sdnet18"}}))
    planned = plan.runs("tiny", preset, SITE)
    for target in ("table5", "figure2", "figure6", "table3"):
        monkeypatch.setitem(catalogue.SYSTEMS_OF, target, ("resnet18", "sdnet18"))
        shown = {run.system for run in catalogue.runs_of(target, planned, preset)}
        assert shown == ({"resnet18", "sdnet18"} if target == "table3" else {"sdnet18"})
    monkeypatch.setitem(catalogue.SYSTEMS_OF, "figure2", ("resnet18",))
    assert "has a lambda" in catalogue.nothing_to_show("figure2", plan.networks(preset), preset)


def test_a_table_of_speeds_needs_the_reference_on_every_data_set_that_it_shows():
    assert "table1" in targets_of(Preset.model_validate(PRESET))
    alone = of("datasets", ["cifar10"], ("systems", "resnet18"))
    assert "table1" not in targets_of(Preset.model_validate(alone)), "on digits there is nothing to compare with"


@pytest.mark.parametrize(
    ("target", "systems", "words"),
    [
        (
            "table1",
            {"sdnet18": {"model": "sdnet18"}},
            "against that of resnet18, which is not trained on cifar10, digits",
        ),
        (
            "table2",
            {"resnet18": {"model": "resnet18"}, "sdnet34": {"model": "sdnet34"}},
            r"none of its networks \(resnet18\) has a lambda",
        ),
        ("figure4", {"resnet18": {"model": "resnet18"}}, "it is of sdnet18-all-plain.*, none of which is there"),
        ("table2", {"resnet18": {"model": "resnet18"}, "sdnet18": {"model": "sdnet18"}}, "^$"),
    ],
)
def test_what_a_preset_cannot_show_says_why(target, systems, words):
    preset = Preset.model_validate(of("systems", systems))
    assert re.search(words, catalogue.nothing_to_show(target, plan.networks(preset), preset))


def test_a_lambda_reaches_its_command_as_it_was_given():
    preset = Preset.model_validate(PRESET | {"robustness": {"lambdas": [0.1, 0.12345678]}})
    (run, *_) = plan.runs("tiny", preset, SITE)
    assert "--lambdas 0.1,0.12345678 " in arguments.noise_options(run, preset)


def test_the_options_of_each_command_are_what_the_preset_says():
    robustness = {"noises": ["shot", "impulse"], "seed": 3, "lambdas": [0.1, 0.7], "test_images": 40}
    adversarial = {"linf": 4, "l2": 0.25, "paper_images": 11, "images": 10, "lambdas": [0.3], "steps": 6, "restarts": 7}
    adversarial |= {"autoattack": ["apgd-ce", "square"], "autoattack_images": 8, "diagnostic_images": 9}
    preset = PRESET | {
        "datasets": {"digits": {"noise_scale": "imagenet", "noise_levels": "released"}},
        "robustness": robustness | {"calibration_images": 50, "variants": ["paper", "released"]},
        "adversarial": adversarial,
    }
    preset = Preset.model_validate(preset)
    run = plan.runs("tiny", preset, SITE)[0]
    assert arguments.noise_options(run, preset) == "--lambdas 0.1,0.7 --scale imagenet --noise-seed 3 --images 40"
    expected = "--levels released --calibration-images 50 --variants paper,released"
    assert arguments.calibration_options(run, preset) == expected
    common = "--lambdas 0.1,0.7 --linf 4 --l2 0.25 --noise shot"
    assert {name: arguments.attack_options(preset, name) for name in ("attack", "attack-adaptive", "diagnose")} == {
        "attack": f"{common} --images 11",
        "attack-adaptive": f"{common} --images 10 --steps 6 --restarts 7 --attack-lambdas 0.3"
        " --autoattack 'apgd-ce,square' --autoattack-images 8",
        "diagnose": f"{common} --images 9 --steps 6 --square",
    }
    assert catalogue.noises_of("figure_stability", "digits", preset) == ["shot"]


def test_images_against_the_undefended_network_are_of_the_same_data_set_and_seed():
    planned = {run.name: run for run in plan.runs("tiny", Preset.model_validate(PRESET), SITE)}
    for name, run in planned.items():
        undefended = planned[name.replace("sdnet18", "resnet18")] if "sdnet18" in name else None
        assert plan.undefended(run, [*planned.values()]) == undefended
        assert plan.undefended(run, [run]) is None


def test_a_noise_that_has_no_official_images_is_refused_before_any_job(monkeypatch):
    there = {f"{noise}_noise.npy": "" for noise in get_args(Noise) if noise != "speckle"}
    monkeypatch.setitem(cifar_c.ARCHIVES, "cifar10", cifar_c.Archive("CIFAR-10-C", there))
    for noises, refused in ((["gaussian", "speckle"], True), (["gaussian"], False)):
        images = {"digits": {}, "cifar10": {"noise_source": "official", "noises": noises}}
        preset = Preset.model_validate(PRESET | {"datasets": images})
        with pytest.raises(SettingsError, match="there is no official speckle") if refused else nullcontext():
            plan.runs("tiny", preset, SITE)


@pytest.mark.parametrize(("noise_source", "official"), [("auto", False), ("generated", False), ("official", True)])
def test_whether_noise_is_official_is_what_the_settings_say_and_no_matter_of_files(tmp_path, noise_source, official):
    """Or results would be out of date, or differ within a workflow, once another preset downloads CIFAR-10-C."""
    site = load_site(CONFIG | {"data_dir": str(tmp_path)})
    noisy = {name: {"noise_source": noise_source} for name in ("cifar10", "cifar100")}
    preset = Preset.model_validate(PRESET | {"datasets": {"digits": {}} | noisy})
    before = plan.runs("tiny", preset, site)
    (tmp_path / "cifar10-c").mkdir()
    assert plan.runs("tiny", preset, site) == before
    options = {run.dataset: arguments.noise_options(run, preset) for run in before}
    assert {dataset: "--official" in given for dataset, given in options.items()} == {
        "digits": False,
        "cifar10": official,
        "cifar100": official,
    }
    folders = {run.dataset: run.official_noise for run in before}
    assert [folders[name] for name in noisy] == [f"{tmp_path}/{name}-c" if official else None for name in noisy]
    assert not options["cifar10"].endswith("cifar10-c"), "where the files are is no part of what makes them anew"


def test_a_table_of_noise_shows_the_data_sets_that_have_such_noise_and_is_no_target_without_any():
    gaussian, shot = (Preset.model_validate(of("robustness", {"noises": [name]})) for name in ("gaussian", "shot"))
    assert set(targets_of(gaussian)) - set(targets_of(shot)) == {"table2"}
    digits_without = Preset.model_validate(of("noises", ["shot"], ("datasets", "digits")))
    assert "table2" in targets_of(digits_without)
    assert [catalogue.shows("table2", name, digits_without) for name in ("digits", "cifar10")] == [False, True]


def test_imported_runs_have_no_epochs():
    imported = plan.runs("tiny", Preset.model_validate(of("imported", True)), SITE)
    assert {run.spec["training"]["epochs"] for run in imported} == {0}


def test_every_run_of_the_shipped_presets_can_be_built():
    from sdnet.runs.network import build_model

    presets = load_presets(PROJECT / "config" / "presets")
    networks = {}
    for name, preset in presets.items():
        for run in plan.runs(name, preset, SITE):
            networks[run.dataset, json.dumps(run.spec["model"] | {"width": 16}, sort_keys=True)] = run.spec
    for (_, model), spec in networks.items():
        build_model(spec | {"model": json.loads(model)}, 10)
