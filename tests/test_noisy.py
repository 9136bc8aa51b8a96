"""The noisy images that robustness is measured on: pixel for pixel what their label says, each with its clean one."""

import os
import shutil
import subprocess
import sys
from hashlib import md5

import numpy as np
import pytest
from PIL import Image
from small_run import edited, make_spec

from sdnet.commands.calibrate import calibrate
from sdnet.commands.sweep import sweep
from sdnet.data import cifar_c
from sdnet.data.corruptions import CALIBRATION_LEVELS, SEVERITIES, corrupt, corrupt_level, jpeg
from sdnet.data.images import Images, subset
from sdnet.experiments import results
from sdnet.runs import noisy
from sdnet.runs.network import build_model, save_model
from sdnet.runs.noisy import Noise, open_split
from sdnet.runs.spec import read_spec

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


def split(tree, image_size=224, part="test", limit=None, used=None):
    dataset = {"name": "imagenet", "train_images": None, "test_images": used, "image_size": image_size}
    return open_split({"dataset": dataset}, tree, part, limit)


def at_every_severity(imagenet_c):
    """The files of severity 2 for the other four, too."""
    for severity in {*SEVERITIES} - {2}:
        shutil.copytree(imagenet_c / "shot_noise/2", imagenet_c / "shot_noise" / str(severity))


def imagenet_run(folder):
    """An untrained network for the images of the tree."""
    dataset = {"name": "imagenet", "checksum": None, "train_images": None, "test_images": None, "image_size": 224}
    spec = edited(make_spec(folder / "run"), dataset=dataset)
    save_model(build_model(read_spec(spec), len(CLASSES)), spec.parent / "model.pt")
    return spec.parent


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
    assert len(split(tree, limit=limit, used=3)) == 3, "no more than the run uses"


def test_an_imagenet_c_of_other_images_is_refused(tree, imagenet_c):
    folder = imagenet_c / "shot_noise" / "2"
    (folder / "n02" / "n02_0.JPEG").rename(folder / "n01" / "n02_0.JPEG")  # with another label
    sentence = r"2 has 5 images, the clean split 5; .*first differences: n01/n02_0, n02/n02_0\)$"
    with pytest.raises(ValueError, match=sentence):
        all_of(split(tree).at_severity(Noise("shot", "imagenet", 0, imagenet_c), 2))
    at_every_severity(imagenet_c)
    with pytest.raises(ValueError, match=sentence.replace("2 has", "1 has")):
        split(tree).contents(Noise("shot", "imagenet", 0, imagenet_c))


def test_what_images_hold_tells_folders_apart_that_are_called_the_same(tree, imagenet_c, tmp_path):
    at_every_severity(imagenet_c)
    moved = shutil.copytree(imagenet_c / "shot_noise", tmp_path / "moved/shot_noise").parent
    generated, official, same = (Noise("shot", "imagenet", 0, root) for root in (None, imagenet_c, moved))
    found = split(tree).contents(official)
    assert found == split(tree).contents(same) != split(tree).contents(generated)
    other = next((moved / "shot_noise/4").glob("*/*"))
    Image.new("L", (224, 224), 7).save(other, quality=20)
    assert split(tree).contents(same) != found
    others = shutil.copytree(tree, tmp_path / "others")
    Image.new("L", (260, 224), 7).save(next((others / "val").glob("*/*")))
    assert split(others).contents(generated) != split(tree).contents(generated)


def test_a_damaged_file_of_imagenet_c_is_named_in_one_sentence(tree, imagenet_c, tmp_path):
    """By the command, whose worker processes read the files; the whole ones before it cost no word."""
    at_every_severity(imagenet_c)
    file = imagenet_c / "shot_noise" / "2" / "n02" / "n02_1.JPEG"
    file.write_bytes(file.read_bytes()[:700])
    options = f"--noise shot --official {imagenet_c} --data {tree} --lambdas 0.1 --gpus 0"
    command = [sys.executable, "-m", "sdnet", "sweep", str(imagenet_run(tmp_path)), *options.split()]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    (message,) = done.stderr.splitlines()
    assert message.startswith(f"error: {file} cannot be read as an image (")


def test_algorithm_1_fits_on_training_images_which_imagenet_c_has_not(tree, imagenet_c, tmp_path, monkeypatch):
    monkeypatch.setitem(CALIBRATION_LEVELS["released"], "shot", (None, 12))
    at_every_severity(imagenet_c)
    more = shutil.copytree(tree, tmp_path / "more")
    for path in sorted((tree / "train/n01").iterdir()):
        shutil.copy(path, more / "train/n01" / f"again_{path.name}")
    run, noise, lambdas = imagenet_run(tmp_path), Noise("shot", "imagenet", 0, imagenet_c), [0.1, 0.5]
    sweep(run, more, noise, lambdas, None, gpus=0)
    options = {"levels": "released", "images": 100, "limit": None, "variants": ["paper"]}
    calibrate(run, more, noise, lambdas, **options, gpus=0)
    assert set(results.read(run / "calibration-shot.csv", "calibration").images) == {8}
    adaptive = results.read(run / "adaptive-shot.csv", "adaptive")
    assert set(adaptive.total) == {5, 25}, "of each severity, and of all"
    assert set(adaptive.noise_source) == {"local ImageNet-C, 5 images"}


