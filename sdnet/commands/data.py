"""Download a data set and pack it for loading."""

from pathlib import Path

from sdnet.data import cifar, cifar_c
from sdnet.data.download import fetch
from sdnet.experiments.settings.files import data_dir


def data(name: str, urls: tuple[str, ...], checksum: str | None, out: Path | None) -> None:
    """Fetch an archive, check it, and write its images: to one .npz file, or, of the noisy ones, to a folder.

    Args:
        name: "cifar10", "cifar100", "cifar10-c" or "cifar100-c".
        urls: addresses of the archive, tried in order; none for those of config/config.yaml.
        checksum: of the archive; None for that of config/config.yaml.
        out: what to write; None for the usual place in `data_dir`.
    """
    if not (urls and checksum):
        from sdnet.experiments.settings.loading import load_site  # here, since it needs pydantic

        download = load_site().downloads[name]
        urls, checksum = urls or tuple(download.urls), checksum or download.checksum
    if name.endswith("-c"):
        out, official = out or data_dir() / name, cifar_c.ARCHIVES[name.removesuffix("-c")]
        archive = fetch(list(urls), checksum, out.parent / f"{official.name}.tar")
        cifar_c.extract(archive, out, official.members_md5)
    else:
        out = out or data_dir() / f"{name}.npz"
        archive = fetch(list(urls), checksum, out.parent / cifar.OFFICIAL[name].filename)
        cifar.convert(archive, name, out)
