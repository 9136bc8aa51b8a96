"""ImageNet-C in a local folder: `<corruption>/<severity>/<synset>/<name>.JPEG`.

Gaussian, shot and impulse noise are in the archive "noise"; speckle noise is in the archive "extra".
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from sdnet.data.corruptions import check_cell


class ImageNetC:
    """One noise at one severity, as a data set for `torch.utils.data.DataLoader`.

    An item is (image, label): uint8 (224, 224, 3), RGB, and the position of its class among the sorted
    synsets. As in the test script of the data set's authors, images are cropped to their centre and never
    resized, which would smooth the noise under test.

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
        self.files = [
            (path, label)
            for label, synset in enumerate(found)
            for path in sorted((folder / synset).iterdir())
            if path.suffix.lower() in (".jpeg", ".jpg")
        ]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        path, label = self.files[index]
        with Image.open(path) as image:
            return center_crop(np.asarray(image.convert("RGB")), 224), label


def center_crop(image: np.ndarray, size: int) -> np.ndarray:
    """The central `size` x `size` part of an image (H, W, channels); ValueError if the image is smaller."""
    height, width = image.shape[:2]
    if min(height, width) < size:
        raise ValueError(f"an image of {height} x {width} pixels is too small for a crop of {size} x {size}")
    top, left = (height - size) // 2, (width - size) // 2
    return image[top : top + size, left : left + size]