@pytest.mark.parametrize("source", ["official", "local CIFAR-10-C"])
def test_files_of_cifar_10_c_are_called_official_by_their_checksums_alone(tmp_path, monkeypatch, source):
    images, labels = np.zeros((3, 32, 32, 3), np.uint8), np.arange(3)
    clean = Images(images, labels, images, labels, classes=("a", "b", "c"), source="official")
    monkeypatch.setattr(noisy, "open_images", lambda spec, path: clean)
    files = {"shot_noise.npy": np.arange(5).repeat(3 * 32 * 32 * 3).astype(np.uint8).reshape(15, 32, 32, 3)}
    for name, array in (files | {"labels.npy": np.tile(labels, 5)}).items():
        np.save(tmp_path / name, array)
    if source == "official":
        known = {name: md5((tmp_path / name).read_bytes()).hexdigest() for name in ("shot_noise.npy", "labels.npy")}
        monkeypatch.setitem(cifar_c.ARCHIVES, "cifar10", cifar_c.Archive("CIFAR-10-C", known))
    dataset = {"name": "cifar10", "train_images": None, "test_images": None, "image_size": None}
    test, noise = open_split({"dataset": dataset}, None, "test", None), Noise("shot", "cifar", 0, tmp_path)
    assert set(all_of(test.at_severity(noise, 4))[0].ravel()) == {3}
    assert test.noise_source(noise) == source


@pytest.mark.parametrize("limit", [None, 7])
def test_batches_and_parts_of_a_data_set_have_their_own_noise_and_files(tmp_path, monkeypatch, limit):
    """Each noisy image is that of the clean one beside it, whichever batch it is in, and has its label."""
    generator, labels = np.random.default_rng(0), np.arange(10) % 2
    images = generator.integers(256, size=(10, 32, 32, 3), dtype=np.uint8)
    data = Images(images, labels, images, labels, classes=("a", "b"), source="official")
    monkeypatch.setattr(noisy, "open_images", lambda spec, path: data)
    monkeypatch.setattr(noisy, "EVALUATION_BATCH", 4)
    files = np.arange(50, dtype=np.uint8).repeat(32 * 32 * 3).reshape(50, 32, 32, 3)  # the value is the position
    for file, array in {"shot_noise.npy": files, "labels.npy": np.tile(labels, 5)}.items():
        np.save(tmp_path / file, array)
    spec = {"dataset": {"name": "cifar10", "train_images": 8, "test_images": 6, "image_size": None}}
    test, train = (open_split(spec, None, part, limit) for part in ("test", "train"))
    used = subset(data, 8, 6, seed=0)
    for part, of_run in ((train, used.train_images), (test, used.test_images)):
        found = [image.tobytes() for image in all_of(part.clean())[0]]
        assert len(found) == min(len(of_run), limit or 10)
        assert {*found} <= {image.tobytes() for image in of_run}, "none that the run does not use"
    generated, official = Noise("shot", "cifar", 3, None), Noise("shot", "cifar", 3, tmp_path)
    assert len(list(test.clean())) > 1
    for name, (found, expected) in {
        "generated": (test.at_severity(generated, 2), corrupt(images, "shot", 2, seed=3, scale="cifar")[test.indices]),
        "official": (test.at_severity(official, 2), files[10:20][test.indices]),
        "levels": (
            train.at_level(generated, 1, 60),
            corrupt_level(images, "shot", 60, seed=3, slot=101)[train.indices],
        ),
    }.items():
        noisy_images, of_images = all_of(found)
        assert np.array_equal(noisy_images, expected)
        assert np.array_equal(of_images, labels[(train if name == "levels" else test).indices])
    moved, other = (shutil.copytree(tmp_path, tmp_path / name) for name in ("moved", "other"))
    np.save(other / "shot_noise.npy", files + 1)
    contents = [test.contents(Noise("shot", "cifar", 3, folder)) for folder in (tmp_path, moved, other)]
    assert contents[0] == contents[1] != contents[2]


def test_files_of_imagenet_c_are_of_one_size(tree, imagenet_c):
    with pytest.raises(ValueError, match=r"has images of 224 pixels, and the network sees 64: leave out --official"):
        all_of(split(tree, 64).at_severity(Noise("shot", "imagenet", 0, imagenet_c), 2))
