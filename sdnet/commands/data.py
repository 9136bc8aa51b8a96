"""Download a data set and pack it for loading."""

from pathlib import Path

from sdnet.data import cifar, cifar_c
from sdnet.data.download import fetch


def data(name: str, urls: tuple[str, ...], checksum: str, out: Path) -> None:
    """Fetch an archive, check it, and write its images: to one .npz file, or, of the noisy ones, to a folder."""
    if name.endswith("-c"):
        official = cifar_c.ARCHIVES[name.removesuffix("-c")]
        archive = fetch(list(urls), checksum, out.parent / f"{official.name}.tar")
        cifar_c.extract(archive, out, official.members_md5)
    else:
        archive = fetch(list(urls), checksum, out.parent / cifar.OFFICIAL[name].filename)
        cifar.convert(archive, name, out)
