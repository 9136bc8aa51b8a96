"""The environments in envs/ are the locked one."""

import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

PROJECT = Path(__file__).parents[1]
CONDA = yaml.safe_load((PROJECT / "envs/environment.yaml").read_text())
DESCRIPTION = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
LOCK = (PROJECT / "requirements.txt").read_text()


def requirements(lines) -> set[tuple[str, str, str]]:
    """Name, version and marker of each."""
    parsed = [Requirement(line) for line in lines]
    return {(r.name, str(r.specifier), str(r.marker or "")) for r in parsed}


def test_the_conda_environment_has_the_versions_of_the_lock():
    (by_pip,) = [entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict)]
    locked = re.findall(r"^([A-Za-z0-9][^\\\n]*)", LOCK, re.MULTILINE)
    assert len(locked) > 100
    assert requirements(by_pip) == requirements(locked)


def test_the_lock_is_of_one_version_with_hashes_each():
    blocks = re.split(r"^(?=[A-Za-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    assert [
        block.split()[0] for block in blocks if not re.match(r"[\w.-]+==\S+", block) or "--hash=sha256:" not in block
    ] == []


def test_everything_that_the_project_asks_for_is_in_the_lock():
    wanted = [*DESCRIPTION["dependencies"], *chain(*DESCRIPTION["optional-dependencies"].values())]
    locked = {name.lower(): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", LOCK, re.MULTILINE)}
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(locked[requirement.name.lower()]), requirement


@pytest.mark.parametrize(
    "version",
    [
        CONDA["dependencies"][0].split("=")[1],
        re.search("python:([0-9.]+)", (PROJECT / "envs/Dockerfile").read_text())[1],
    ],
)
def test_the_environments_run_a_python_that_the_project_allows(version):
    assert SpecifierSet(DESCRIPTION["requires-python"]).contains(version)


def test_the_container_copies_files_that_exist():
    copied = re.findall(r"^COPY (.*) \S+$", (PROJECT / "envs/Dockerfile").read_text(), re.MULTILINE)
    assert copied
    assert [name for line in copied for name in line.split() if not (PROJECT / name).exists()] == []
