"""Where the project is, and which preset a results folder belongs to."""

import os
from pathlib import Path

from sdnet.experiments import places
from sdnet.experiments.settings.files import PRESETS, project
from sdnet.experiments.settings.loading import load_preset, preset_files
from sdnet.experiments.settings.preset import Preset


def project_folder() -> Path:
    """The project's folder, from wherever in it a notebook was opened.

    Raises:
        FileNotFoundError: if neither the working directory nor one above it is the project.
    """
    folder = project().resolve()
    if not (folder / PRESETS).is_dir():
        raise FileNotFoundError(f"{Path.cwd()} is not inside the project's folder; work there")
    return folder


def results_folder(given: str) -> Path:
    """A results folder, named from the project's folder: `results` or `results/<preset>`."""
    return Path(os.path.normpath(project_folder() / given))


def typed_folder(given: Path) -> tuple[Path, str]:
    """A preset's results folder, however it was typed: below the project's folder, and named from there.

    Raises:
        ValueError: if it is none.
    """
    name, _ = named_preset(given)
    typed = places.results_of(name)
    return project_folder() / typed, typed


def preset_of(folder: Path) -> Preset:
    """The preset whose results folder this is."""
    return named_preset(folder)[1]


def named_preset(folder: Path) -> tuple[str, Preset]:
    """The preset whose results folder this is, behind its name; the folder, or the project's, may be a link."""
    presets = project_folder() / PRESETS
    names = {os.path.realpath(project_folder() / places.results_of(name)): name for name in preset_files(presets)}
    name = names.get(os.path.realpath(folder))
    if name is None:
        known = ", ".join(map(places.results_of, names.values()))
        raise ValueError(f"{folder} is no preset's results folder; choose one of {known}")
    return name, load_preset(name, presets)
