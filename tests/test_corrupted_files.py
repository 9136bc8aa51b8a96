"""The official corrupted test sets are read only if they are whole and belong to the test set."""

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import time

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


def write_tar(path, members, mode="w", folder="CIFAR-10-C"):
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def needed_md5(members):
    return {name: hashlib.md5(content).hexdigest() for name, content in members.items() if name != "fog.npy"}


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_only_the_needed_members_are_extracted_and_a_severity_is_its_fifth_of_the_rows(tmp_path, members):
    archive = write_tar(tmp_path / "c.tar", members)
    cifar_c.extract(archive, tmp_path / "c", needed_md5(members))
    assert names(tmp_path / "c") == set(needed_md5(members))
    stored = np.load(io.BytesIO(members["shot_noise.npy"]))
    for severity in range(1, 6):
        images = cifar_c.load(tmp_path / "c", "shot", severity, LABELS)
        assert np.array_equal(images, stored[(severity - 1) * N : severity * N])


def test_a_member_with_another_checksum_is_refused_and_not_kept(tmp_path, members):
    archive = write_tar(tmp_path / "c.tar", members)
    md5 = needed_md5(members) | {"shot_noise.npy": "0" * 32}
    with pytest.raises(ValueError, match=r"shot_noise\.npy has MD5 .* expected 0000.*download the archive again"):
        cifar_c.extract(archive, tmp_path / "c", md5)
    assert names(tmp_path) == {"c.tar", "c.lock"}, "no folder that looks complete, and no hidden one"


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_an_archive_cut_short_is_named_and_leaves_no_part_of_a_file(tmp_path, members, mode):
    archive = write_tar(tmp_path / "c.tar", members, mode)
    cifar_c.extract(archive, tmp_path / "c", needed_md5(members))
    shutil.rmtree(tmp_path / "c")
    content = archive.read_bytes()
    for size in (0, 100, len(content) // 20, len(content) // 3):
        archive.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"c\.tar is damaged .* download it again"):
            cifar_c.extract(archive, tmp_path / "c", needed_md5(members))
    assert names(tmp_path) == {"c.tar", "c.lock"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a named pipe, to hold the archive back")
def test_a_killed_extraction_leaves_no_folder_that_looks_complete_and_the_next_one_is_whole(tmp_path, members):
    archive, pipe = write_tar(tmp_path / "c.tar", members), tmp_path / "pipe"
    os.mkfifo(pipe)
    program = f"from sdnet.data import cifar_c; cifar_c.extract({str(pipe)!r}, 'c', {needed_md5(members)})"
    process = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path)
    with open(pipe, "wb") as file:
        file.write(archive.read_bytes()[: 2 * len(members["shot_noise.npy"])])
        file.flush()
        deadline = time.monotonic() + 60
        while not (tmp_path / ".c.part" / "gaussian_noise.npy").exists():
            assert time.monotonic() < deadline, "the first file never came"
            time.sleep(0.01)
        assert not (tmp_path / "c").exists(), "it is not whole while it is being written"
        process.kill()
        process.wait()
    assert names(tmp_path) == {"c.tar", "pipe", "c.lock", ".c.part"}
    (tmp_path / ".c.part" / "left over").touch()
    cifar_c.extract(archive, tmp_path / "c", needed_md5(members))
    assert names(tmp_path) == {"c.tar", "pipe", "c.lock", "c"}
    assert names(tmp_path / "c") == set(needed_md5(members))


def test_a_folder_that_is_there_keeps_what_it_holds_and_gets_all_files_or_none(tmp_path, members):
    archive, folder = write_tar(tmp_path / "c.tar", members), tmp_path / "c"
    folder.mkdir()
    for name in ("mine.txt", "shot_noise.npy"):
        (folder / name).write_text("mine")
    with pytest.raises(ValueError, match=r"labels\.npy has MD5"):
        cifar_c.extract(archive, folder, needed_md5(members) | {"labels.npy": "0" * 32})
    assert names(folder) == {"mine.txt", "shot_noise.npy"}
    (tmp_path / "link").symlink_to(folder)
    cifar_c.extract(archive, tmp_path / "link", needed_md5(members))
    assert names(folder) == {"mine.txt", *needed_md5(members)}
    assert (folder / "shot_noise.npy").read_bytes() == members["shot_noise.npy"]


