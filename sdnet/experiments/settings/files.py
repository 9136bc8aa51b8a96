"""The files of the settings, as they are: commands read them without pydantic, which `loading` checks them with."""

import os
from importlib.util import find_spec
from pathlib import Path

SITE_FILE, PRESETS = Path("config/config.yaml"), Path("config/presets")
DEFAULTS = {"data_dir": "data", "jobs_per_gpu": "1", "mlflow_uri": "sqlite:///mlflow.db"}  # of the site


def project() -> Path:
    """The project's folder, as named from the working directory: that one or one above it; by itself where none is."""
    here = Path.cwd()
    found = next((folder for folder in (here, *here.parents) if (folder / PRESETS).is_dir()), here)
    return Path(os.path.relpath(found))


class SettingsError(ValueError):
    """A setting that is not allowed; the message says which, what was given and what is allowed."""


def read_yaml(path: Path) -> dict:
    """A settings file as a table.

    Raises:
        SettingsError: if it is missing, is not YAML or is not a table.
    """
    import yaml  # here, since training needs none

    class Loader(yaml.SafeLoader):  # which by itself takes the last of equal keys
        def construct_mapping(self, node, deep=False):
            keys = [key.value for key, _ in node.value]
            if twice := [key for key in keys if keys.count(key) > 1]:
                raise yaml.MarkedYAMLError(problem=f"{twice[0]} is given twice", problem_mark=node.start_mark)
            return super().construct_mapping(node, deep)

    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except FileNotFoundError:
        raise SettingsError(f"{path} does not exist; run this in the project's folder") from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}; make it a file that you may read") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise SettingsError(f"{path} holds {type(values).__name__}; it must be a table of keys and values")
    return values


def site_setting(name: str) -> str | None:
    """A setting of the site, for a command: `data_dir`, `imagenet_root`, `folder_root`, `jobs_per_gpu` or `mlflow_uri`.

    The variable SDNET_<NAME>, which the Snakefile sets, wins over the project's config/config.yaml, and that over the
    default. Without PyYAML, which training does not need, the file is not read.
    """
    given, file = os.environ.get(f"SDNET_{name.upper()}"), project() / SITE_FILE
    if given is None and file.is_file() and find_spec("yaml"):
        given = read_yaml(file).get(name)
    return DEFAULTS.get(name) if given in (None, "") else str(given)


def expanded(path: str) -> str:
    """A path as a shell would read it, with ~ and $VARIABLES, under the one name that Snakemake is to know it by.

    Raises:
        SettingsError: if a variable is not set.
    """
    found = os.path.normpath(os.path.expanduser(os.path.expandvars(path)))
    if "$" in found:
        raise SettingsError(f"{path} names a variable that is not set; set it, or write the path out")
    return found


def image_folder(setting: str) -> Path | None:
    """A folder of images: `data_dir`, `imagenet_root` or `folder_root`, as `site_setting` has it, from the project."""
    return project() / expanded(given) if (given := site_setting(setting)) else None


def data_dir() -> Path:
    """Where downloaded images are."""
    return image_folder("data_dir")
