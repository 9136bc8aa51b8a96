"""The four random noises of CIFAR-10-C and ImageNet-C (Hendrycks and Dietterich, 2019).

With u = x / 255 and every draw independent per pixel and channel:

    gaussian   u + c eps,      eps ~ N(0, 1)                            c: standard deviation
    shot       Poisson(c u) / c                                         c: photons of a white pixel
    speckle    u + u c eps,    eps ~ N(0, 1)                            c: relative standard deviation
    impulse    1 or 0, each with probability c / 2; u otherwise         c: share of changed values

and the result is floor(255 clip(v, 0, 1)): truncated as in the published generator, not rounded.

The official files were drawn from an unseeded generator and cannot be rebuilt bit for bit. Here every
image has a generator of its own, so that its noise depends on neither the batch, nor the order, nor the
number of workers.
"""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

# In this order: the place of a noise is part of the seed of what it draws.
NOISES = ("gaussian", "shot", "speckle", "impulse")

SEVERITIES = (1, 2, 3, 4, 5)  # the paper's levels 0 to 4

# The parameters c of these severities, from the published generators of CIFAR-10-C and of ImageNet-C.
STRENGTHS = {
    "cifar": {
        "gaussian": (0.04, 0.06, 0.08, 0.09, 0.10),
        "shot": (500, 250, 100, 75, 50),
        "speckle": (0.06, 0.10, 0.12, 0.16, 0.20),
        "impulse": (0.01, 0.02, 0.03, 0.05, 0.07),
    },
    "imagenet": {
        "gaussian": (0.08, 0.12, 0.18, 0.26, 0.38),
        "shot": (60, 25, 12, 5, 3),
        "speckle": (0.15, 0.20, 0.35, 0.45, 0.60),
        "impulse": (0.03, 0.06, 0.09, 0.17, 0.27),
    },
}

# The set C of Algorithm 1, which the paper does not print. None is the clean image.
# ASSUME: "interleaved" spans the severities of CIFAR-10-C, and no level equals one, so that the line is
# interpolated and not read off at a fitted point. "released" are clean images and the levels of the authors'
# released code, of ImageNet-C's strength: speckle and impulse span it, Gaussian and shot end behind its severity
# 3, beyond which the line is extrapolated (column `extrapolated` of adaptive-<noise>.csv).
CALIBRATION_LEVELS = {
    "interleaved": {
        "gaussian": (None, 0.02, 0.03, 0.05, 0.07, 0.11, 0.15, 0.20),
        "shot": (None, 800, 400, 170, 120, 60, 35, 20),
        "speckle": (None, 0.04, 0.08, 0.14, 0.18, 0.25, 0.35, 0.50),
        "impulse": (None, 0.005, 0.015, 0.025, 0.04, 0.06, 0.10, 0.15),
    },
    "released": {
        "gaussian": (None, 0.02, 0.04, 0.06, 0.08, 0.10, 0.12, 0.14, 0.16, 0.18, 0.20),
        "shot": (None, 60, 54, 48, 42, 36, 30, 24, 18, 12, 6),
        "speckle": (None, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6),
        "impulse": (None, 0.03, 0.06, 0.09, 0.12, 0.15, 0.18, 0.21, 0.24, 0.27, 0.30),
    },
}
RELEASED_LAMBDA_MAX = 1.4  # the released code's grid of lambdas goes from 0.1 to this

# Added to the position of a calibration level in C, so that its slot is none of the severities 1 to 5.
CALIBRATION_SLOT = 100


def corrupt(
    images: np.ndarray,
    noise: str,
    severity: int,
    *,
    seed: int,
    scale: str = "cifar",
    indices: Sequence[int] | None = None,
) -> np.ndarray:
    """`images` under one of the `NOISES` at a published severity (section 4.2).

    Args:
        images: uint8, (N, H, W, channels), of any size and number of channels.
        noise: one of `NOISES`.
        severity: 1 (weakest) to 5; the paper's "level" is one less.
        seed: the same seed gives the same noise for the same image.
        scale: whose parameters, "cifar" (CIFAR-10-C) or "imagenet" (ImageNet-C). The files of ImageNet-C
            also went through `jpeg`, which is not done here.
        indices: position of each image in its data set, where `images` is a part of one; otherwise
            0 to N - 1.

    Returns:
        uint8, (N, H, W, channels), a new array.

    Raises:
        ValueError: for an unknown noise, severity or scale, or images of another type or shape.
    """
    if scale not in STRENGTHS:
        raise ValueError(f"corrupt: scale {scale!r} is unknown; choose one of {', '.join(STRENGTHS)}")
    check_cell(noise, severity)
    level = STRENGTHS[scale][noise][int(severity) - 1]
    return corrupt_level(images, noise, level, seed=seed, slot=int(severity), indices=indices)


