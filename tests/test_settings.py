"""Settings: what is wrong is refused before any job runs, in one sentence that says where and what is allowed."""

import re
from pathlib import Path
from typing import get_args

import pytest
import torch
import yaml

from sdnet.experiments import labels
from sdnet.experiments.plan import IMAGENET_C_SIZE
from sdnet.experiments.settings.datasets import NUMBER_OF_IMAGES
from sdnet.experiments.settings.files import SettingsError, data_dir, read_yaml
from sdnet.experiments.settings.loading import load_presets, load_site
from sdnet.experiments.settings.names import DatasetName, ModelName
from sdnet.experiments.settings.networks import WIDTHS, check_width

PROJECT = Path(__file__).parents[1]
TINY = """\
description: tiny
width: 4
seeds: [0]
datasets:
  digits: {}
systems:
  sdnet18: {model: sdnet18}
recipes:
  default: {}
"""
CHECKSUM = "md5:" + "0" * 32


def refused(folder, text, name="tiny"):
    """The message that a preset file is refused with."""
    (folder / f"{name}.yaml").write_text(text)
    with pytest.raises(SettingsError) as error:
        load_presets(folder)
    return str(error.value)


def changed(old, new):
    assert TINY.count(old) == 1
    return TINY.replace(old, new)


RECIPE, DIGITS, SYSTEM = "default: {}", "digits: {}", "model: sdnet18}"

UNKNOWN_KEYS = {
    "at the top": (TINY + "frobnicate: 1\n", "", "frobnicate", "width"),
    "of a data set": (changed(DIGITS, "digits: {sise: 3}"), "datasets.digits", "sise", "train_images"),
    "of a network": (changed(SYSTEM, "model: sdnet18, wdth: 3}"), "systems.sdnet18", "wdth", "options"),
    "of its options": (changed(SYSTEM, "model: sdnet18, options: {lambda: 1}}"), "sdnet18.options", "lambda", "lmbd"),
    "of a recipe": (changed(RECIPE, "default: {lr: 0.1}"), "recipes.default", "lr", "learning_rate"),
    "of robustness": (TINY + "robustness: {lambda: [1]}\n", "robustness", "lambda", "lambdas"),
}


@pytest.mark.parametrize("where", UNKNOWN_KEYS)
def test_an_unknown_key_is_named_with_its_place_and_what_is_allowed(tmp_path, where):
    text, path, key, allowed = UNKNOWN_KEYS[where]
    message = refused(tmp_path, text)
    assert re.fullmatch(rf".*tiny\.yaml: ([\w.]*{path}: )?unknown key '{key}'; allowed are .*\b{allowed}\b.*", message)


