"""The handwritten digits that come with scikit-learn, as a small image data set that needs no download."""

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sdnet.data.images import Images

SIZE = 16  # pixels: twice the original 8, so that a network which halves its image three times keeps 2 x 2
TEST_IMAGES = 360  # a fifth of 1,797


def load_digits_images() -> Images:
    """The 1,797 digits as 16 x 16 grey images: 1,437 to train, 360 to test, always the same ones.

    The original 8 x 8 pixels count 0 to 16 ink dots; they become 0..255 and are enlarged by bicubic interpolation.
    The split keeps the share of each class. Images are uint8, (N, 16, 16, 1).
    """
    digits = load_digits()
    ink = (digits.images * (255 / 16)).astype(np.float32)
    enlarged = np.stack([np.asarray(Image.fromarray(i).resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for i in ink])
    images = enlarged.round().clip(0, 255).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int64)
    train, test = train_test_split(np.arange(len(labels)), test_size=TEST_IMAGES, stratify=labels, random_state=0)
    return Images(
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
        classes=tuple(map(str, digits.target_names)),
        source="scikit-learn digits",
    )
