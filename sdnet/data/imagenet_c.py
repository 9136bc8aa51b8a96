"""ImageNet-C in a local folder: `<corruption>/<severity>/<synset>/<name>.JPEG`.

Gaussian, shot and impulse noise are in the archive "noise"; speckle noise is in the archive "extra".
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import Subset

from sdnet.data.corruptions import check_cell
from sdnet.data.folders import Epoch, read_batches

SIZE = 224


class ImageNetC(Epoch):
    """One noise at one severity.

    Item i is (image, label): uint8 (224, 224, 3), RGB, and the position of its class among the sorted
    synsets; or the ValueError that says why there is none. As in the test script of the data set's authors,
    images are cropped to their centre and never resized, which would smooth the noise under test.

    Args:
        root: the folder with `gaussian_noise` and the others in it.
        noise: "gaussian", "shot", "speckle" or "impulse".
        severity: 1 to 5.
        synsets: class folders of the training tree, in the order of the labels. Both trees must agree.

    Raises:
        ValueError: for an unknown noise or severity, or if the classes are not those of the training tree.
        FileNotFoundError: if the folder of this noise and severity does not exist.
    """

    def __init__(self, root: Path, noise: str, severity: int, synsets: Sequence[str]):
        check_cell(noise, severity)
        folder = Path(root) / f"{noise}_noise" / str(severity)
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{folder} does not exist; ImageNet-C holds <corruption>/<severity>/<synset>/<name>.JPEG"
            )
        found = sorted(path.name for path in folder.iterdir() if path.is_dir())
        if found != list(synsets):
            differing = sorted(set(found) ^ set(synsets))
            raise ValueError(
                f"{folder} has {len(found)} classes, the training tree {len(synsets)}; give the same, "
                f"in sorted order (first differences: {', '.join(differing[:3]) or 'the order'})"
            )
        self.folder = folder
        samples = [
            (path, label)
            for label, synset in enumerate(found)
            for path in sorted((folder / synset).iterdir())
            if path.suffix.lower() in (".jpeg", ".jpg")
        ]
        super().__init__(samples, _centre, seed=0, k=0)  # nothing is random

    def __getitem__(self, i: int) -> tuple[Tensor, int] | ValueError:
        try:
            return super().__getitem__(i)
        except ValueError as error:
            return ValueError(f"{self.samples[i][0]}: {error}")

    def batches(self, indices: Sequence[int], size: int, workers: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The items at these positions, `size` at a time, read by as many worker processes.

        Yields:
            uint8, (B, 224, 224, 3); int64 labels, (B,).

        Raises:
            ValueError: naming the file, if an image cannot be read or is too small.
        """
        for images, labels in read_batches(Subset(self, indices), workers=workers, batch_size=size):
            yield images.numpy(), labels.numpy()


def _centre(image: Image) -> Image:
    """The central part of an image; a crop beyond its edges would be padded in silence."""
    if min(image.size) < SIZE:
        raise ValueError(f"{image.height} x {image.width} pixels are too few for a crop of {SIZE} x {SIZE}")
    left, top = (image.width - SIZE) // 2, (image.height - SIZE) // 2
    return image.crop((left, top, left + SIZE, top + SIZE))
