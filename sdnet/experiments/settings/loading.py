"""Settings from their files, checked: what is wrong is said in a sentence for each key.

A preset may extend another one: then its top-level keys replace those of the other, whole; lists and tables are not
merged.
"""

import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from sdnet.experiments.settings.fields import Settings
from sdnet.experiments.settings.files import PRESETS, SITE_FILE, SettingsError, read_yaml
from sdnet.experiments.settings.preset import Preset
from sdnet.experiments.settings.site import Site
from sdnet.experiments.settings.spec import Spec


def load_site(values: dict | None = None, source: str = str(SITE_FILE)) -> Site:
    """The site settings: config/config.yaml, or `values` where `--configfile` or `--config` changed it.

    Args:
        values: what all of these hold together; None reads the file.
        source: names them in errors.

    Raises:
        SettingsError: naming each wrong key, what was given and what is allowed.
    """
    return _validate(Site, read_yaml(SITE_FILE) if values is None else values, source)


def load_presets(folder: Path = PRESETS) -> dict[str, Preset]:
    """All presets of a folder, by name, each with the keys that it extends.

    Raises:
        SettingsError: naming file and key, what was given and what is allowed.
    """
    return {name: load_preset(name, folder) for name in preset_files(folder)}


def load_preset(name: str, folder: Path = PRESETS) -> Preset:
    """One preset of a folder, with the keys that it extends; the other files are not read.

    Raises:
        SettingsError: see `load_presets`.
    """
    files = preset_files(folder)
    if name not in files:
        raise SettingsError(f"preset: given {name!r}; allowed are {', '.join(files)}")
    return _validate(Preset, _extended(name, files, ()), str(files[name]))


def preset_files(folder: Path = PRESETS) -> dict[str, Path]:
    """The files of a folder's presets, by name; unread.

    Raises:
        SettingsError: if there is none, or a name that cannot be typed as a target.
    """
    files = {path.stem: path for path in sorted(folder.glob("*.yaml")) if path.name[0] != "."}
    if not files:
        raise SettingsError(f"{folder} holds no preset (*.yaml)")
    for name, path in files.items():
        if not re.fullmatch("[A-Za-z0-9_-]+", name):  # it is typed as a target, and names folders
            raise SettingsError(f"{path}: a preset's name may have letters, digits, - and _ alone; rename the file")
    return files


def check_spec(values: dict, source: str) -> None:
    """Refuse values that a run's spec.json cannot hold; `source` names the file in errors.

    Raises:
        SettingsError: naming each wrong key, what was given and what is allowed.
    """
    _validate(Spec, values, source)


def _extended(name: str, files: dict[str, Path], below: tuple[str, ...]) -> dict:
    values = read_yaml(files[name])
    parent = values.get("extends")
    if parent is None:
        return values
    if not isinstance(parent, str) or parent not in files or parent in (*below, name):
        others = ", ".join(sorted(set(files) - {*below, name})) or "none"
        raise SettingsError(f"{files[name]}: extends: given {parent!r}; allowed are {others}")
    return {**_extended(parent, files, (*below, name)), **values}


def _validate(model: type[Settings], values: dict, source: str) -> Any:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise SettingsError("\n".join(_sentence(source, item) for item in error.errors())) from None


def _sentence(source: str, item: dict) -> str:
    path = ".".join(str(part) for part in item["loc"] if part != "[key]")
    message = item["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    given = item["input"]
    if item["type"] == "missing":
        return f"{source}: {path}: is missing and has no default"
    if item["type"] == "model_type" and given is None:
        return f"{source}: {path}: given None (NoneType); write {{}} for its defaults, or a table of keys and values"
    if isinstance(given, str) and re.fullmatch(r"\d+e[+-]?\d+", given):
        message += "; YAML takes that for text, write it with a point, as in 5.0e-4"
    if isinstance(given, dict | BaseModel):
        return ": ".join(filter(None, (source, path, message)))
    return f"{source}: {path}: given {given!r} ({type(given).__name__}); {message}"