# What is put in place of a part of TINY; the key's path, what was given, what is allowed.
WRONG_VALUES = {
    "a number in letters": (RECIPE, "default: {epochs: ten}", "recipes.default.epochs", "'ten'", "valid integer"),
    "YAML's text 5e-4": (RECIPE, "default: {weight_decay: 5e-4}", "recipes.default.weight_decay", "'5e-4'", "number"),
    "half an epoch": (RECIPE, "default: {epochs: 10.5}", "recipes.default.epochs", "10.5", "valid integer"),
    "yes for a number": (RECIPE, "default: {epochs: yes}", "recipes.default.epochs", "True", "valid integer"),
    "a number for yes": (RECIPE, "default: {nesterov: 1}", "recipes.default.nesterov", "1", "valid boolean"),
    "no epochs": (RECIPE, "default: {epochs: 0}", "recipes.default.epochs", "0", "greater than 0"),
    "no batch": (RECIPE, "default: {batch_size: -1}", "recipes.default.batch_size", "-1", "greater than 0"),
    "no learning": (RECIPE, "default: {learning_rate: 0}", "recipes.default.learning_rate", "0", "greater than 0"),
    "infinity": (RECIPE, "default: {learning_rate: .inf}", "recipes.default.learning_rate", "inf", "finite"),
    "not a number": (RECIPE, "default: {weight_decay: .nan}", "recipes.default.weight_decay", "nan", "finite|greater"),
    "momentum beyond 1": (RECIPE, "default: {momentum: 1.5}", "recipes.default.momentum", "1.5", "less than 1"),
    "milestones in epochs": (RECIPE, "default: {milestones: [30]}", "default.milestones.0", "30", "less than 1"),
    "a milestone alone": (RECIPE, "default: {milestones: 0.3}", "recipes.default.milestones", "0.3", "list"),
    "an unknown schedule": (RECIPE, "default: {schedule: step}", "default.schedule", "'step'", "cosine.*multistep"),
    "an unknown optimizer": (RECIPE, "default: {optimizer: lbfgs}", "default.optimizer", "'lbfgs'", "sgd.*adam"),
    "an unknown precision": (RECIPE, "default: {precision: fp16}", "default.precision", "'fp16'", "bfloat16.*float32"),
    "an empty recipe": (RECIPE, "default:", "recipes.default", "None", "."),
    "no seed": ("[0]", "[]", "seeds", r"\[\]", "at least 1"),
    "a seed alone": ("[0]", "3", "seeds", "3", "list"),
    "a seed twice": ("[0]", "[1, 1]", "seeds", r"\[1, 1\]", "distinct"),
    "a negative seed": ("[0]", "[-1]", "seeds.0", "-1", "greater than or equal to 0"),
    "more seeds without a seed": ("[0]", "[0]\nmore_seeds: {sdnet18: []}", "more_seeds.sdnet18", r"\[\]", "at least 1"),
    "no width": ("width: 4", "width: 0", "width", "0", "greater than 0"),
    "an unknown data set": (DIGITS, "mnist: {}", "datasets.mnist", "'mnist'", "digits.*cifar10.*imagenet"),
    "no image": (DIGITS, "digits: {train_images: 0}", "datasets.digits.train_images", "0", "greater than 0"),
    "images in letters": (DIGITS, "digits: {test_images: all}", "datasets.digits.test_images", "'all'", "integer"),
    "no GPU": (DIGITS, "digits: {gpus: 0}", "datasets.digits.gpus", "0", "greater than 0"),
    "an unknown model": (SYSTEM, "model: sdnet17}", "systems.sdnet18.model", "'sdnet17'", "resnet18.*sdnet34"),
    "no option": (SYSTEM, "model: sdnet18, options: {n_iter: 0}}", "sdnet18.options.n_iter", "0", "greater than 0"),
    "lambda below 0": (SYSTEM, "model: sdnet18, options: {lmbd: -1}}", "sdnet18.options.lmbd", "-1", "greater than or"),
    "a name unfit for a path": ("sdnet18: {", "../SDNet: {", r"systems.*SDNet", "'../SDNet'", "a-z0-9"),
}


@pytest.mark.parametrize("mistake", WRONG_VALUES)
def test_a_wrong_value_is_refused_with_file_key_given_and_allowed(tmp_path, mistake):
    old, new, path, given, allowed = WRONG_VALUES[mistake]
    message = refused(tmp_path, changed(old, new))
    assert re.fullmatch(rf".*tiny\.yaml: [\w.]*{path}: given {given} \(\w+\); .*({allowed}).*", message), message


@pytest.mark.parametrize("key", ["description", "width", "seeds", "datasets", "systems", "recipes"])
def test_a_missing_key_is_named(tmp_path, key):
    values = yaml.safe_load(TINY)
    del values[key]
    assert refused(tmp_path, yaml.safe_dump(values)).endswith(f"tiny.yaml: {key}: is missing and has no default")


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        (DIGITS, "digits: {recipe: imagenet}", "datasets.digits.recipe"),
        (SYSTEM, "model: sdnet18, recipe: imagenet}", "systems.sdnet18.recipe"),
    ],
)
def test_an_unknown_recipe_is_refused_with_the_ones_there_are(tmp_path, old, new, path):
    message = refused(tmp_path, changed(old, new))
    assert re.fullmatch(rf".*tiny\.yaml: {path} is 'imagenet'; allowed are default", message)


