"""What differs from one site to the next: config/config.yaml."""

import re
from typing import Annotated, get_args

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from sdnet.experiments.settings.fields import Folder, Settings
from sdnet.experiments.settings.files import DEFAULTS
from sdnet.experiments.settings.names import Downloaded


def _checksum(value: str) -> str:
    if not re.fullmatch("md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", value):
        raise ValueError('must be "md5:" and 32, or "sha256:" and 64, hexadecimal digits')
    return value


def _address(value: str) -> str:
    if not re.fullmatch(r"sqlite:///.+|(https?|postgresql|mysql|mssql)(\+\w+)?://.+|databricks(://.+)?", value):
        raise ValueError(
            "must be a server (http://...) or a database (sqlite:///mlflow.db); MLflow records in no folder"
        )
    return value


class Download(Settings):
    """Where an archive comes from."""

    urls: list[str] = Field(min_length=1, description="Addresses (https, http, file), tried in this order.")
    checksum: Annotated[str, AfterValidator(_checksum)] = Field(description="Of the archive: md5:... or sha256:...")


class Site(Settings):
    """What differs from one site to the next; config.yaml says for which of it something is made again."""

    data_dir: Folder = Field(DEFAULTS["data_dir"], description="Where downloaded data sets are kept.")
    downloads: dict[Downloaded, Download]
    imagenet_root: Folder | None = Field(None, description="A folder with train/<class>/ and val/<class>/.")
    imagenet_c_root: Folder | None = Field(None, description="A folder with <noise>_noise/<severity>/<class>/.")
    folder_root: Folder | None = Field(None, description="Any folder with train/<class>/ and val/<class>/.")
    jobs_per_gpu: PositiveInt = Field(int(DEFAULTS["jobs_per_gpu"]), description="How many jobs share one GPU.")
    mlflow_uri: Annotated[str, AfterValidator(_address)] = Field(
        DEFAULTS["mlflow_uri"], description="MLflow's tracking address."
    )

    @model_validator(mode="after")
    def _all_downloads(self) -> "Site":
        if missing := set(get_args(Downloaded)) - set(self.downloads):
            raise ValueError(f"downloads: {', '.join(sorted(missing))} missing; each needs urls and checksum")
        return self
