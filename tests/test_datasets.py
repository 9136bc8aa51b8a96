"""Data sets: CIFAR archives, honest and hostile, the digits, and balanced parts of them."""

import hashlib
import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest
from torchvision.models import ResNet18_Weights

from sdnet.data import cifar
from sdnet.data.datasets import INFO, load
from sdnet.data.digits import load_digits_images
from sdnet.data.images import Images, subset

TRAIN, TEST = 30, 10  # images in each batch file of the stand-in archives


def python2_pickle(pixels, labels, labels_key):
    """A batch file as Python 2 and NumPy 1 wrote it: byte strings, and the module name numpy.core."""

    def string(text):
        return b"U" + bytes([len(text)]) + text

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"  # an empty array ...
        b"(K\x01(" + b"".join(b"M" + struct.pack("<H", n) for n in pixels.shape) + b"t"  # ... its shape,
        b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"  # uint8,
        b"\x89T" + struct.pack("<I", pixels.size) + pixels.tobytes() + b"tb"  # and content
    )
    numbers = b"](" + b"".join(b"K" + bytes([y]) for y in labels) + b"e"
    return b"\x80\x02}(" + string(b"data") + array + string(labels_key) + numbers + b"u."


class Archive:
    """A small stand-in for the official archive of `name`: the same members, fewer images."""

    def __init__(self, name, folder):
        official, num_classes = cifar.OFFICIAL[name], INFO[name].num_classes
        self.name, self.path, self.out = name, folder / "archive.tar.gz", folder / "made" / f"{name}.npz"
        self.folder, self.meta = official.base_folder, official.meta["filename"]
        self.train = [member for member, _ in official.train_list]
        self.test = official.test_list[0][0]
        self.labels_key = {"cifar10": b"labels", "cifar100": b"fine_labels"}[name]
        generator = np.random.default_rng(0)
        self.pixels = {m: generator.integers(256, size=(TRAIN, 3072), dtype=np.uint8) for m in self.train}
        self.pixels[self.test] = generator.integers(256, size=(TEST, 3072), dtype=np.uint8)
        self.labels = {m: generator.integers(num_classes, size=len(p)) for m, p in self.pixels.items()}
        self.files = {m: python2_pickle(p, self.labels[m], self.labels_key) for m, p in self.pixels.items()}
        self.classes = [f"class {i}" for i in range(num_classes)]
        self.files[self.meta] = self.pickle_classes(self.classes)
        self.extra = []  # (TarInfo, content) pairs that no official archive has

    def pickle_classes(self, classes):
        key = cifar.OFFICIAL[self.name].meta["key"]
        return pickle.dumps({key.encode(): [c.encode() for c in classes]}, protocol=2)

    def convert(self, mode="w:gz", prefix=""):
        with tarfile.open(self.path, mode) as tar:
            for entry, content in self.extra:
                tar.addfile(entry, io.BytesIO(content))
            for member, content in self.files.items():
                entry = tarfile.TarInfo(f"{prefix}{self.folder}/{member}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        self.convert_file()

    def convert_file(self):
        cifar.convert(self.path, self.name, self.out)

    def load(self):
        return load(self.name, self.out)

    def assert_refused(self, sentence):
        with pytest.raises(ValueError, match=sentence) as error:
            self.convert()
        assert str(self.path) in str(error.value)
        assert "\n" not in str(error.value)
        assert not self.out.exists()


@pytest.fixture(params=["cifar10", "cifar100"])
def archive(request, tmp_path, monkeypatch):
    archive = Archive(request.param, tmp_path)
    monkeypatch.setattr(cifar, "IMAGES_PER_SPLIT", {"train": TRAIN * len(archive.train), "test": TEST})
    return archive


def test_an_archive_becomes_its_images_in_order_and_nhwc(archive):
    archive.convert()
    images = archive.load()
    assert images.train_images.shape == (TRAIN * len(archive.train), 32, 32, 3)
    assert images.train_images.dtype == images.test_images.dtype == np.uint8
    assert images.train_labels.dtype == images.test_labels.dtype == np.int64
    assert images.train_labels.tolist() == np.concatenate([archive.labels[m] for m in archive.train]).tolist()
    assert images.test_labels.tolist() == archive.labels[archive.test].tolist()
    assert images.classes == tuple(archive.classes)
    last = archive.pixels[archive.train[-1]][-1]  # 1024 red, then green, then blue pixels, row by row
    for channel in range(3):
        assert images.train_images[-1, 5, 7, channel] == last[1024 * channel + 32 * 5 + 7]
    assert np.array_equal(images.test_images[:, 0, 0, :], archive.pixels[archive.test][:, ::1024])


def test_the_file_says_from_which_archive_it_comes_and_nothing_else_is_left(archive):
    archive.convert()
    with np.load(archive.out) as arrays:
        assert arrays["archive"] == "sha256:" + hashlib.sha256(archive.path.read_bytes()).hexdigest()
    assert os.listdir(archive.out.parent) == [archive.out.name]


def test_an_archive_written_by_python_3_is_read_as_well(archive):
    batch = {b"data": archive.pixels[archive.test], archive.labels_key: archive.labels[archive.test].tolist()}
    archive.files[archive.test] = pickle.dumps(batch, protocol=2)
    archive.convert()
    assert archive.load().test_labels.tolist() == archive.labels[archive.test].tolist()


def test_only_files_of_official_checksum_are_called_official(archive, monkeypatch):
    def md5(member):
        return hashlib.md5(archive.files[member]).hexdigest()

    archive.convert()
    assert archive.load().source == f"unofficial copy (md5 of {archive.test}: {md5(archive.test)})"
    official = cifar.OFFICIAL[archive.name]
    monkeypatch.setattr(official, "train_list", [[member, md5(member)] for member in archive.train])
    monkeypatch.setattr(official, "test_list", [[archive.test, md5(archive.test)]])
    archive.convert()
    assert archive.load().source == "official"
    pixels = 255 - archive.pixels[archive.train[0]]
    archive.files[archive.train[0]] = python2_pickle(pixels, archive.labels[archive.train[0]], archive.labels_key)
    archive.convert()
    assert archive.load().source.startswith("unofficial copy")


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("where", ["train", "meta"])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(archive, tmp_path, where):
    target = tmp_path / "executed"
    member = archive.meta if where == "meta" else archive.train[0]
    archive.files[member] = pickle.dumps({b"data": Bomb(target)}, protocol=2)
    archive.assert_refused(rf"{member} is not a pickle of plain arrays \(it asks for \w+\.mkdir\)")
    assert not target.exists()
    pickle.loads(archive.files[member])
    assert target.exists(), "the bomb must be a real one"


@pytest.mark.parametrize(
    "pickled",
    [
        b"cbuiltins\neval\n.",
        b"cnumpy\nload\n.",
        b"cnumpy.core.multiarray\nfromfile\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x0cndarray.data\x93.",
    ],
    ids=["eval", "numpy.load", "fromfile", "an attribute of an allowed name"],
)
def test_any_other_name_is_refused(archive, pickled):
    archive.files[archive.test] = pickled
    archive.assert_refused("it asks for")


def test_members_that_leave_the_folder_do_nothing(archive, tmp_path):
    outside = tarfile.TarInfo(f"../{archive.folder}/{archive.test}")
    absolute = tarfile.TarInfo(str(tmp_path / "absolute"))
    outside.size = absolute.size = 4
    archive.extra = [(outside, b"evil"), (absolute, b"evil")]
    archive.convert()
    assert archive.load().test_labels.tolist() == archive.labels[archive.test].tolist()
    assert sorted(os.listdir(tmp_path)) == ["archive.tar.gz", "made"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_a_member_that_is_no_regular_file_counts_as_missing(archive, tmp_path, kind):
    (tmp_path / "secret").write_bytes(archive.files.pop(archive.test))
    entry = tarfile.TarInfo(f"{archive.folder}/{archive.test}")
    entry.type, entry.linkname = kind, str(tmp_path / "secret")
    archive.extra = [(entry, b"")]
    archive.assert_refused(f"lacks {archive.test} in its folder {archive.folder}")


@pytest.mark.parametrize(("mode", "prefix"), [("w", ""), ("w:xz", "./")])
def test_a_mirror_may_pack_the_files_anew(archive, mode, prefix):
    archive.convert()
    expected = archive.load()
    archive.convert(mode, prefix)
    assert np.array_equal(archive.load().test_images, expected.test_images)


@pytest.mark.parametrize("mode", ["w:gz", "w:xz"])
@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_a_truncated_archive_is_named(archive, share, mode):
    archive.convert(mode)
    archive.out.unlink()
    content = archive.path.read_bytes()
    archive.path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"is damaged or cut short .* download it again|lacks ") as error:
        archive.convert_file()
    assert str(archive.path) in str(error.value)
    assert not archive.out.exists()


def test_a_file_that_is_no_archive_is_named(archive):
    archive.path.write_bytes(b"<html>Not found</html>")
    with pytest.raises(ValueError, match="is damaged or cut short"):
        archive.convert_file()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda batch: batch[b"data"].astype(np.float32), "must be an array of uint8"),
        (lambda batch: batch[b"data"][:, 1:], "images by 3072"),
        (lambda batch: None, "must be an array of uint8"),
    ],
    ids=["dtype", "shape", "missing"],
)
def test_wrong_pixels_are_named(archive, change, sentence):
    batch = {b"data": archive.pixels[archive.test], archive.labels_key: archive.labels[archive.test].tolist()}
    archive.files[archive.test] = pickle.dumps(batch | {b"data": change(batch)}, protocol=2)
    archive.assert_refused(sentence)