@pytest.mark.parametrize(
    ("system", "message"),
    [
        (
            "sdnet18: {model: sdnet34}",
            "systems.sdnet18: given model sdnet34; under this name tables and claims mean SDNet-18, model sdnet18: "
            "give it another name",
        ),
        (
            "sdnet18: {model: sdnet18, options: {n_iter: 8}}",
            "given n_iter 8; under this name tables and claims mean SDNet-18, n_iter 2: give",
        ),
        (
            "sdnet18-iter8: {model: sdnet18, options: {n_iter: 4}}",
            "given n_iter 4; under this name tables and claims mean SDNet-18, 8 iterations, n_iter 8: give",
        ),
        ("sdnet18: {model: sdnet18, options: {lmbd: 0.2}}", "given lmbd 0.2; under this name"),
        ("sdnet18-nonnegative: {model: sdnet18}", "given nonnegative false;"),
        ("sdnet18-all-plain: {model: sdnet18-all}", "given shortcut true;"),
    ],
)
def test_a_name_of_the_tables_stands_for_its_own_network_alone(tmp_path, system, message):
    assert message in refused(tmp_path, changed("sdnet18: {model: sdnet18}", system))


def test_a_name_of_one_s_own_stands_for_any_network(tmp_path):
    for system in (
        "mine: {model: sdnet18, options: {n_iter: 8}}",
        "sdnet18-iter3: {model: sdnet18, options: {n_iter: 3}}",
    ):
        (tmp_path / "tiny.yaml").write_text(changed("sdnet18: {model: sdnet18}", system))
        assert load_presets(tmp_path)["tiny"].systems


def test_a_label_of_one_s_own_makes_its_name_none_of_the_tables(tmp_path, monkeypatch):
    for name in ("sdnet18-iter16", "mine"):
        monkeypatch.setitem(labels.SYSTEMS, name, "mine")
        system = f"{name}: {{model: sdnet18, options: {{n_iter: 16}}}}"
        (tmp_path / "tiny.yaml").write_text(changed("sdnet18: {model: sdnet18}", system))
        assert name in load_presets(tmp_path)["tiny"].systems


def test_more_gpus_than_images_in_a_batch_are_refused(tmp_path):
    message = refused(tmp_path, changed(DIGITS, "digits: {gpus: 129}"))
    assert message.endswith("datasets.digits.gpus: given 129; must be at most the batch size, 128")


def test_noises_of_a_data_set_are_some_of_all(tmp_path):
    message = refused(
        tmp_path, changed(DIGITS, "digits: {noises: [gaussian, shot]}") + "robustness: {noises: [gaussian]}"
    )
    assert message.endswith("datasets.digits.noises: given shot; allowed are those of robustness.noises: gaussian")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{resnet18: [1]}", "more_seeds: given 'resnet18'; allowed are sdnet18"),
        ("{sdnet18: [0, 1]}", r"more_seeds\.sdnet18: given \[0, 1\]; must be distinct, and none of seeds"),
        ("{sdnet18: [2, 2]}", r"more_seeds\.sdnet18: given \[2, 2\]; must be distinct, and none of seeds"),
    ],
)
def test_more_seeds_are_of_a_network_that_there_is_and_are_others(tmp_path, given, message):
    assert re.fullmatch(rf".*tiny\.yaml: {message}", refused(tmp_path, TINY + f"more_seeds: {given}\n"))


def test_every_mistake_is_told_each_on_its_line(tmp_path):
    lines = refused(tmp_path, changed("width: 4", "width: 0").replace("[0]", "[]")).splitlines()
    assert [re.search(r"tiny\.yaml: (\w+):", line)[1] for line in lines] == ["width", "seeds"]


@pytest.mark.parametrize("content", ["", "# nothing yet\n", "- a\n- b\n", "description", "3"])
def test_a_file_that_is_no_table_is_refused(tmp_path, content):
    message = refused(tmp_path, content)
    assert re.fullmatch(r".*tiny\.yaml holds \w+; it must be a table of keys and values", message)


@pytest.mark.parametrize("content", [TINY + "seeds: [1,\n", TINY + "\twidth: 8\n", TINY + "a: b: c\n", "\x00"])
def test_broken_yaml_is_refused_in_one_line(tmp_path, content):
    message = refused(tmp_path, content)
    assert re.fullmatch(r".*tiny\.yaml is not valid YAML: .+", message)


