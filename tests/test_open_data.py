"""Where a command looks for the images of a run."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from small_run import edited, make_spec

from sdnet.__main__ import main
from sdnet.experiments.settings.files import image_folder
from sdnet.runs.images import folder_source

pytestmark = pytest.mark.usefixtures("untracked")


def test_missing_data_are_named_with_the_command_that_fetches_them(tmp_path, error_of, monkeypatch):
    monkeypatch.setenv("SDNET_DATA_DIR", str(tmp_path / "nowhere"))
    spec = edited(make_spec(tmp_path / "run"), dataset__name="cifar10")
    message = error_of("train", spec, "--gpus", 0)
    assert f"there is no file {tmp_path}/nowhere/cifar10.npz" in message
    assert "snakemake data/cifar10.npz" in message
    assert f"there is no file {tmp_path}/other.npz" in error_of("train", spec, "--data", tmp_path / "other.npz")


def test_a_path_of_digits_is_refused_and_not_ignored(tmp_path, error_of):
    message = error_of("train", make_spec(tmp_path / "run"), "--data", tmp_path, "--gpus", 0)
    assert message == f"--data: given {tmp_path}; the digits come with scikit-learn, leave it out"


@pytest.mark.parametrize("name", ["imagenet", "folder"])
def test_a_folder_that_is_not_configured_is_asked_for(tmp_path, error_of, monkeypatch, name):
    monkeypatch.delenv(f"SDNET_{name.upper()}_ROOT", raising=False)
    spec = edited(make_spec(tmp_path / "run"), dataset__name=name)
    assert f"set {name}_root in config/config.yaml, or give --data" in error_of("train", spec, "--gpus", 0)


def test_images_are_looked_for_where_the_variable_or_else_the_config_file_says(tmp_path, bare, error_of, monkeypatch):
    """The file is read in a process of its own, which has no pydantic."""
    spec = edited(make_spec(tmp_path / "run"), dataset__name="cifar10")
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text("data_dir: of-the-file\n")
    unset = {name: value for name, value in bare.items() if name != "SDNET_DATA_DIR"}
    command = [sys.executable, "-m", "sdnet", "train", str(spec), "--gpus", "0"]
    done = subprocess.run(command, env=unset, cwd=tmp_path, capture_output=True, text=True)
    assert "there is no file of-the-file/cifar10.npz" in done.stderr
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDNET_DATA_DIR", "of-the-variable")
    assert "there is no file of-the-variable/cifar10.npz" in error_of("train", spec, "--gpus", 0)


def test_a_root_is_that_of_the_config_file_unless_the_variable_says_that_there_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SDNET_IMAGENET_ROOT", raising=False)
    assert image_folder("imagenet_root") is None
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text("imagenet_root: /images\n")
    assert image_folder("imagenet_root") == Path("/images")
    monkeypatch.setenv("SDNET_IMAGENET_ROOT", "")
    assert image_folder("imagenet_root") is None


def test_below_the_project_its_settings_and_folders_are_found(tmp_path, monkeypatch):
    (tmp_path / "config" / "presets").mkdir(parents=True)
    (tmp_path / "config/config.yaml").write_text("data_dir: images\nimagenet_root: /images\n")
    (tmp_path / "results/quick").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "results/quick")
    for name in ("SDNET_DATA_DIR", "SDNET_IMAGENET_ROOT"):
        monkeypatch.delenv(name, raising=False)
    assert image_folder("data_dir") == Path("../../images")
    assert image_folder("imagenet_root") == Path("/images")


@pytest.mark.parametrize(("name", "write"), [("cifar10", "cifar.convert"), ("cifar10-c", "cifar_c.extract")])
def test_a_data_set_is_downloaded_to_where_commands_look_for_it(tmp_path, monkeypatch, name, write):
    monkeypatch.setenv("SDNET_DATA_DIR", str(tmp_path))
    fetched, written = [], []
    monkeypatch.setattr("sdnet.commands.data.fetch", lambda *given: fetched.append(given))
    monkeypatch.setattr(f"sdnet.commands.data.{write}", lambda *given: written.append(given))
    monkeypatch.setattr(sys, "argv", ["sdnet", "data", name, "--url", "file:///x", "--checksum", "md5:0"])
    main()
    assert [given[:2] for given in fetched] == [(["file:///x"], "md5:0")]
    assert (tmp_path / (name if name.endswith("-c") else f"{name}.npz")) in written[0]


def test_an_imagenet_with_all_its_images_and_classes_is_the_official_one():
    synsets = [f"n{number:08}" for number in range(1000)]
    train_, val = (SimpleNamespace(classes=synsets, samples=range(n)) for n in (1_281_167, 50_000))
    assert folder_source("imagenet", train_, "train") == "official"
    assert folder_source("imagenet", val, "val") == "official"
    assert folder_source("folder", val, "val") == "local folder of 1000 classes"
    part = SimpleNamespace(classes=synsets, samples=range(49_999))
    renamed = SimpleNamespace(classes=["cat", *synsets[1:]], samples=range(50_000))
    for other in (part, renamed, train_):
        assert folder_source("imagenet", other, "val") == "local folder of 1000 classes"
