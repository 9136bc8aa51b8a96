"""A run's spec.json: what it must hold, and what a wrong one is answered with."""

import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from small_run import edited, make_spec

from sdnet.__main__ import cli
from sdnet.runs.spec import read_spec

pytestmark = pytest.mark.usefixtures("untracked")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__name": "resnet19"}, r".*spec\.json: model\.name: given 'resnet19' \(str\); .*'sdnet34-all'.*"),
        ({"model__width": 0}, r".*spec\.json: model\.width: given 0 \(int\); .*greater than 0"),
        ({"model__name": "mdeq"}, r".*spec\.json: model\.width: given 4; mdeq on digits needs a multiple of 16"),
        ({"model__options": {"foo": 1}}, r".*spec\.json: model\.options: unknown key 'foo'; allowed are lmbd, .*"),
        ({"model__options": {"lmbd": "x"}}, r".*: model\.options\.lmbd: given 'x' \(str\); .*valid number"),
        (
            {"model": {"name": "scn", "width": 4, "options": {"lmbd": 0.1}}},
            r".*spec\.json: model\.options: given lmbd for scn; only the sdnet models have options",
        ),
        ({"dataset__name": ["digits"]}, r".*spec\.json: dataset\.name: given \['digits'\] \(list\); .*'cifar10'.*"),
        ({"dataset__image_size": 9999}, r".*spec\.json: dataset\.image_size: given 9999; digits has a size of its own"),
        ({"training__epochs": -1}, r".*spec\.json: training\.epochs: given -1 \(int\); .*greater than or equal to 0"),
        ({"training__batch_size": 0}, r".*spec\.json: training\.batch_size: given 0 \(int\); .*greater than 0"),
        ({"training__learning_rate": "0.1"}, r".*: training\.learning_rate: given '0\.1' \(str\); .*valid number"),
        ({"training__optimizer": "lbfgs"}, r".*spec\.json: training\.optimizer: given 'lbfgs' \(str\); .*'adam'"),
        ({"seed": "x"}, r".*spec\.json: seed: given 'x' \(str\); .*valid integer"),
        (
            {"training__lr": 0.1},
            r".*spec\.json describes no run: missing or unknown keys training\.lr; give a run's folder, such as .*",
        ),
        ({"colour": "red"}, r".*spec\.json describes no run: missing or unknown keys colour; give a run's folder.*"),
        ({"model": {}}, r".*missing or unknown keys model\.name, model\.options, model\.width; give a run's folder.*"),
        ({"dataset__train_images": 5000}, r"subset: 5000 train images asked for; there are 1437.*"),
        ({"training__learning_rate": 1e30}, r"the loss or a weight is not finite at epoch 1, step \d of 3 .*try.*"),
    ],
)
def test_a_spec_edited_wrongly_is_refused_in_one_sentence(tmp_path, error_of, changes, message):
    spec = edited(make_spec(tmp_path / "run"), **changes)
    assert re.fullmatch(message, error_of("train", spec, "--gpus", 0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__name": "resnet19"}, r"unknown model 'resnet19'; the models are resnet18, .*sdnet34-all.*"),
        ({"dataset__name": "mnist"}, r".*spec\.json: dataset\.name is 'mnist'; choose one of cifar10, .*"),
        ({"training__optimizer": "lbfgs"}, "optimizer 'lbfgs' is unknown; choose sgd or adam"),
        ({"training__schedule": "linear"}, "schedule 'linear' is unknown; choose cosine or multistep"),
        ({"training__precision": "float16"}, "precision 'float16' is unknown; choose float32 or bfloat16"),
    ],
)
def test_unknown_names_in_a_spec_are_refused_without_pydantic_too(tmp_path, error_of, monkeypatch, changes, message):
    monkeypatch.setitem(sys.modules, "sdnet.experiments.settings.loading", None)
    spec = edited(make_spec(tmp_path / "run"), **changes)
    assert re.fullmatch(message, error_of("train", spec, "--gpus", 0))


def test_every_shipped_preset_makes_specs_that_are_read(tmp_path):
    from sdnet.experiments import plan
    from sdnet.experiments.settings.files import read_yaml
    from sdnet.experiments.settings.loading import load_presets, load_site

    config = Path(__file__).parents[1] / "config"
    for split in ("train", "val"):
        (tmp_path / "images" / split).mkdir(parents=True)
    site = load_site(read_yaml(config / "config.yaml") | {"imagenet_root": str(tmp_path / "images")})
    spec = tmp_path / "spec.json"
    for name, preset in load_presets(config / "presets").items():
        for run in plan.runs(name, preset, site):
            spec.write_text(run.spec_json)
            assert read_spec(spec) == run.spec, run.name


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"3"])
def test_a_file_that_is_no_spec_is_refused_with_the_remedy(tmp_path, error_of, content):
    spec = tmp_path / "spec.json"
    spec.write_bytes(content)
    message = error_of("train", spec)
    assert message.startswith(f"{spec} ")
    assert message.endswith("; give a run's folder, such as results/quick/runs/digits/sdnet18/seed0")


@pytest.mark.parametrize("preset", ["", "quick/"])
def test_a_broken_spec_of_the_workflow_names_the_command_that_makes_it_anew(tmp_path, error_of, monkeypatch, preset):
    monkeypatch.chdir(tmp_path)
    folder = Path(f"results/{preset}runs/digits/sdnet18/seed0")
    folder.mkdir(parents=True)
    remedy = f"; it is made anew with: snakemake --force {folder}/spec.json"
    assert error_of("evaluate", folder).endswith(f"is not there{remedy}")
    (folder / "spec.json").write_text("{")
    assert error_of("train", folder).endswith(remedy)


@pytest.mark.parametrize("command", ["evaluate", "train", "benchmark-loop"])
def test_a_folder_without_a_spec_is_named(tmp_path, error_of, command):
    assert error_of(command, tmp_path).startswith(f"{tmp_path}/spec.json is not there; give a run's folder")


def test_a_run_is_trained_and_measured_by_its_spec_or_its_folder(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr("sdnet.commands.train.train", lambda spec, *others: given.append(spec))
    monkeypatch.setattr("sdnet.commands.benchmark.benchmark", lambda specs, *others: given.extend(specs))
    spec = make_spec(tmp_path / "run")
    for run in (spec, spec.parent):
        for arguments in (["train", run], ["benchmark", run, "--out", "benchmark.csv"]):
            assert CliRunner().invoke(cli, [*map(str, arguments)]).exit_code == 0
    assert given == [spec] * 4