def test_a_file_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "tiny.yaml").write_bytes(TINY.replace("tiny", "winzig, für Anfänger").encode("latin-1"))
    with pytest.raises(SettingsError, match=r"tiny\.yaml is not valid YAML"):
        load_presets(tmp_path)


def test_a_missing_file_and_a_folder_without_presets_are_named(tmp_path):
    with pytest.raises(SettingsError, match=r"none\.yaml does not exist"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(SettingsError, match="holds no preset"):
        load_presets(tmp_path)


def test_what_an_editor_or_a_mac_hides_beside_a_preset_is_none(tmp_path):
    (tmp_path / "mine.yaml").write_text(TINY)
    (tmp_path / ".#mine.yaml").symlink_to("me@host.1234:1")
    (tmp_path / "._mine.yaml").write_bytes(b"\0\5\x16\7")
    assert list(load_presets(tmp_path)) == ["mine"]


def test_a_preset_whose_name_is_no_target_is_refused(tmp_path):
    (tmp_path / "My preset.yaml").write_text(TINY)
    with pytest.raises(
        SettingsError, match=r"My preset\.yaml: a preset's name may have letters, digits, - and _ alone"
    ):
        load_presets(tmp_path)


@pytest.mark.parametrize("given", ["nothing", "tiny", "loop", "[other]", "{other: 1}", "3"])
def test_an_extends_that_leads_nowhere_or_in_a_circle_is_refused(tmp_path, given):
    (tmp_path / "other.yaml").write_text(TINY)
    (tmp_path / "loop.yaml").write_text(TINY + "extends: tiny\n")
    message = refused(tmp_path, TINY + f"extends: {given}\n")
    assert len(message.splitlines()) == 1
    assert re.search(r"(tiny|loop)\.yaml: extends: given .*; allowed are (loop, )?other", message)


def test_a_preset_replaces_whole_keys_of_the_one_it_extends(tmp_path):
    (tmp_path / "parent.yaml").write_text(TINY + "extends: null\n")
    (tmp_path / "child.yaml").write_text(
        "extends: parent\ndescription: child\nrecipes: {default: {epochs: 3}}\nseeds: [5]\n"
        "systems: {resnet18: {model: resnet18}}\n"
    )
    (tmp_path / "grandchild.yaml").write_text("extends: child\nrecipes: {default: {batch_size: 7}}\n")
    presets = load_presets(tmp_path)
    parent, child, grandchild = presets["parent"], presets["child"], presets["grandchild"]
    assert list(child.systems) == ["resnet18"], "a table is replaced, not merged"
    assert child.seeds == [5]
    assert (child.width, child.datasets) == (parent.width, parent.datasets)
    assert grandchild.recipes["default"].batch_size == 7
    assert grandchild.recipes["default"].epochs == 220, "nothing of the child's recipe is left"
    assert grandchild.systems == child.systems
    assert parent.recipes["default"].epochs == 220


def test_settings_cannot_be_changed_once_read(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    with pytest.raises(ValueError, match="frozen"):
        load_presets(tmp_path)["tiny"].width = 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dat_dir": "x"}, r"unknown key 'dat_dir'; allowed are data_dir, .*"),
        ({"data_dir": 3}, r"data_dir: given 3 \(int\); .*string"),
        ({"mlflow_uri": None}, r"mlflow_uri: given None .*string"),
        ({"mlflow_uri": "mlruns"}, r"mlflow_uri: given 'mlruns' \(str\); must be a server .*"),
        ({"data_dir": "$NOWHERE/x"}, r"data_dir: given '\$NOWHERE/x' \(str\); .*variable that is not set.*"),
        ({"imagenet_root": False}, r"imagenet_root: given False \(bool\); .*string"),
        ({"downloads": {"svhn": {"urls": ["https://a"], "checksum": CHECKSUM}}}, r"downloads\.svhn: .*'cifar10'.*"),
        ({"downloads": {"cifar10": {"urls": [], "checksum": CHECKSUM}}}, r"downloads\.cifar10\.urls: given \[\] .*"),
        (
            {"downloads": {"cifar10": {"urls": ["https://a"], "checksum": "crc:1"}}},
            r"downloads\.cifar10\.checksum: given 'crc:1' \(str\); .*md5:.*sha256:.*",
        ),
    ],
)
def test_a_wrong_site_setting_is_refused_in_one_sentence(change, message):
    values = read_yaml(PROJECT / "config" / "config.yaml") | change
    with pytest.raises(SettingsError) as error:
        load_site(values)
    assert re.fullmatch(f"config/config.yaml: {message}", str(error.value))


