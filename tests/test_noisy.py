"""The noisy images that robustness is measured on: pixel for pixel what their label says, each with its clean one."""

import numpy as np
import pytest
from PIL import Image

from sdnet.commands.noisy import Noise, Split
from sdnet.data.corruptions import corrupt, corrupt_level, jpeg

CLASSES = {"n01": 3, "n02": 2}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """An ImageNet of smooth pictures, the same ones to train and to test, 224 pixels high."""
    root, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name, count in CLASSES.items():
        for i in range(count):
            picture = Image.fromarray(generator.integers(256, size=(6, 7, 3), dtype=np.uint8))
            for split in ("train", "val"):
                (root / split / name).mkdir(parents=True, exist_ok=True)
                picture.resize((260, 224), Image.Resampling.BICUBIC).save(root / split / name / f"{name}_{i}.JPEG")
    return root


@pytest.fixture
def imagenet_c(tree, tmp_path):
    """The files of ImageNet-C in grey: the value is the image's position, so that a file says which image it is."""
    for i, path in enumerate(sorted((tree / "val").glob("*/*.JPEG"))):
        file = tmp_path / "shot_noise" / "2" / path.parent.name / path.name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (224, 224), 40 * i).save(file, quality=85)
    return tmp_path


def split(tree, image_size=224, part="test", limit=None):
    dataset = {"name": "imagenet", "train_images": None, "test_images": None, "image_size": image_size}
    return Split({"dataset": dataset}, tree, part, limit)


def all_of(batches):
    images, labels = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def test_jpeg_is_what_a_file_of_quality_85_gives_back(tmp_path):
    images = np.random.default_rng(0).integers(256, size=(2, 40, 30, 3), dtype=np.uint8)
    compressed = jpeg(images)
    for image, out in zip(images, compressed, strict=True):
        Image.fromarray(image).save(tmp_path / "image.jpg", quality=85)
        assert np.array_equal(out, np.asarray(Image.open(tmp_path / "image.jpg")))
    assert not np.array_equal(compressed, images)


@pytest.mark.parametrize(("image_size", "scale"), [(72, "imagenet"), (72, "cifar"), (48, "imagenet")])
def test_noise_like_imagenet_c_s_goes_through_jpeg_and_says_so(tree, image_size, scale):
    """On images as large as ImageNet's alone; to calibrate, as Algorithm 1 has it, on none."""
    images, noise = split(tree, image_size), Noise("gaussian", scale, 3, None)
    clean, _ = all_of(images.clean())
    noisy, labels = all_of(images.at_severity(noise, 2))
    expected = corrupt(clean, "gaussian", 2, seed=3, scale=scale)
    compressed = (image_size, scale) == (72, "imagenet")
    assert np.array_equal(noisy, jpeg(expected) if compressed else expected)
    assert images.noise_source(noise) == f"generated, {scale} severities" + (", JPEG" if compressed else "")
    assert labels.tolist() == [0, 0, 0, 1, 1]
    leveled, _ = all_of(split(tree, image_size, "train").at_level(noise, 1, 0.1))
    assert np.array_equal(leveled, corrupt_level(clean, "gaussian", 0.1, seed=3, slot=101))


@pytest.mark.parametrize("limit", [None, 4])
def test_each_file_of_imagenet_c_goes_with_its_clean_image(tree, imagenet_c, limit):
    images, noise = split(tree, limit=limit), Noise("shot", "imagenet", 0, imagenet_c)
    noisy, labels = all_of(images.at_severity(noise, 2))
    assert noisy[:, 0, 0, 0].tolist() == [40 * i for i in images.indices]
    assert labels.tolist() == all_of(images.clean())[1].tolist()
    assert images.noise_source(noise) == "local ImageNet-C, 5 images"


def test_an_imagenet_c_of_other_images_is_refused(tree, imagenet_c):
    folder = imagenet_c / "shot_noise" / "2"
    (folder / "n02" / "n02_0.JPEG").rename(folder / "n02" / "n02_7.JPEG")
    with pytest.raises(ValueError, match=r"2 has 5 images, the clean split 5; .*first differences: n02_0, n02_7\)$"):
        all_of(split(tree).at_severity(Noise("shot", "imagenet", 0, imagenet_c), 2))
