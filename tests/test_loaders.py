"""Loaders: what a batch holds, and that an epoch follows from its seed and number alone."""

import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from sdnet.data.folders import FolderLoader
from sdnet.data.loaders import DeviceLoader

N, HEIGHT, WIDTH, PADDING = 60, 7, 5, 2


@pytest.fixture(params=[1, 3], ids=["grey", "colour"])
def images(request):
    return np.random.default_rng(0).integers(1, 256, size=(N, HEIGHT, WIDTH, request.param), dtype=np.uint8)


LABELS = np.arange(N)  # image i has label i, so that a batch says which images it holds


def device_loader(images, **options):
    options = {"batch_size": 16, "device": "cpu", "augment": True, "crop_padding": PADDING, "flip": True} | options
    return DeviceLoader(images, LABELS[: len(images)], **options)


def all_of(loader, k=0):
    """The images of an epoch as bytes, NHWC, and their labels."""
    batches = list(loader.epoch(k))
    pixels = torch.cat([x for x, _ in batches]) * 255
    return pixels.round().byte().permute(0, 2, 3, 1).numpy(), torch.cat([y for _, y in batches]).numpy()


def crops(image, padding):
    """{crop's bytes: (top, left, mirrored)} of every crop with black padding, each also mirrored."""
    height, width, _ = image.shape
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    return {
        padded[top : top + height, left : left + width][:, ::step].tobytes(): (top, left, step == -1)
        for top in range(2 * padding + 1)
        for left in range(2 * padding + 1)
        for step in (1, -1)
    }


