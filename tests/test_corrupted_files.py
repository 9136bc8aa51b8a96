"""The official corrupted test sets are read only if they are whole and belong to the test set."""

import hashlib
import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from sdnet.data import cifar_c
from sdnet.data.imagenet_c import ImageNetC

N = 4  # test images of the stand-in for CIFAR-10-C
LABELS = np.array([3, 1, 0, 2])


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.fixture
def members():
    """A small CIFAR-10-C: file name to content."""
    generator = np.random.default_rng(0)
    files = {
        f"{noise}_noise.npy": npy(generator.integers(0, 256, (5 * N, 32, 32, 3), np.uint8))
        for noise in ("gaussian", "shot", "speckle", "impulse")
    }
    return files | {"labels.npy": npy(np.tile(LABELS, 5).astype(np.uint8)), "fog.npy": b"not needed"}


def write_tar(path, members, folder="CIFAR-10-C"):
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def needed_md5(members):
    return {name: hashlib.md5(content).hexdigest() for name, content in members.items() if name != "fog.npy"}


def test_only_the_needed_members_are_extracted_and_a_severity_is_its_fifth_of_the_rows(tmp_path, members):
    archive = write_tar(tmp_path / "c.tar", members)
    cifar_c.extract(archive, tmp_path / "c", needed_md5(members))
    assert {path.name for path in (tmp_path / "c").iterdir()} == set(needed_md5(members))
    stored = np.load(io.BytesIO(members["shot_noise.npy"]))
    for severity in range(1, 6):
        images = cifar_c.load(tmp_path / "c", "shot", severity, LABELS)
        assert np.array_equal(images, stored[(severity - 1) * N : severity * N])


def test_a_member_with_another_checksum_is_refused_and_not_kept(tmp_path, members):
    archive = write_tar(tmp_path / "c.tar", members)
    md5 = needed_md5(members) | {"shot_noise.npy": "0" * 32}
    with pytest.raises(ValueError, match=r"shot_noise\.npy has MD5 .* expected 0000.*download the archive again"):
        cifar_c.extract(archive, tmp_path / "c", md5)
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["gaussian_noise.npy"]


def test_an_archive_cut_short_is_named_and_leaves_no_part_of_a_file(tmp_path, members):
    archive = write_tar(tmp_path / "c.tar", members)
    content = archive.read_bytes()
    for size in (0, 100, 40_000, len(members["gaussian_noise.npy"]) + 30_000):
        archive.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"c\.tar is damaged .* download it again"):
            cifar_c.extract(archive, tmp_path / "c", needed_md5(members))
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["gaussian_noise.npy"]


def test_another_archive_is_refused(tmp_path, members):
    del members["labels.npy"]
    archive = write_tar(tmp_path / "c.tar", members)
    with pytest.raises(ValueError, match=r"does not contain labels\.npy; is it the right archive"):
        cifar_c.extract(archive, tmp_path / "c", needed_md5(members) | {"labels.npy": "0" * 32})


def test_no_member_is_written_outside_the_folder(tmp_path, members):
    archive = write_tar(tmp_path / "c.tar", members, folder="../..")
    cifar_c.extract(archive, tmp_path / "inner" / "c", needed_md5(members))
    assert {path.name for path in tmp_path.iterdir()} == {"c.tar", "inner"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_member_that_is_a_link_counts_as_missing(tmp_path, members, kind):
    """It would be read, or written to, through the link."""
    (tmp_path / "secret").write_bytes(members.pop("labels.npy"))
    archive = write_tar(tmp_path / "c.tar", members)
    with tarfile.open(archive, "a") as tar:
        link = tarfile.TarInfo("CIFAR-10-C/labels.npy")
        link.type, link.linkname = kind, str(tmp_path / "secret")
        tar.addfile(link)
    md5 = needed_md5(members) | {"labels.npy": hashlib.md5((tmp_path / "secret").read_bytes()).hexdigest()}
    with pytest.raises(ValueError, match=r"does not contain labels\.npy"):
        cifar_c.extract(archive, tmp_path / "c", md5)
    assert not (tmp_path / "c" / "labels.npy").exists()


def test_files_of_another_test_set_are_refused(tmp_path, members):
    cifar_c.extract(write_tar(tmp_path / "c.tar", members), tmp_path, needed_md5(members))
    with pytest.raises(ValueError, match="is not the 4 test labels five times over"):
        cifar_c.load(tmp_path, "gaussian", 1, LABELS[::-1])
    np.save(tmp_path / "gaussian_noise.npy", np.zeros((5 * N, 3, 32, 32), np.uint8))
    with pytest.raises(ValueError, match=r"shape \(20, 3, 32, 32\), expected uint8 \(20, 32, 32, 3\)"):
        cifar_c.load(tmp_path, "gaussian", 1, LABELS)
    with pytest.raises(ValueError, match="severity 0 is not one of"):
        cifar_c.load(tmp_path, "gaussian", 0, LABELS)


def test_a_pickle_in_place_of_an_array_is_refused(tmp_path):
    np.save(tmp_path / "labels.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        cifar_c.load(tmp_path, "gaussian", 1, LABELS)


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
def test_the_official_checksums_name_the_four_noises_and_the_labels(dataset):
    archive = cifar_c.ARCHIVES[dataset]
    files = {"gaussian_noise.npy", "shot_noise.npy", "speckle_noise.npy", "impulse_noise.npy", "labels.npy"}
    assert set(archive.members_md5) == files
    assert {len(md5) for md5 in archive.members_md5.values()} == {32}


@pytest.fixture
def imagenet_c(tmp_path):
    """Two classes, one image each: 224 x 224 in colour, and 226 x 228 in grey with a frame."""
    framed = np.full((226, 228), 200, np.uint8)
    framed[1:-1, 2:-2] = 90
    images = {"n02": Image.fromarray(framed), "n01": Image.new("RGB", (224, 224), (255, 0, 0))}
    for synset, image in images.items():
        folder = tmp_path / "shot_noise" / "3" / synset
        folder.mkdir(parents=True)
        image.save(folder / "ILSVRC2012_val_00000001.JPEG", quality=100)
    return tmp_path


def test_images_are_cropped_to_their_centre_in_colour_and_labelled_by_sorted_synset(imagenet_c):
    dataset = ImageNetC(imagenet_c, "shot", 3, ["n01", "n02"])
    assert len(dataset) == 2
    (red, first), (grey, second) = dataset[0], dataset[1]
    assert (first, second) == (0, 1)
    assert red.shape == grey.shape == (224, 224, 3)
    assert red.dtype == np.uint8
    assert red[..., 0].min() > 200
    # JPEG spreads the frame a little; resizing or cropping elsewhere would keep it at 200.
    assert np.abs(grey.astype(int) - 90).max() < 40


def test_an_image_smaller_than_the_crop_is_refused(imagenet_c):
    Image.new("RGB", (100, 300)).save(imagenet_c / "shot_noise" / "3" / "n01" / "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(ValueError, match="300 x 100 pixels is too small for a crop of 224 x 224"):
        ImageNetC(imagenet_c, "shot", 3, ["n01", "n02"])[0]


def test_classes_other_than_those_of_the_training_tree_are_refused(imagenet_c):
    with pytest.raises(ValueError, match=r"has 2 classes, the training tree 3; .*\(first differences: n03\)"):
        ImageNetC(imagenet_c, "shot", 3, ["n01", "n02", "n03"])
    with pytest.raises(FileNotFoundError, match="gaussian_noise"):
        ImageNetC(imagenet_c, "gaussian", 3, ["n01", "n02"])
