"""What `python -m sdnet invert` writes: each layer's reconstructions, their scores and the pictures."""

import sys

import numpy as np
import pytest
import torch
from small_run import edited, make_spec

from sdnet import csc
from sdnet.commands.evaluate import evaluate
from sdnet.commands.invert import invert
from sdnet.commands.train import train
from sdnet.data.datasets import load
from sdnet.data.images import subset_indices
from sdnet.experiments import results
from sdnet.runs.images import open_data
from sdnet.runs.network import build_model, load_model, save_model
from sdnet.runs.spec import read_spec

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("untracked")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A trained network of CSC layers alone, without shortcuts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "mlflow", None)
        spec = make_spec(tmp_path_factory.mktemp("runs") / "plain", epochs=1)
        model = {"name": "sdnet18-all", "width": 4, "options": {"shortcut": False, "nonnegative": True}}
        train(edited(spec, model=model), None, 0)
        invert(spec.parent, None, 20, 0)
    return spec.parent


def test_the_dictionary_of_an_all_network_is_that_of_its_first_layer(plain):
    evaluate(plain, None, 0)
    entries = results.read(plain / "dictionary.csv", "dictionary")
    assert set(entries.layer) == {"network.conv1"}
    assert len(entries) == 4 * 9
    assert results.read(plain / "codes.csv", "codes").layer.nunique() == 17


def test_each_layer_s_reconstruction_is_scored_for_each_image(plain):
    """Recomputed for one layer; in double precision, and of images less their mean where it says so."""
    scores = results.read(plain / "inversion.csv", "inversion")
    assert len(scores) == 17 * 20
    assert scores.groupby("depth").layer.first().tolist()[:3] == [
        "network.conv1",
        "network.layer1.0.conv1",
        "network.layer1.0.conv2",
    ]
    model = load_model(plain, read_spec(plain / "spec.json"), 10, CPU).double()
    test = open_data(read_spec(plain / "spec.json"), None, CPU).test
    x = next(test.epoch(0))[0].double()  # the 60 test images of the run, in order
    everything = subset_indices(load("digits", None).test_labels, "test", 60, seed=0)
    x = x[np.isin(everything, scores.image)]
    back = csc.invert(model, x, 4)
    of_layer = scores[scores.depth == 5]
    error = ((back.clamp(0, 1) - x) ** 2).mean((1, 2, 3))
    assert of_layer.psnr_db.to_numpy() == pytest.approx((10 * torch.log10(1 / error)).numpy())
    ours, theirs = ((images - images.mean(0)).flatten(1).numpy() for images in (back, x))
    contrast = [np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(ours, theirs, strict=True)]
    assert of_layer.contrast.to_numpy() == pytest.approx(contrast)
    correlation = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(ours, theirs, strict=True)]
    assert of_layer.correlation.to_numpy() == pytest.approx(correlation)
    arrays = results.read_arrays(plain / "inversion.npz")
    shown = [of_layer.image.tolist().index(image) for image in arrays["indices"]]
    amplified = x.mean(0) + (back - back.mean(0)) / torch.tensor(contrast).view(-1, 1, 1, 1)
    expected = (255 * amplified[shown].clamp(0, 1)).permute(0, 2, 3, 1).numpy()
    assert np.abs(arrays["pictures"][4] - expected).max() <= 1, "as far from their mean as the images are"


def test_the_pictures_are_of_five_classes_and_the_terms_add_up_to_the_first_reconstruction(plain):
    arrays = results.read_arrays(plain / "inversion.npz")
    assert arrays["pictures"].shape == (17, 5, 16, 16, 1)
    labels = load("digits", None).test_labels[arrays["indices"]]
    assert len(set(labels)) == 5
    model = load_model(plain, read_spec(plain / "spec.json"), 10, CPU).double()
    image = torch.from_numpy(arrays["images"][:1]).permute(0, 3, 1, 2).double() / 255
    reconstruction = csc.invert(model, image, 0)
    expected = (255 * reconstruction.clamp(0, 1)).round().permute(0, 2, 3, 1)[0].numpy()
    assert np.abs(arrays["sums"][-1] - expected).max() <= 1  # rounded
    layer, x = model.network.conv1, model.normalize(image)
    strengths = np.linalg.norm(arrays["terms"].reshape(4, -1), axis=1)
    assert (np.diff(strengths) <= 0).all()
    assert arrays["terms"].sum(0) == pytest.approx(layer.reconstruct(layer(x), (16, 16))[0].detach().numpy(), abs=1e-5)


def test_a_network_with_shortcuts_is_not_inverted_and_one_without_csc_layers_neither(tmp_path, error_of):
    for name, message in {
        "sdnet18-all": "invert: network.layer1.0.shortcut leaves the chain of layers that Eq. 14 undoes",
        "resnet18": "resnet18 has no CSC layer, so there is no code to invert",
    }.items():
        spec = edited(make_spec(tmp_path / name), model__name=name)
        save_model(build_model(read_spec(spec), 10), spec.parent / "model.pt")
        assert message in error_of("invert", spec.parent, "--gpus", 0)
        assert not list(spec.parent.glob("inversion.*"))
