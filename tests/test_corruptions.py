"""The four noises are those of the published benchmarks, and the noise of an image is its own."""

from multiprocessing import get_context

import numpy as np
import pytest

from sdnet.data.corruptions import CALIBRATION_LEVELS, NOISES, STRENGTHS, corrupt, corrupt_level

# Standard deviations on a constant grey of 128, CIFAR parameters, severities 1 to 5.
GREY_STD = {
    "gaussian": (10.20, 15.30, 20.40, 22.93, 25.48),
    "shot": (8.13, 11.27, 18.07, 20.87, 25.54),
    "speckle": (7.69, 12.79, 15.36, 20.46, 25.62),
}
BLACK_MEAN = (3.83, 5.85, 7.90, 8.92, 9.92)
BLACK_ZEROS = (0.539, 0.526, 0.519, 0.517, 0.516)

cells = pytest.mark.parametrize(("noise", "severity"), [(n, s) for n in NOISES for s in range(1, 6)])


def constant(value, n=400):
    return np.full((n, 32, 32, 3), value, np.uint8)


def random_images(n=6, size=(9, 7), channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *size, channels), np.uint8)


def test_the_severities_of_imagenet_are_those_of_its_published_generator():
    """make_imagenet_c.py of Hendrycks and Dietterich; those of CIFAR are seen by their moments, below."""
    published = {
        "gaussian": (0.08, 0.12, 0.18, 0.26, 0.38),
        "shot": (60, 25, 12, 5, 3),
        "speckle": (0.15, 0.20, 0.35, 0.45, 0.60),
        "impulse": (0.03, 0.06, 0.09, 0.17, 0.27),
    }
    assert {noise: STRENGTHS["imagenet"][noise] for noise in published} == published


def test_the_released_levels_are_those_of_the_authors_code():
    """And clean images, the first of each set C."""
    assert {levels[0] for levels in CALIBRATION_LEVELS["released"].values()} == {None}
    published = {
        "gaussian": pytest.approx([0.02 * k for k in range(1, 11)]),
        "shot": tuple(range(60, 0, -6)),
        "speckle": pytest.approx([0.1 * k for k in range(1, 7)]),
        "impulse": pytest.approx([0.03 * k for k in range(1, 11)]),
    }
    assert {noise: CALIBRATION_LEVELS["released"][noise][1:] for noise in published} == published


@pytest.mark.parametrize("severity", range(1, 6))
@pytest.mark.parametrize("noise", GREY_STD)
def test_noise_on_grey_has_the_published_moments(noise, severity):
    noisy = corrupt(constant(128), noise, severity, seed=0).astype(float)
    assert noisy.std() == pytest.approx(GREY_STD[noise][severity - 1], rel=0.01)
    # 127.5, since values are truncated; rounding would give 128.0. Photon counts are coarse, hence 0.2.
    assert noisy.mean() == pytest.approx(127.5, abs=0.2 if noise == "shot" else 0.1)


@pytest.mark.parametrize("severity", range(1, 6))
def test_black_stays_black_under_shot_and_speckle_but_not_under_gaussian_noise(severity):
    black = constant(0)
    assert not corrupt(black, "shot", severity, seed=0).any()
    assert not corrupt(black, "speckle", severity, seed=0).any()
    noisy = corrupt(black, "gaussian", severity, seed=0)
    assert (noisy == 0).mean() == pytest.approx(BLACK_ZEROS[severity - 1], abs=0.005)
    assert noisy.mean() == pytest.approx(BLACK_MEAN[severity - 1], rel=0.01)


@pytest.mark.parametrize("severity", range(1, 6))
def test_impulse_noise_changes_single_channels_half_to_white_and_half_to_black(severity):
    share = STRENGTHS["cifar"]["impulse"][severity - 1]
    noisy = corrupt(constant(128, n=4000), "impulse", severity, seed=0)
    changed = noisy != 128
    assert changed.mean() == pytest.approx(share, abs=0.0005)
    assert set(np.unique(noisy)) == {0, 128, 255}
    assert (noisy[changed] == 255).mean() == pytest.approx(0.5, abs=0.01)
    if severity == 5:  # 1,400 pixels expected: a standard error of 3%
        assert changed.all(axis=-1).mean() == pytest.approx(share**3, rel=0.1)


def test_untouched_pixels_survive_impulse_noise_exactly():
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    noisy = corrupt(images, "impulse", 1, seed=0)
    assert set(np.unique(noisy[noisy != images])) <= {0, 255}
    assert (noisy == images).mean() > 0.95


def test_impulse_noise_is_that_of_scikit_image():
    """Of skimage.util.random_noise(mode="s&p"): first which values change, then which of all become white."""
    images = random_images(n=2, size=(40, 30))
    noisy = corrupt(images, "impulse", 4, seed=7)
    for index, image in enumerate(images):
        generator = np.random.default_rng(np.random.SeedSequence([7, NOISES.index("impulse"), 4, index]))
        expected = image.copy()
        flipped = generator.random(image.shape) <= 0.05
        salted = generator.random(image.shape) <= 0.5
        expected[flipped & salted] = 255
        expected[flipped & ~salted] = 0
        assert np.array_equal(noisy[index], expected)


@pytest.mark.parametrize("noise", NOISES)
def test_the_noise_of_an_image_does_not_depend_on_its_company(noise):
    images = random_images()
    together = corrupt(images, noise, 3, seed=1)
    order = [4, 0, 5]
    assert np.array_equal(corrupt(images[order], noise, 3, seed=1, indices=order), together[order])
    assert np.array_equal(corrupt(images[2:3], noise, 3, seed=1, indices=[2]), together[2:3])