def corrupt_level(
    images: np.ndarray,
    noise: str,
    level: float | None,
    *,
    seed: int,
    slot: int,
    indices: Sequence[int] | None = None,
) -> np.ndarray:
    """`images` under noise of any level, such as the `CALIBRATION_LEVELS` (set C of Algorithm 1).

    Args:
        images: uint8, (N, H, W, channels).
        noise: one of `NOISES`.
        level: the parameter c of the noise; None leaves the images clean.
        seed: see `corrupt`.
        slot: tells the noise of one level from that of another: the severity, or `CALIBRATION_SLOT`
            plus the position in the list of calibration levels.
        indices: see `corrupt`.

    Returns:
        uint8, (N, H, W, channels), a new array.

    Raises:
        ValueError: for an unknown noise, a negative level (shot: not positive), or images of another type
            or shape.
    """
    images = np.asarray(images)
    check_noise(noise)
    if images.ndim != 4 or images.dtype != np.uint8:
        raise ValueError(f"corrupt: images are {images.dtype} of shape {images.shape}; give uint8, (N, H, W, channels)")
    if level is not None and not (level > 0 if noise == "shot" else level >= 0):
        raise ValueError(
            f"corrupt: level {level!r} of {noise} noise is not allowed; give "
            + ("a positive number, or None" if noise == "shot" else "0, a positive number, or None")
        )
    indices = range(len(images)) if indices is None else indices
    if len(indices) != len(images):
        raise ValueError(f"corrupt: {len(indices)} indices for {len(images)} images; give one for each image")
    if level is None:
        return images.copy()
    noisy = np.empty_like(images)
    for image, index, out in zip(images, indices, noisy, strict=True):
        entropy = [seed, NOISES.index(noise), slot, int(index)]
        generator = np.random.default_rng(np.random.SeedSequence(entropy))
        values = _DRAW[noise](image / 255.0, level, generator)
        # Assignment to uint8 truncates; an unchanged k / 255 comes back as k for all 256 values.
        out[:] = 255 * np.clip(values, 0, 1)
    return noisy


def jpeg(images: np.ndarray) -> np.ndarray:
    """Images, uint8 (N, H, W, 3), as JPEG gives them back: what the published generator of ImageNet-C ends with."""
    compressed = np.empty_like(images)
    for image, out in zip(images, compressed, strict=True):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=85)
        out[:] = Image.open(file)
    return compressed


def check_cell(noise: str, severity: int) -> None:
    """Refuse, with a ValueError, what is no noise or no severity of the benchmarks."""
    check_noise(noise)
    if severity not in SEVERITIES:
        raise ValueError(f"severity {severity!r} is not one of 1, 2, 3, 4, 5 (the paper's level 0 is severity 1)")


def check_noise(noise: str) -> None:
    """Refuse, with a ValueError, what is no noise, or one of one's own that a table of this file lacks."""
    if noise not in NOISES:
        raise ValueError(f"noise {noise!r} is unknown; choose one of {', '.join(NOISES)} (sdnet/data/corruptions.py)")
    tables = {f"STRENGTHS[{scale!r}]": table for scale, table in STRENGTHS.items()}
    few = [name for name, table in tables.items() if len(table.get(noise, SEVERITIES)) != len(SEVERITIES)]
    tables |= {f"CALIBRATION_LEVELS[{levels!r}]": table for levels, table in CALIBRATION_LEVELS.items()}
    lacking = [name for name, table in (tables | {"_DRAW": _DRAW}).items() if noise not in table]
    if lacking or few:
        what = f"is not in {', '.join(lacking)}" if lacking else f"has not five severities in {', '.join(few)}"
        raise ValueError(f"noise {noise!r} {what} of sdnet/data/corruptions.py; add what is missing there")


def _gaussian(u: np.ndarray, c: float, generator: np.random.Generator) -> np.ndarray:
    return u + c * generator.standard_normal(u.shape)


def _shot(u: np.ndarray, c: float, generator: np.random.Generator) -> np.ndarray:
    return generator.poisson(c * u) / c


def _speckle(u: np.ndarray, c: float, generator: np.random.Generator) -> np.ndarray:
    return u + c * u * generator.standard_normal(u.shape)


def _impulse(u: np.ndarray, c: float, generator: np.random.Generator) -> np.ndarray:
    # In this order of draws it is scikit-image's "s&p" noise, which the published generator calls.
    changed = generator.random(u.shape) <= c
    salt = generator.random(u.shape) <= 0.5
    return np.where(changed, salt, u)


_DRAW = {"gaussian": _gaussian, "shot": _shot, "speckle": _speckle, "impulse": _impulse}
