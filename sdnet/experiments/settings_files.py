"""The files of the settings, as they are: commands read them without pydantic, which checks them in `settings`."""

import os
from pathlib import Path

SITE_FILE = Path("config/config.yaml")


class SettingsError(ValueError):
    """A setting that is not allowed; the message says which, what was given and what is allowed."""


def read_yaml(path: Path) -> dict:
    """A settings file as a table.

    Raises:
        SettingsError: if it is missing, is not YAML or is not a table.
    """
    import yaml  # here, since training with SDNET_DATA_DIR set needs none

    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise SettingsError(f"{path} does not exist; run this in the project's folder") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise SettingsError(f"{path} holds {type(values).__name__}; it must be a table of keys and values")
    return values


def image_folder(setting: str) -> str | None:
    """A folder of images: `data_dir`, `imagenet_root` or `folder_root`.

    The variable SDNET_<SETTING>, which the Snakefile sets, wins over the working directory's config/config.yaml.
    """
    given = os.environ.get(f"SDNET_{setting.upper()}")
    if given is None and SITE_FILE.is_file():
        given = read_yaml(SITE_FILE).get(setting)
    return str(given) if given else None