@pytest.mark.parametrize("changed", [None, "shot_noise.npy", "labels.npy"])
def test_only_files_of_the_known_checksums_are_called_official_and_each_is_read_once(
    tmp_path, members, monkeypatch, changed
):
    archive = cifar_c.Archive("CIFAR-10-C", needed_md5(members) | ({changed: "0" * 32} if changed else {}))
    monkeypatch.setitem(cifar_c.ARCHIVES, "cifar10", archive)
    for name in ("shot_noise.npy", "labels.npy"):  # the files of other noises may be missing
        (tmp_path / name).write_bytes(members[name])
    read = []
    checksum = cifar_c.file_checksum
    monkeypatch.setattr(cifar_c, "file_checksum", lambda path, kind: read.append(path.name) or checksum(path, kind))
    for _ in range(3):
        assert cifar_c.source(tmp_path, "cifar10", "shot") == ("local CIFAR-10-C" if changed else "official")
    assert len(read) == len(set(read))


def test_noisy_files_that_are_not_there_have_no_source(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no labels\.npy, as CIFAR-10-C does"):
        cifar_c.source(tmp_path, "cifar10", "shot")
    with pytest.raises(ValueError, match="digits has no official noisy images"):
        cifar_c.source(tmp_path, "digits", "shot")


def test_another_archive_is_refused(tmp_path, members):
    del members["labels.npy"]
    archive = write_tar(tmp_path / "c.tar", members)
    with pytest.raises(ValueError, match=r"does not contain labels\.npy; is it the right archive"):
        cifar_c.extract(archive, tmp_path / "c", needed_md5(members) | {"labels.npy": "0" * 32})


def test_no_member_is_written_outside_the_folder(tmp_path, members):
    archive = write_tar(tmp_path / "c.tar", members, folder="../..")
    cifar_c.extract(archive, tmp_path / "inner" / "c", needed_md5(members))
    assert names(tmp_path) == {"c.tar", "inner"}
    assert names(tmp_path / "inner") == {"c", "c.lock"}


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
    folder = tmp_path / "c"
    cifar_c.extract(write_tar(tmp_path / "c.tar", members), folder, needed_md5(members))
    with pytest.raises(ValueError, match="is not the 4 test labels five times over"):
        cifar_c.load(folder, "gaussian", 1, LABELS[::-1])
    np.save(folder / "gaussian_noise.npy", np.zeros((5 * N, 3, 32, 32), np.uint8))
    with pytest.raises(ValueError, match=r"shape \(20, 3, 32, 32\), expected uint8 \(20, 32, 32, 3\)"):
        cifar_c.load(folder, "gaussian", 1, LABELS)
    with pytest.raises(ValueError, match="severity 0 is not one of"):
        cifar_c.load(folder, "gaussian", 0, LABELS)


def test_a_pickle_in_place_of_an_array_is_refused(tmp_path):
    np.save(tmp_path / "labels.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"labels\.npy is damaged \(.*Python objects"):
        cifar_c.load(tmp_path, "gaussian", 1, LABELS)


@pytest.mark.parametrize("name", ["labels.npy", "gaussian_noise.npy"])
@pytest.mark.parametrize("kept", [0, 60, -1])
def test_a_damaged_file_is_named(tmp_path, members, name, kept):
    """Empty, cut within its header, or one byte short."""
    folder = tmp_path / "c"
    cifar_c.extract(write_tar(tmp_path / "c.tar", members), folder, needed_md5(members))
    (folder / name).write_bytes((folder / name).read_bytes()[:kept])
    with pytest.raises(ValueError, match=rf"{name} is damaged \(.*\); extract it from its archive again$"):
        cifar_c.load(folder, "gaussian", 1, LABELS)


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
    ((images, labels),) = dataset.batches([0, 1], 2, workers=0)
    assert labels.tolist() == [0, 1]
    assert images.shape == (2, 224, 224, 3)
    assert images.dtype == np.uint8
    red, grey = images
    assert red[..., 0].min() > 200
    # JPEG spreads the frame a little; resizing or cropping elsewhere would keep it at 200.
    assert np.abs(grey.astype(int) - 90).max() < 40


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_smaller_than_the_crop_is_named_in_one_sentence(imagenet_c, workers):
    file = imagenet_c / "shot_noise" / "3" / "n01" / "ILSVRC2012_val_00000001.JPEG"
    Image.new("RGB", (100, 300)).save(file)
    with pytest.raises(ValueError) as error:
        list(ImageNetC(imagenet_c, "shot", 3, ["n01", "n02"]).batches([1, 0], 2, workers))
    assert str(error.value) == f"{file}: 300 x 100 pixels are too few for a crop of 224 x 224"


def test_classes_other_than_those_of_the_training_tree_are_refused(imagenet_c):
    with pytest.raises(ValueError, match=r"has 2 classes, the training tree 3; .*\(first differences: n03\)"):
        ImageNetC(imagenet_c, "shot", 3, ["n01", "n02", "n03"])
    with pytest.raises(FileNotFoundError, match="gaussian_noise"):
        ImageNetC(imagenet_c, "gaussian", 3, ["n01", "n02"])
