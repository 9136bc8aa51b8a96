"""Download a data set and pack it for loading."""

from pathlib import Path

from sdnet.data.cifar import convert
from sdnet.data.download import fetch


def data(name: str, urls: tuple[str, ...], checksum: str, out: Path) -> None:
    """Fetch the archive of cifar10 or cifar100, check it, and write its images to one .npz file."""
    out.parent.mkdir(parents=True, exist_ok=True)
    archive = fetch(list(urls), checksum, out.parent / f"{name}-python.tar.gz")
    convert(archive, name, out)