def test_a_preset_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "tiny.yaml").mkdir()
    with pytest.raises(SettingsError, match=r"tiny\.yaml cannot be read: Is a directory; make it a file"):
        load_presets(tmp_path)


def test_settings_are_utf_8_in_every_locale(tmp_path, monkeypatch):
    (tmp_path / "x.yaml").write_bytes("word: λ".encode())
    monkeypatch.setattr("io.text_encoding", lambda encoding, *_: encoding or "latin-1")
    assert read_yaml(tmp_path / "x.yaml") == {"word": "λ"}


def test_a_folder_is_found_as_a_shell_would_find_it(monkeypatch):
    monkeypatch.setenv("SCRATCH", "/scratch/me/")
    monkeypatch.setenv("HOME", "/home/me")
    site = load_site(
        read_yaml(PROJECT / "config" / "config.yaml") | {"data_dir": "$SCRATCH/data", "imagenet_root": "~/images/"}
    )
    assert (site.data_dir, site.imagenet_root) == ("/scratch/me/data", "/home/me/images")
    monkeypatch.setenv("SDNET_DATA_DIR", "${SCRATCH}data")
    assert str(data_dir()) == "/scratch/me/data"


def test_the_shipped_settings_load():
    load_site(read_yaml(PROJECT / "config" / "config.yaml"))
    assert {"paper", "short", "small", "quick"} <= set(load_presets(PROJECT / "config" / "presets"))