@pytest.mark.parametrize("labels", [[100] + 9 * [0], [-1] + 9 * [0], 9 * [0], 10 * [0.5], 9 * [0] + [[0]], None])
def test_wrong_labels_are_named(archive, labels):
    batch = {b"data": archive.pixels[archive.test], archive.labels_key: labels}
    archive.files[archive.test] = pickle.dumps(batch, protocol=2)
    archive.assert_refused(f"one number of 0 to {len(archive.classes) - 1} for each image")


def test_wrong_class_names_are_named(archive):
    archive.files[archive.meta] = archive.pickle_classes(archive.classes[1:])
    archive.assert_refused(f"must be a list of {len(archive.classes)} names")


def test_a_wrong_number_of_images_is_named(archive, monkeypatch):
    monkeypatch.setattr(cifar, "IMAGES_PER_SPLIT", {"train": 50_000, "test": 10_000})
    archive.assert_refused(f"{TRAIN * len(archive.train)} train images, expected 50,000")


def test_a_missing_file_says_what_makes_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"python -m sdnet data cifar10.*snakemake data/cifar10\.npz"):
        load("cifar10", tmp_path / "cifar10.npz")


def test_a_folder_in_place_of_the_file_is_not_called_damaged(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cifar10: there is no file .*python -m sdnet data cifar10"):
        load("cifar10", tmp_path)


def test_a_file_of_one_array_is_named(tmp_path):
    np.save(tmp_path / "images.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"images\.npy is damaged"):
        load("cifar10", tmp_path / "images.npy")


@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "text", "another npz", "pickled"])
def test_a_damaged_file_is_named_with_what_makes_it_again(archive, damage):
    archive.convert()
    content = bytearray(archive.out.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    archive.out.write_bytes({"empty": b"", "truncated": content[:-1000], "text": b"hello"}.get(damage, content))
    if damage in ("another npz", "pickled"):
        np.savez(archive.out, train_images=np.array([{}] if damage == "pickled" else [0]))
    with pytest.raises(ValueError, match=rf"is damaged .* `python -m sdnet data {archive.name}`"):
        archive.load()


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'mnist' .* choose cifar10, cifar100 or digits"):
        load("mnist", None)


def test_the_digits_are_always_the_same_split_of_all_1797():
    images = load("digits", None)
    assert images.train_images.shape == (1437, 16, 16, 1)
    assert images.test_images.shape == (360, 16, 16, 1)
    assert images.train_images.dtype == np.uint8
    assert images.train_labels.dtype == np.int64
    arrays = (images.train_images, images.train_labels, images.test_images, images.test_labels)
    together = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
    assert together == "ac07c0e1471c6bddb7d6e3ffdeb46d1493b6dffe694635a55fbb7a50f6398fc9"
    assert images.classes == tuple("0123456789")
    assert images.source == "scikit-learn digits"


def test_the_digits_are_split_by_class_and_without_overlap():
    images = load_digits_images()
    share = np.bincount(images.test_labels) / (np.bincount(images.train_labels) + np.bincount(images.test_labels))
    np.testing.assert_allclose(share, 360 / 1797, atol=1 / 174)  # to one image of the smallest class
    train, test = ({i.tobytes() for i in part} for part in (images.train_images, images.test_images))
    assert len(train) == 1437, "no two digits are alike"
    assert not train & test


def test_the_enlarged_digits_keep_their_ink():
    """Bicubic interpolation keeps the mean, but for what is clipped at black and white."""
    from sklearn.datasets import load_digits

    images = load_digits_images()
    ours = np.concatenate([images.train_images, images.test_images]).mean() / 255
    assert ours == pytest.approx(load_digits().images.mean() / 16, abs=0.01)
    assert images.train_images.max() == 255
    assert images.train_images.min() == 0


def test_the_statistics_of_the_digits_are_those_of_their_training_pixels():
    pixels = load_digits_images().train_images / 255
    assert INFO["digits"].mean == (round(pixels.mean(), 4),)
    assert INFO["digits"].std == (round(pixels.std(), 4),)


def test_the_facts_fit_together():
    assert set(INFO) >= {"cifar10", "cifar100", "imagenet", "digits", "folder"}
    for info in INFO.values():
        assert len(info.mean) == len(info.std) == info.channels
    digits = load_digits_images()
    assert digits.train_images.shape[1:] == (INFO["digits"].size, INFO["digits"].size, INFO["digits"].channels)
    assert len(digits.classes) == INFO["digits"].num_classes


@pytest.fixture
def images():
    """47 training images of classes with 30, 12 and 5; each image is its own index."""
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [30, 12, 5]))
    pixels = np.broadcast_to(np.arange(47, dtype=np.uint8)[:, None, None, None], (47, 2, 2, 1))
    return Images(pixels, labels, pixels[:20], np.arange(20) % 3, ("a", "b", "c"), "made up")