def corrupt_one(index):
    return corrupt(random_images()[index : index + 1], "gaussian", 3, seed=1, indices=[index])


def test_the_noise_of_an_image_does_not_depend_on_the_number_of_workers():
    with get_context("spawn").Pool(2) as pool:
        parts = pool.map(corrupt_one, range(6))
    assert np.array_equal(np.concatenate(parts), corrupt(random_images(), "gaussian", 3, seed=1))


def test_another_severity_noise_seed_or_index_draws_other_noise():
    grey = constant(128, n=20)
    deviations = [
        corrupt(grey, noise, severity, seed=seed, indices=indices).astype(float).ravel() - 127.5
        for noise, severity, seed, indices in [
            ("gaussian", 5, 0, None),
            ("gaussian", 4, 0, None),
            ("speckle", 5, 0, None),
            ("gaussian", 5, 1, None),
            ("gaussian", 5, 0, range(20, 40)),
        ]
    ] + [corrupt_level(grey, "gaussian", 0.1, seed=0, slot=105).astype(float).ravel() - 127.5]
    # 61,440 values each: a standard error of 0.004 if they are independent, 1 if one is a scaled copy.
    correlations = np.corrcoef(deviations)
    assert np.abs(correlations - np.eye(len(deviations))).max() < 0.02


@pytest.mark.parametrize("noise", NOISES)
def test_noise_grows_with_severity_and_from_cifar_to_imagenet(noise):
    images = random_images(n=40, size=(16, 16))

    def power(severity, scale):
        noisy = corrupt(images, noise, severity, seed=0, scale=scale)
        return np.square(noisy.astype(float) - images).mean()

    cifar = [power(severity, "cifar") for severity in range(1, 6)]
    imagenet = [power(severity, "imagenet") for severity in range(1, 6)]
    assert np.all(np.diff(cifar) > 0)
    assert np.all(np.diff(imagenet) > 0)
    assert np.all(np.array(imagenet) > cifar)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("levels", CALIBRATION_LEVELS)
def test_calibration_levels_grow_in_noise(levels, noise):
    images = random_images(n=40, size=(16, 16))
    powers = [
        np.square(corrupt_level(images, noise, level, seed=0, slot=100 + slot).astype(float) - images).mean()
        for slot, level in enumerate(CALIBRATION_LEVELS[levels][noise])
    ]
    assert np.all(np.diff(powers) > 0)


@pytest.mark.parametrize(
    ("table", "entry", "message"),
    [
        (STRENGTHS["imagenet"], (1, 2, 3, 4), r"'shot' has not five severities in STRENGTHS\['imagenet'\] of"),
        (CALIBRATION_LEVELS["released"], None, r"'shot' is not in CALIBRATION_LEVELS\['released'\] of sdnet/data"),
    ],
)
def test_a_noise_that_is_not_whole_in_every_table_is_refused(monkeypatch, table, entry, message):
    """By `corrupt` and, before any job, by the workflow."""
    if entry:
        monkeypatch.setitem(table, "shot", entry)
    else:
        monkeypatch.delitem(table, "shot")
    with pytest.raises(ValueError, match=message):
        corrupt(random_images(), "shot", 1, seed=0)


@pytest.mark.parametrize("noise", NOISES)
def test_no_interleaved_calibration_level_is_a_test_level(noise):
    assert not set(CALIBRATION_LEVELS["interleaved"][noise]) & set(STRENGTHS["cifar"][noise])


@cells
def test_any_number_of_channels_and_any_size_is_corrupted_and_the_input_is_left_alone(noise, severity):
    images = random_images(n=2, size=(8, 5), channels=1)
    before = images.copy()
    noisy = corrupt(images, noise, severity, seed=0)
    assert noisy.dtype == np.uint8
    assert noisy.shape == images.shape
    assert np.array_equal(images, before)


def test_no_level_is_the_clean_image():
    images = random_images()
    clean = corrupt_level(images, "shot", None, seed=0, slot=100)
    assert np.array_equal(clean, images)
    assert not np.shares_memory(clean, images)


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (random_images(), {"noise": "fog"}, "noise 'fog' is unknown; choose one of gaussian, shot, speckle"),
        (random_images(), {"severity": 0}, "severity 0 is not one of 1, 2, 3, 4, 5"),
        (random_images(), {"severity": 6}, "severity 6 is not one of"),
        (random_images(), {"scale": "svhn"}, "scale 'svhn' is unknown; choose one of cifar, imagenet.*"),
        (random_images().astype(float), {}, r"float64 of shape \(6, 9, 7, 3\); give uint8"),
        (random_images()[0], {}, r"uint8 of shape \(9, 7, 3\); give uint8, \(N, H, W, channels\)"),
        (random_images(), {"indices": [0, 1]}, "2 indices for 6 images"),
    ],
)
def test_what_cannot_be_corrupted_is_refused_in_one_sentence(images, options, message):
    with pytest.raises(ValueError, match=message):
        corrupt(images, **{"noise": "gaussian", "severity": 1, "seed": 0} | options)


def test_a_level_without_meaning_is_refused():
    with pytest.raises(ValueError, match="level 0 of shot noise is not allowed"):
        corrupt_level(random_images(), "shot", 0, seed=0, slot=100)