def test_the_paper_preset_holds_the_numbers_of_section_4():
    paper = load_presets(PROJECT / "config" / "presets")["paper"]
    assert paper.width == 64
    assert len(paper.seeds) == 3
    assert {"cifar10", "cifar100", "imagenet"} <= set(paper.datasets)
    both = {"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
    cifar = both | {"epochs": 220, "batch_size": 128, "schedule": "cosine"}
    imagenet = both | {"epochs": 100, "batch_size": 512, "schedule": "multistep"}
    for dataset, expected in {"cifar10": cifar, "cifar100": cifar, "imagenet": imagenet}.items():
        recipe = paper.recipes[paper.datasets[dataset].recipe]
        assert {key: getattr(recipe, key) for key in expected} == expected
        if dataset == "imagenet":
            assert [milestone * recipe.epochs for milestone in recipe.milestones] == pytest.approx([30, 60, 90])
    assert paper.datasets["imagenet"].gpus == 4
    for system in ("resnet18", "resnet34", "sdnet18", "sdnet34"):
        assert paper.systems[system].model == system
        assert paper.systems[system].recipe is None, "the recipe of the data set"
        options = paper.systems[system].options
        assert (options.lmbd, options.n_iter, options.nonnegative) == (0.1, 2, False)


def test_the_settings_know_the_models_and_data_sets_that_there_are():
    from sdnet.data.datasets import INFO
    from sdnet.models import MODELS

    assert set(get_args(ModelName)) == set(MODELS)
    assert set(get_args(DatasetName)) == set(INFO)


def test_the_settings_know_how_many_images_there_are_and_how_large():
    from sdnet.data.cifar import IMAGES_PER_SPLIT
    from sdnet.data.imagenet_c import SIZE
    from sdnet.runs.images import IMAGENET_IMAGES

    counts = {name: list(of.values()) for name, of in NUMBER_OF_IMAGES.items()}
    assert counts["cifar10"] == counts["cifar100"] == list(IMAGES_PER_SPLIT.values())
    assert counts["imagenet"] == list(IMAGENET_IMAGES.values())
    assert IMAGENET_C_SIZE == SIZE


def refuses(function, *arguments, **options):
    try:
        function(*arguments, **options)
    except ValueError:
        return True
    return False


def test_the_settings_know_the_widths_that_each_model_can_have():
    from sdnet.data.datasets import INFO
    from sdnet.models import MODELS, build

    for model in MODELS:
        for dataset in ("digits", "cifar10"):
            for width in (4, 6, 8, 16, 24, 36, 40, 48, 64, 108, 112) if model in WIDTHS else (1, 3):
                with torch.device("meta" if model in WIDTHS else "cpu"):  # without memory; step sizes need some
                    refused = refuses(build, model, 10, width=width, in_channels=INFO[dataset].channels)
                assert refuses(check_width, "width", width, model, dataset) == refused, (model, dataset, width)


def test_a_width_need_not_fit_a_network_that_is_trained_on_none_of_the_data_sets(tmp_path):
    (tmp_path / "tiny.yaml").write_text(changed(SYSTEM, "model: sdnet18}\n  mdeq: {model: mdeq, datasets: [cifar10]}"))
    assert load_presets(tmp_path)["tiny"].width == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            changed(SYSTEM, "model: sdnet18}\n  mdeq: {model: mdeq}"),
            "tiny.yaml: width: given 4; mdeq on digits needs a multiple of 16",
        ),
        (
            changed("sdnet18: {model: sdnet18}", "scn: {model: scn}").replace("width: 4", "width: 64"),
            "tiny.yaml: width: given 64; scn on digits needs a multiple of 4, at most 36",
        ),
        (changed(RECIPE, "default: {schedule: multistep}"), r"milestones: given \[\] with schedule multistep"),
        (changed(RECIPE, "default: {milestones: [0.5]}"), r"given \[0.5\] with schedule cosine"),
        (changed(RECIPE, "default: {momentum: 0.0}"), "nesterov: given true with momentum 0"),
        (changed(SYSTEM, "model: resnet18, options: {n_iter: 4}}"), "options: given n_iter for resnet18"),
        (changed(DIGITS, "digits: {image_size: 224}"), "digits has a size of its own"),
        (
            changed(DIGITS, "digits: {train_images: 2000}"),
            "datasets.digits.train_images: given 2000; must be at most 1437",
        ),
        (changed(DIGITS, "digits: {test_images: 400}"), "datasets.digits.test_images: given 400; must be at most 360"),
        (TINY + "width: 8\n", "tiny.yaml is not valid YAML: width is given twice"),
        (changed(RECIPE, "default: {weight_decay: 5e-4}"), "write it with a point, as in 5.0e-4"),
        (changed(DIGITS, "digits:"), "write {} for its defaults"),
        (TINY + "robustness: {lambdas: [0.5, 0.1]}\n", "ascending"),
        (TINY + "robustness: {noises: [fog]}\n", "'gaussian'"),
        (TINY + "robustness: {variants: [squared]}\n", "must contain paper"),
        (
            TINY + "robustness: {lambdas: [0.2, 0.5]}\n",
            r"given \[0.2, 0.5\]; must contain 0.1, which systems.sdnet18",
        ),
        (
            changed("sdnet18: {model: sdnet18}", "mine: {model: sdnet18, options: {lmbd: 0.25}}"),
            "must contain 0.25, which systems.mine is",
        ),
    ],
)
def test_values_that_do_not_go_together_are_refused_in_one_sentence(tmp_path, text, message):
    said = refused(tmp_path, text)
    assert re.search(message, said), said
    assert "\n" not in said


def test_a_lambda_of_training_may_be_0_and_need_not_be_tried_where_no_network_has_one(tmp_path):
    at_0 = changed("sdnet18: {model: sdnet18}", "mine: {model: sdnet18, options: {lmbd: 0}}")
    at_0 += "robustness: {lambdas: [0, 0.5]}\n"
    none = changed("sdnet18: {model: sdnet18}", "resnet18: {model: resnet18}") + "robustness: {lambdas: [0.2, 0.5]}\n"
    for name, text in {"at_0": at_0, "none": none}.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    assert set(load_presets(tmp_path)) == {"at_0", "none"}


def test_every_download_must_be_there():
    values = read_yaml(PROJECT / "config" / "config.yaml")
    del values["downloads"]["cifar10"]
    with pytest.raises(SettingsError, match="downloads: cifar10 missing"):
        load_site(values)
