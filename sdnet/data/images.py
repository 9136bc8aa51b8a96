"""A labelled image data set in memory, and class-balanced parts of it."""

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Images:
    """Training and test images of one data set, with where they come from.

    Attributes:
        train_images, test_images: uint8 pixels 0..255, (N, H, W, channels).
        train_labels, test_labels: int64 class numbers, (N,).
        classes: class names; label y is `classes[y]`.
        source: "official", or the words that say what the pixels are instead, for every table made from them.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: tuple[str, ...]
    source: str


def subset(images: Images, train_images: int | None, test_images: int | None, seed: int) -> Images:
    """A class-balanced part of the training and of the test images; None keeps all of them.

    The test images chosen depend on the seed and on their own number, not on how many training images are asked for.

    Raises:
        ValueError: if a number is below 1 or above the number of images there are.
    """
    parts = {}
    for split, count in {"train": train_images, "test": test_images}.items():
        if count is None:
            continue  # without a copy
        chosen = subset_indices(getattr(images, f"{split}_labels"), split, count, seed)
        parts |= {f"{split}_{kind}": getattr(images, f"{split}_{kind}")[chosen] for kind in ("images", "labels")}
    return replace(images, **parts)


def subset_indices(labels: np.ndarray, split: str, count: int | None, seed: int) -> np.ndarray:
    """Which items of a split, "train" or "test", `subset` keeps."""
    if count is None:
        return np.arange(len(labels))
    if not 1 <= count <= len(labels):
        raise ValueError(
            f"subset: {count} {split} images asked for; there are {len(labels)}, choose 1 to {len(labels)}."
        )
    return balanced_indices(labels, count, np.random.default_rng([seed, ("train", "test").index(split)]))


def balanced_indices(labels: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Ascending indices of `count` random items whose classes are equally many, to within one.

    A class with fewer items than that gives all it has and the others make up for it. With generators of equal seed,
    a smaller choice is a part of a larger one.
    """
    order = generator.permutation(len(labels))
    shuffled = labels[order]
    place_in_class = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = shuffled == label
        place_in_class[members] = np.arange(members.sum())
    return np.sort(order[np.argsort(place_in_class, kind="stable")[:count]])