def test_evaluation_gives_every_image_unchanged_and_in_order(images):
    loader = device_loader(images, augment=False)
    batches = list(loader.epoch(0))
    x = torch.cat([x for x, _ in batches])
    assert torch.equal(x, torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    assert torch.cat([y for _, y in batches]).tolist() == LABELS.tolist()


@pytest.mark.parametrize("augment", [True, False])
def test_batches_are_float32_nchw_of_unit_range_and_channels_last_in_memory(images, augment):
    loader = device_loader(images, augment=augment)
    assert len(loader) == 4
    assert loader.num_images == N
    sizes = []
    for x, y in loader.epoch(0):
        sizes.append(len(x))
        assert x.shape == (len(y), images.shape[-1], HEIGHT, WIDTH)
        assert x.dtype == torch.float32
        assert y.dtype == torch.int64
        assert x.is_contiguous(memory_format=torch.channels_last)
        assert 0 <= x.min() < x.max() <= 1
    assert sizes == [16, 16, 16, 12]


def test_a_training_epoch_has_each_image_once_in_another_order(images):
    _, labels = all_of(device_loader(images))
    assert sorted(labels) == LABELS.tolist()
    assert labels.tolist() != LABELS.tolist()


def test_each_image_has_a_crop_and_a_mirroring_of_its_own(images):
    """Against every possible crop, by brute force; over 20 epochs all of them occur, and black only where padded."""
    loader, seen = device_loader(images), []
    for k in range(20):
        found = [crops(images[y], PADDING)[x.tobytes()] for x, y in zip(*all_of(loader, k), strict=True)]
        assert len(set(found[:16])) > 4, "one batch has many crops"
        seen += found
    offsets = np.bincount([top for top, _, _ in seen] + [left + 5 for _, left, _ in seen], minlength=10)
    # 1200 draws over 5 offsets, 1200 of 2 sides: five standard deviations
    assert np.abs(offsets - 240).max() < 5 * np.sqrt(1200 * 0.2 * 0.8)
    assert abs(sum(mirrored for _, _, mirrored in seen) - 600) < 5 * np.sqrt(1200 / 4)
    assert len(set(seen)) == 5 * 5 * 2


def test_without_flip_and_padding_images_are_only_shuffled(images):
    pixels, labels = all_of(device_loader(images, flip=False, crop_padding=0))
    assert np.array_equal(pixels, images[labels])


@pytest.mark.parametrize("options", [{"flip": False}, {"crop_padding": 0}])
def test_flip_and_crop_can_be_had_alone(images, options):
    loader, found = device_loader(images, **options), []
    for k in range(10):
        found += [crops(images[y], PADDING)[x.tobytes()] for x, y in zip(*all_of(loader, k), strict=True)]
    assert {mirrored for _, _, mirrored in found} == ({False} if "flip" in options else {False, True})
    assert len({(top, left) for top, left, _ in found}) == (1 if "crop_padding" in options else 25)


def test_an_epoch_does_not_depend_on_what_ran_before(images):
    expected = all_of(device_loader(images), 3)
    used = device_loader(images)
    for k in (0, 3, 1):
        next(used.epoch(k))
    torch.manual_seed(5)
    torch.testing.assert_close(all_of(used, 3), expected, rtol=0, atol=0)


def test_epochs_and_seeds_differ(images):
    orders = [all_of(device_loader(images, seed=seed), k)[1].tolist() for seed, k in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert len({tuple(order) for order in orders}) == 4


def test_loading_leaves_the_global_generators_alone(images):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    all_of(device_loader(images))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


def test_another_default_device_of_torch_changes_no_batch(images):
    expected = all_of(device_loader(images))
    with torch.device("meta"):
        pixels, labels = all_of(device_loader(images))
    assert np.array_equal(pixels, expected[0])
    assert np.array_equal(labels, expected[1])


def test_images_that_are_no_bytes_are_refused(images):
    with pytest.raises(ValueError, match=r"with labels int32 \(\d+,\), expected .* and int64 \(N,\)"):
        DeviceLoader(images, LABELS.astype(np.int32), batch_size=4, device="cpu", augment=False)
    with pytest.raises(ValueError, match="expected uint8"):
        device_loader(images.astype(np.float32))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_batches_are_the_same_and_nothing_waits_for_the_host(images):
    expected = all_of(device_loader(images), 1)
    loader = device_loader(images, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        batches = list(loader.epoch(1))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    x, y = (torch.cat(part).cpu() for part in zip(*batches, strict=True))
    assert np.array_equal((x * 255).round().byte().permute(0, 2, 3, 1).numpy(), expected[0])
    assert np.array_equal(y.numpy(), expected[1])


SIZE = 32  # below the limit under which images are cropped as CIFAR's are


def write_tree(root, size, splits=("train", "val")):
    """Random lossless images: 5 of class "cat", 3 of "ant", per split; {class number: [images]} of each split."""
    generator = np.random.default_rng(0)
    written = {}
    for split in splits:
        for label, (name, count) in enumerate({"ant": 3, "cat": 5}.items()):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(1, 256, size=(*size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
                written.setdefault((split, label), []).append(pixels)
    return written


@pytest.fixture
def tree(tmp_path):
    write_tree(tmp_path / "images", (SIZE, SIZE))
    return tmp_path / "images"


def folder_loader(root, split="train", **options):
    options = {"image_size": SIZE, "batch_size": 3, "augment": split == "train", "workers": 0} | options
    return FolderLoader(root, split, **options)


def test_evaluation_of_a_tree_takes_the_centre_of_every_image_in_order(tmp_path):
    """For a network of 112 pixels the shorter side becomes 128, which these images have: no pixel is interpolated."""
    written = write_tree(tmp_path, (128, 140))
    loader = folder_loader(tmp_path, "val", image_size=112)
    pixels, labels = all_of(loader)
    expected = [image[8:120, 14:126] for label in (0, 1) for image in written["val", label]]
    assert np.array_equal(pixels, expected)
    assert labels.tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    assert loader.classes == ["ant", "cat"]


def test_evaluation_of_small_images_of_a_tree_leaves_them_as_they_are(tree):
    pixels, _ = all_of(folder_loader(tree, "val"))
    files = sorted((tree / "val").glob("*/*.png"))
    assert np.array_equal(pixels, [np.asarray(Image.open(file)) for file in files])


def test_batches_of_a_tree_are_as_those_of_the_device_loader(tree):
    loader = folder_loader(tree)
    assert (len(loader), loader.num_images) == (3, 8)
    sizes = []
    for x, y in loader.epoch(0):
        sizes.append(len(x))
        assert x.shape == (len(y), 3, SIZE, SIZE)
        assert x.dtype == torch.float32
        assert y.dtype == torch.int64
        assert x.is_contiguous(memory_format=torch.channels_last)
        assert 0 <= x.min() < x.max() <= 1
    assert sizes == [3, 3, 2]


def test_small_images_of_a_tree_are_cropped_with_padding_4_and_mirrored(tree):
    files = sorted((tree / "train").glob("*/*.png"))
    possible = [crops(np.asarray(Image.open(file)), 4) for file in files]
    loader, seen = folder_loader(tree), []
    for k in range(10):
        pixels, _ = all_of(loader, k)
        matches = [(i, p[x.tobytes()]) for x in pixels for i, p in enumerate(possible) if x.tobytes() in p]
        assert sorted(i for i, _ in matches) == list(range(8)), "each image once"
        seen += [crop for _, crop in matches]
    assert {mirrored for _, _, mirrored in seen} == {False, True}
    assert {top for top, _, _ in seen} == {left for _, left, _ in seen} == set(range(9))


def test_large_images_of_a_tree_are_cropped_at_random_sizes(tmp_path):
    """A picture of its own coordinates shows which part of it was taken."""
    ramp = np.linspace(0, 255, 200, dtype=np.uint8)
    picture = np.stack([*np.meshgrid(ramp, ramp), np.zeros((200, 200), np.uint8)], axis=-1)
    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
        Image.fromarray(picture).save(tmp_path / split / "a" / "1.png")
    loader = folder_loader(tmp_path, image_size=80)
    x = torch.cat([x for k in range(20) for x, _ in loader.epoch(k)])
    width = x[:, 0, 40, -1] - x[:, 0, 40, 0]  # negative where mirrored
    height = x[:, 1, -1, 40] - x[:, 1, 0, 40]
    area = width.abs() * height
    assert x.shape == (20, 3, 80, 80)
    assert (width > 0).any()
    assert (width < 0).any()
    assert (height > 0).all()
    # RandomResizedCrop takes 8% to 100% of the area; half a pixel and a grey level are lost at each edge
    assert area.min() > 0.06
    assert area.min() < 0.4 < 0.7 < area.max() <= 1


def test_an_epoch_of_a_tree_depends_on_neither_the_workers_nor_what_ran_before(tree):
    expected = all_of(folder_loader(tree), 3)
    used = folder_loader(tree, workers=2)
    next(used.epoch(1))
    torch.manual_seed(5)
    torch.testing.assert_close(all_of(used, 3), expected, rtol=0, atol=0)


def test_epochs_and_seeds_of_a_tree_differ(tree):
    epochs = [all_of(folder_loader(tree, seed=seed), k)[0].tobytes() for seed, k in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert len(set(epochs)) == 4


def test_reading_a_tree_leaves_the_global_generators_alone(tree):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    all_of(folder_loader(tree))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_every_kind_of_image_becomes_rgb(tree, mode):
    file = tree / "val" / "ant" / "0.png"
    image = Image.open(file).convert(mode)
    image.save(file.with_suffix(".tiff"))
    file.unlink()
    pixels, _ = all_of(folder_loader(tree, "val"))
    assert pixels.shape == (8, SIZE, SIZE, 3)
    assert np.array_equal(pixels[0], np.asarray(image.convert("RGB")))


def test_test_is_taken_where_there_is_no_val(tree):
    expected, _ = all_of(folder_loader(tree, "val"))
    (tree / "val").rename(tree / "test")
    assert np.array_equal(all_of(folder_loader(tree, "val"))[0], expected)


@pytest.mark.parametrize(("limit", "per_class"), [(2, [1, 1]), (4, [2, 2]), (7, [3, 4]), (100, [3, 5])])
def test_a_limit_keeps_the_classes_balanced_and_the_images_the_same_for_every_seed(tree, limit, per_class):
    loaders = [folder_loader(tree, "val", limit=limit, seed=seed) for seed in (0, 1)]
    (first, labels), (second, _) = map(all_of, loaders)
    assert np.bincount(labels).tolist() == per_class
    assert loaders[0].num_images == sum(per_class)
    assert np.array_equal(first, second)


def assert_refused(error, sentence, root, **options):
    with pytest.raises(error, match=sentence) as raised:
        folder_loader(root, **options)
    assert str(root) in str(raised.value)
    assert "<class>/<image>" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_split_of_another_name_is_answered_with_the_names(tree):
    with pytest.raises(
        ValueError, match="there is no split 'test': choose 'train' or 'val', whose folder may be named test"
    ):
        folder_loader(tree, "test")


def test_a_missing_root_or_split_is_named_with_the_layout(tree):
    assert_refused(FileNotFoundError, "there is no folder .*nowhere: expected", tree / "nowhere")
    (tree / "val").rename(tree / "validation")
    assert_refused(FileNotFoundError, "there is no folder .*val: expected", tree)


def test_splits_of_different_classes_are_named(tree):
    (tree / "val" / "cat").rename(tree / "val" / "dog")
    assert_refused(ValueError, r"differ \(2 are in one of them only, such as 'cat'\)", tree)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_images_is_named(tree, split):
    for file in (tree / split).glob("*/*.png"):
        file.unlink()
    assert_refused(FileNotFoundError, r"lacks classes or images \(.*ant, cat", tree, split=split)


def test_a_tree_without_classes_is_named(tree):
    for split in ("train", "val"):
        shutil.rmtree(tree / split)
        (tree / split).mkdir()
    assert_refused(FileNotFoundError, "lacks classes or images", tree)


def test_an_image_of_16_bits_is_refused_and_not_clipped(tree):
    Image.fromarray(np.full((SIZE, SIZE), 4000, dtype=np.uint16)).save(tree / "train" / "cat" / "2.png")
    with pytest.raises(
        ValueError, match=r"2\.png cannot be read as an image \(it has more than 8 bits a channel, mode I"
    ):
        list(folder_loader(tree).epoch(0))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("content", [b"", b"not an image", "cut"], ids=["empty", "text", "cut short"])
def test_an_unreadable_image_is_named_in_one_sentence(tree, workers, content):
    file = tree / "train" / "cat" / "2.png"
    file.write_bytes(file.read_bytes()[:500] if content == "cut" else content)
    with pytest.raises(ValueError, match="cannot be read as an image") as error:
        list(folder_loader(tree, workers=workers).epoch(0))
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


READER = """
import sys
from pathlib import Path

import torch.utils.data._utils.worker

from sdnet.data.folders import FolderLoader

torch.utils.data._utils.worker.MP_STATUS_CHECK_INTERVAL = 1e6  # seconds until a worker itself looks for its reader
batches = FolderLoader(Path(sys.argv[1]), "val", image_size=32, batch_size=1, augment=False, workers=2).epoch(0)
next(batches)
print("reads", flush=True)
sys.stdin.read()
"""


def test_workers_end_when_the_process_they_read_for_is_killed(tree):
    """They have its output open, too, which ends with the last of them."""
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen([sys.executable, "-c", READER, tree], **options) as reader:
        try:
            assert reader.stdout.readline() == "reads\n"
            reader.kill()
            assert reader.communicate(timeout=60) == ("", None)
        finally:
            if reader.returncode is None:
                os.killpg(reader.pid, signal.SIGKILL)


@pytest.mark.parametrize("part", ["order", "crops"])
def test_the_order_and_the_crops_of_a_tree_each_follow_seed_and_epoch(tree, part):
    def epoch(seed, k):
        loader = folder_loader(tree, seed=seed)
        if part == "order":
            loader.transform = lambda image: image
        else:
            loader.augment = False
        return all_of(loader, k)[0].tobytes()

    assert len({epoch(seed, k) for seed in (0, 1) for k in (0, 1)}) == 4


def test_images_of_64_pixels_are_small_ones(tmp_path):
    written = write_tree(tmp_path, (64, 64))
    assert np.array_equal(all_of(folder_loader(tmp_path, "val", image_size=64))[0][:3], written["val", 0])
    possible = {crop for label in (0, 1) for image in written["train", label] for crop in crops(image, 4)}
    assert all(x.tobytes() in possible for x in all_of(folder_loader(tmp_path, image_size=64))[0])


def test_val_is_taken_where_there_is_a_test_too(tree):
    expected, _ = all_of(folder_loader(tree, "val"))
    shutil.copytree(tree / "train", tree / "test")
    assert np.array_equal(all_of(folder_loader(tree, "val"))[0], expected)


def test_an_image_of_floats_is_refused_and_not_clipped(tree):
    Image.fromarray(np.full((SIZE, SIZE), 0.5, dtype=np.float32)).save(tree / "train" / "cat" / "2.tiff")
    with pytest.raises(
        ValueError, match=r"2\.tiff cannot be read as an image \(it has more than 8 bits a channel, mode F"
    ):
        list(folder_loader(tree).epoch(0))
