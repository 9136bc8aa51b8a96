"""The clean and noisy images that robustness is measured on, batch by batch."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sdnet.data import cifar_c
from sdnet.data.corruptions import CALIBRATION_SLOT, SEVERITIES, corrupt, corrupt_level, jpeg
from sdnet.data.datasets import CLASS_FOLDERS, SMALL_IMAGES
from sdnet.data.images import balanced_indices, subset_indices
from sdnet.runs.images import EVALUATION_BATCH, folder_source, open_folder, open_images
from sdnet.runs.spec import image_size

if TYPE_CHECKING:
    from sdnet.data.imagenet_c import ImageNetC

Batch = tuple[np.ndarray, np.ndarray]  # uint8 (N, H, W, channels), and labels (N,)


@dataclass(frozen=True)
class Noise:
    """One type of noise, as a run's robustness is measured with it.

    Attributes:
        name: one of `corruptions.NOISES`.
        scale: whose severities generated noise has, "cifar" or "imagenet".
        seed: of generated noise.
        official: the folder of CIFAR-10-C, CIFAR-100-C or ImageNet-C; None generates the noise.
    """

    name: str
    scale: str
    seed: int
    official: Path | None


class Split(ABC):
    """The clean images of one split of a run's data set, and the same ones noisy.

    Attributes:
        classes: their names.
        data_source: "official", or what the images are instead.
        indices: position of each image in the data set, which seeds its noise.
    """

    classes: tuple[str, ...]
    data_source: str
    indices: np.ndarray

    def __init__(self, spec: dict):
        self.dataset, self._size = spec["dataset"]["name"], image_size(spec)

    def __len__(self) -> int:
        return len(self.indices)

    @abstractmethod
    def clean(self) -> Iterator[Batch]:
        """The images as they are."""

    def at_severity(self, noise: Noise, severity: int) -> Iterator[Batch]:
        """The images at a published severity, 1 to 5."""
        if noise.official is not None:
            yield from self._official(noise, severity)
            return
        for (images, labels), part in zip(self.clean(), self._parts(), strict=True):
            noisy = corrupt(images, noise.name, severity, seed=noise.seed, scale=noise.scale, indices=part)
            yield jpeg(noisy) if self._compressed(noise) else noisy, labels

    def at_level(self, noise: Noise, position: int, level: float | None) -> Iterator[Batch]:
        """The images under a level of the set C of Algorithm 1, the one at this position in C."""
        slot = CALIBRATION_SLOT + position
        for (images, labels), part in zip(self.clean(), self._parts(), strict=True):
            yield corrupt_level(images, noise.name, level, seed=noise.seed, slot=slot, indices=part), labels

    def noise_source(self, noise: Noise) -> str:
        """What the result files call where the noisy images come from."""
        if noise.official is not None:
            return self._official_source(noise)
        return f"generated, {noise.scale} severities" + (", JPEG" if self._compressed(noise) else "")

    def columns(self, noise: Noise) -> dict[str, str]:
        """The columns that say which noisy images a row of a result file is of."""
        return {"data_source": self.data_source, "noise": noise.name, "noise_source": self.noise_source(noise)}

    @abstractmethod
    def contents(self, noise: Noise) -> str:
        """A digest of the clean images, and of official noisy ones."""

    @abstractmethod
    def _official(self, noise: Noise, severity: int) -> Iterator[Batch]:
        """The images of `noise.official`."""

    @abstractmethod
    def _official_source(self, noise: Noise) -> str:
        """What those are called."""

    def _compressed(self, noise: Noise) -> bool:
        """Whether generated images go through JPEG, as those of ImageNet-C did; smaller ones would lose too much."""
        return noise.scale == "imagenet" and self._size > SMALL_IMAGES

    def _parts(self) -> list[np.ndarray]:
        return [self.indices[i : i + EVALUATION_BATCH] for i in range(0, len(self.indices), EVALUATION_BATCH)]


class ArraySplit(Split):
    """Of a data set that fits in memory, see `open_split`."""

    def __init__(self, spec: dict, data_path: Path | None, split: str, limit: int | None):
        super().__init__(spec)
        images = open_images(spec, data_path)
        self.classes, self.data_source = images.classes, images.source
        self._images, self._labels = (getattr(images, f"{split}_{kind}") for kind in ("images", "labels"))
        self.indices = subset_indices(self._labels, split, spec["dataset"][f"{split}_images"], seed=0)
        if limit is not None and limit < len(self.indices):
            part = balanced_indices(self._labels[self.indices], limit, np.random.default_rng(0))
            self.indices = self.indices[part]

    def clean(self) -> Iterator[Batch]:
        """The images as they are."""
        for part in self._parts():
            yield self._images[part], self._labels[part]

    def contents(self, noise: Noise) -> str:
        """A digest of the pixels."""
        found = hashlib.sha256(np.ascontiguousarray(self._images[self.indices]))
        if noise.official:
            found.update(repr(cifar_c.checksums(noise.official, noise.name)).encode())
        return found.hexdigest()

    def _official(self, noise: Noise, severity: int) -> Iterator[Batch]:
        images = cifar_c.load(noise.official, noise.name, severity, self._labels)
        for part in self._parts():
            yield images[part], self._labels[part]

    def _official_source(self, noise: Noise) -> str:
        return cifar_c.source(noise.official, self.dataset, noise.name)


class FolderSplit(Split):
    """Of a tree of class folders, see `open_split`."""

    def __init__(self, spec: dict, data_path: Path | None, split: str, limit: int | None):
        super().__init__(spec)
        counts = [n for n in (spec["dataset"][f"{split}_images"], limit) if n is not None]
        folder = "train" if split == "train" else "val"
        self._loader = open_folder(spec, data_path, folder, augment=False, limit=min(counts, default=None))
        self.classes, self.indices = self._loader.classes, self._loader.indices
        self.data_source = folder_source(self.dataset, self._loader, folder)

    def clean(self) -> Iterator[Batch]:
        """The images as they are, scaled and cut to the network's size."""
        for x, y in self._loader.epoch(0):
            yield (x * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy(), y.cpu().numpy()

    def contents(self, noise: Noise) -> str:
        """A digest of the names and sizes of the files."""
        found, noisy = hashlib.sha256(), SEVERITIES if noise.official else ()
        for tree in (self._loader, *(self._noisy_tree(noise, severity) for severity in noisy)):
            for path in (Path(tree.samples[i][0]) for i in self.indices):
                found.update(f"{path.parent.name}/{path.name} {path.stat().st_size}\n".encode())
        return found.hexdigest()

    def _official(self, noise: Noise, severity: int) -> Iterator[Batch]:
        from sdnet.data.imagenet_c import SIZE  # here, since torchvision takes seconds to import

        if self._size != SIZE:
            raise ValueError(
                f"{noise.official} has images of {SIZE} pixels, and the network sees {self._size}: leave out "
                "--official, to generate the noise"
            )
        yield from self._noisy_tree(noise, severity).batches(self.indices, EVALUATION_BATCH, self._loader.workers)

    def _official_source(self, noise: Noise) -> str:
        return f"local ImageNet-C, {len(self._loader.samples):,} images"

    def _noisy_tree(self, noise: Noise, severity: int) -> "ImageNetC":
        from sdnet.data.imagenet_c import ImageNetC  # see _official

        files = ImageNetC(noise.official, noise.name, severity, self.classes)
        noisy, clean = (
            ["/".join(Path(path).with_suffix("").parts[-2:]) for path, _ in tree.samples]
            for tree in (files, self._loader)
        )
        if noisy != clean:
            differing = sorted(set(noisy) ^ set(clean))
            raise ValueError(
                f"{files.folder} has {len(noisy)} images, the clean split {len(clean)}; give the same by name "
                f"(first differences: {', '.join(differing[:3])})"
            )
        return files


def open_split(spec: dict, data_path: Path | None, split: str, limit: int | None) -> Split:
    """One split of a run's data set, not augmented.

    Args:
        spec: the run's, as from `read_spec`.
        data_path: as in `images.open_data`.
        split: "train" or "test".
        limit: the largest number of images, class-balanced; None for all that the run uses.
    """
    kind = FolderSplit if spec["dataset"]["name"] in CLASS_FOLDERS else ArraySplit
    return kind(spec, data_path, split, limit)
