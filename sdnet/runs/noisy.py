"""The clean and noisy images that robustness is measured on, batch by batch."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sdnet.data import cifar_c
from sdnet.data.corruptions import CALIBRATION_SLOT, corrupt, corrupt_level, jpeg
from sdnet.data.datasets import CLASS_FOLDERS
from sdnet.data.images import balanced_indices, subset_indices
from sdnet.runs.images import EVALUATION_BATCH, folder_source, open_folder, open_images
from sdnet.runs.network import SMALL_IMAGES
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


class Split:
    """The clean images of one split of a run's data set, or a class-balanced part of `limit` of them.

    Args:
        spec: the run's, as from `read_spec`.
        data_path: as in `images.open_data`.
        split: "train" (not augmented) or "test".
        limit: the largest number of images; None for all that the run uses.
    """

    def __init__(self, spec: dict, data_path: Path | None, split: str, limit: int | None):
        wanted = spec["dataset"]
        self.dataset = wanted["name"]
        self._size = image_size(spec)
        self._loader = None
        if self.dataset in CLASS_FOLDERS:
            counts = [n for n in (wanted[f"{split}_images"], limit) if n is not None]
            folder = "train" if split == "train" else "val"
            self._loader = open_folder(spec, data_path, folder, augment=False, limit=min(counts, default=None))
            self.classes = self._loader.classes
            self.data_source = folder_source(self.dataset, self._loader, folder)
            self.indices = self._loader.indices
            return
        images = open_images(spec, data_path)
        self.classes, self.data_source = images.classes, images.source
        self._labels = getattr(images, f"{split}_labels")
        self._images = getattr(images, f"{split}_images")
        self.indices = subset_indices(self._labels, split, wanted[f"{split}_images"], seed=0)
        if limit is not None and limit < len(self.indices):
            part = balanced_indices(self._labels[self.indices], limit, np.random.default_rng(0))
            self.indices = self.indices[part]

    def __len__(self) -> int:
        return len(self.indices)

    def clean(self) -> Iterator[Batch]:
        """The images as they are."""
        if self._loader:
            for x, y in self._loader.epoch(0):
                yield (x * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy(), y.cpu().numpy()
        else:
            for part in self._parts():
                yield self._images[part], self._labels[part]

    def at_severity(self, noise: Noise, severity: int) -> Iterator[Batch]:
        """The images at a published severity, 1 to 5."""
        if noise.official is None:
            for (images, labels), part in zip(self.clean(), self._parts(), strict=True):
                noisy = corrupt(images, noise.name, severity, seed=noise.seed, scale=noise.scale, indices=part)
                yield jpeg(noisy) if self._compressed(noise) else noisy, labels
        elif self._loader:
            from sdnet.data.imagenet_c import SIZE, ImageNetC  # here, since torchvision takes seconds to import

            if self._size != SIZE:
                raise ValueError(
                    f"{noise.official} has images of {SIZE} pixels, and the network sees {self._size}: leave out "
                    "--official, to generate the noise"
                )
            files = ImageNetC(noise.official, noise.name, severity, self.classes)
            self._check_same_images(files)
            yield from files.batches(self.indices, EVALUATION_BATCH, self._loader.workers)
        else:
            images = cifar_c.load(noise.official, noise.name, severity, self._labels)
            for part in self._parts():
                yield images[part], self._labels[part]

    def at_level(self, noise: Noise, position: int, level: float | None) -> Iterator[Batch]:
        """The images under a level of the set C of Algorithm 1, the one at this position in C."""
        slot = CALIBRATION_SLOT + position
        for (images, labels), part in zip(self.clean(), self._parts(), strict=True):
            yield corrupt_level(images, noise.name, level, seed=noise.seed, slot=slot, indices=part), labels

    def noise_source(self, noise: Noise) -> str:
        """What the result files call where the noisy images come from."""
        if noise.official is None:
            return f"generated, {noise.scale} severities" + (", JPEG" if self._compressed(noise) else "")
        if self._loader:
            return f"local ImageNet-C, {len(self._loader.samples):,} images"
        return cifar_c.source(noise.official, self.dataset, noise.name)

    def contents(self, noise: Noise) -> str:
        """A digest of the clean images, and of official noisy ones; in class folders of names and sizes of files."""
        found = hashlib.sha256()
        if self._loader:
            trees = [self._loader.samples]
            if noise.official:
                from sdnet.data.imagenet_c import ImageNetC

                trees.append(ImageNetC(noise.official, noise.name, 1, self.classes).samples)
            for samples in trees:
                for path in (Path(samples[i][0]) for i in self.indices):
                    found.update(f"{path.parent.name}/{path.name} {path.stat().st_size}\n".encode())
        else:
            found.update(np.ascontiguousarray(self._images[self.indices]))
            if noise.official:
                found.update(repr(cifar_c.checksums(noise.official, noise.name)).encode())
        return found.hexdigest()

    def _compressed(self, noise: Noise) -> bool:
        """Whether generated images go through JPEG, as those of ImageNet-C did; smaller ones would lose too much."""
        return noise.scale == "imagenet" and self._size > SMALL_IMAGES

    def _check_same_images(self, files: "ImageNetC") -> None:
        noisy, clean = ([Path(path).stem for path, _ in tree] for tree in (files.samples, self._loader.samples))
        if noisy != clean:
            differing = sorted(set(noisy) ^ set(clean))
            raise ValueError(
                f"{files.folder} has {len(noisy)} images, the clean split {len(clean)}; give the same by name "
                f"(first differences: {', '.join(differing[:3]) or 'the classes'})"
            )

    def _parts(self) -> list[np.ndarray]:
        return [self.indices[i : i + EVALUATION_BATCH] for i in range(0, len(self.indices), EVALUATION_BATCH)]
