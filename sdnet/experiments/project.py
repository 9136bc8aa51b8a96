"""Where the project is, and which preset a results folder belongs to."""

import os
from pathlib import Path

from sdnet.experiments import plan
from sdnet.experiments.settings import Preset, load_preset, preset_files


def project_folder() -> Path:
    """The project's folder, from wherever in it a notebook was opened.

    Raises:
        FileNotFoundError: if neither the working directory nor one above it is the project.
    """
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "config" / "presets").is_dir():
            return folder
    raise FileNotFoundError(f"{Path.cwd()} is not inside the project's folder; work there")


def results_folder(given: str) -> Path:
    """A results folder, named from the project's folder: `results` or `results/<preset>`."""
    return Path(os.path.normpath(project_folder() / given))


def typed_folder(given: Path) -> tuple[Path, str]:
    """A preset's results folder, absolute with links kept, and as it is typed from the project's folder.

    Raises:
        ValueError: if it is none.
    """
    folder = Path(os.path.abspath(given))
    preset_of(folder)
    return folder, str(folder.relative_to(project_folder()))


def preset_of(folder: Path) -> Preset:
    """The preset whose results folder this is."""
    return named_preset(folder)[1]


def named_preset(folder: Path) -> tuple[str, Preset]:
    """The preset whose results folder this is, behind its name."""
    presets = project_folder() / "config" / "presets"
    names = {project_folder() / plan.results_folder(name): name for name in preset_files(presets)}
    if folder not in names:
        known = ", ".join(map(plan.results_folder, names.values()))
        raise ValueError(f"{folder} is no preset's results folder; choose one of {known}")
    return names[folder], load_preset(presets, names[folder])