@pytest.mark.parametrize(
    ("count", "per_class"), [(3, [1, 1, 1]), (9, [3, 3, 3]), (15, [5, 5, 5]), (25, [10, 10, 5]), (47, [30, 12, 5])]
)
def test_a_subset_is_as_balanced_as_the_classes_allow(images, count, per_class):
    part = subset(images, count, None, seed=0)
    assert np.bincount(part.train_labels).tolist() == per_class


@pytest.mark.parametrize("count", [1, 2, 4, 5, 14])
def test_a_number_that_the_classes_do_not_divide_is_balanced_to_within_one(images, count):
    numbers = np.bincount(subset(images, count, None, seed=0).train_labels, minlength=3)
    assert numbers.sum() == count
    assert numbers.max() - numbers.min() <= 1


def test_a_subset_has_each_image_once_with_its_own_label(images):
    part = subset(images, 20, 7, seed=3)
    chosen = part.train_images[:, 0, 0, 0]
    assert len(set(chosen)) == 20
    assert np.array_equal(part.train_labels, images.train_labels[chosen])
    assert np.array_equal(part.test_labels, images.test_labels[part.test_images[:, 0, 0, 0]])
    assert (part.classes, part.source) == (images.classes, images.source)


def test_a_subset_follows_from_its_seed(images):
    first, again, other = (subset(images, 12, 6, seed=seed).train_images for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_test_subset_does_not_depend_on_the_number_of_training_images(images):
    parts = [subset(images, count, 6, seed=0).test_images for count in (None, 5, 30)]
    assert np.array_equal(parts[0], parts[1])
    assert np.array_equal(parts[0], parts[2])


def test_a_smaller_subset_is_part_of_a_larger_one(images):
    small, large = (set(subset(images, count, None, seed=0).train_images[:, 0, 0, 0]) for count in (7, 20))
    assert small < large


def test_no_numbers_mean_all_images(images):
    part = subset(images, None, None, seed=0)
    assert part.train_images is images.train_images
    assert part.test_labels is images.test_labels


@pytest.mark.parametrize(
    ("train", "test", "sentence"),
    [
        (48, None, "48 train images asked for; there are 47"),
        (None, 21, "21 test images asked for; there are 20"),
        (0, None, "choose 1 to 47"),
    ],
)
def test_more_images_than_there_are_or_none_is_an_error(images, train, test, sentence):
    with pytest.raises(ValueError, match=sentence):
        subset(images, train, test, seed=0)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_normalised_as_in_the_authors_code_and_augmented_as_usual(name):
    info = INFO[name]
    assert (info.mean, info.std) == ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
    assert (info.flip, info.crop_padding) == (True, 4)


@pytest.mark.parametrize("name", ["imagenet", "folder"])
def test_imagenet_is_normalised_as_for_torchvision_s_networks_and_the_loader_crops_it(name):
    info, preset = INFO[name], ResNet18_Weights.IMAGENET1K_V1.transforms()
    assert (info.mean, info.std) == (tuple(preset.mean), tuple(preset.std))
    assert (info.flip, info.crop_padding) == (True, 0)


def test_the_digits_are_not_mirrored_and_shifted_as_far_as_cifar_is_for_their_size():
    digits, cifar10 = INFO["digits"], INFO["cifar10"]
    assert not digits.flip
    assert digits.crop_padding / digits.size == cifar10.crop_padding / cifar10.size
