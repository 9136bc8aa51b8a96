"""How far noise moves a feature map: against values worked out by hand, and on runs as the command finds them."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from sdnet import plots
from sdnet.commands import evidence
from sdnet.commands.evidence.runs import over_seeds
from sdnet.commands.stability import stability
from sdnet.csc import CSCConv2d, use_lambda
from sdnet.experiments import results
from sdnet.experiments.columns import COLUMNS
from sdnet.experiments.settings.recipe import Recipe
from sdnet.models import build
from sdnet.robustness.stability import stability_under
from sdnet.runs.network import build_model
from sdnet.runs.noisy import Noise

CLEAN = np.array([0, 51, 102, 204], np.uint8).reshape(4, 1, 1, 1)  # 0, 0.2, 0.4 and 0.8
NOISY = np.array([51, 51, 51, 255], np.uint8).reshape(4, 1, 1, 1)  # 0.2, 0.2, 0.2 and 1


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))


def measured(feature_map, batches=((CLEAN, NOISY),)):
    return stability_under(Plain(), lambda x: [("z", feature_map(x))], batches)["z"]


def test_noise_to_signal_is_the_mean_squared_change_over_the_variance_between_images():
    assert measured(lambda x: x).noise_to_signal == pytest.approx(0.03 / 0.0875)


def test_neither_scale_nor_shift_nor_how_images_are_batched_matters():
    expected = measured(lambda x: x).noise_to_signal
    assert measured(lambda x: 7 * x - 3).noise_to_signal == pytest.approx(expected)
    batched = [(CLEAN[:3], NOISY[:3]), (CLEAN[3:], NOISY[3:])]
    assert measured(lambda x: x, batched).noise_to_signal == pytest.approx(expected)


def test_zeros_are_those_of_clean_images_and_new_entries_those_that_only_the_noisy_have():
    found = measured(lambda x: torch.relu(x - 0.3) + (x < 0.1))  # clean 1, 0, 0.1, 0.5; noisy 0, 0, 0, 0.7
    assert (found.zeros, found.new) == (0.25, 0)
    twice = measured(lambda x: torch.relu(0.3 - x).repeat(1, 2, 1, 1))  # clean 0.3, 0.1, 0, 0; noisy 0.1, 0.1, 0.1, 0
    assert (twice.zeros, twice.new) == (0.5, pytest.approx(1 / 3)), "of entries, whatever an image has of them"


def test_what_does_not_differ_between_images_has_no_signal():
    nothing = measured(torch.zeros_like)
    assert np.isnan([nothing.noise_to_signal, nothing.new]).all()
    assert np.isnan(measured(lambda x: torch.full_like(x, 0.1)).noise_to_signal), "but for rounding"


def test_a_single_image_is_refused():
    with pytest.raises(ValueError, match="given 1 image; noise is compared with how images differ, so give 2 or more"):
        measured(lambda x: x, [(CLEAN[:1], NOISY[:1])])


def test_each_feature_map_has_its_own_and_the_network_is_left_as_it_was():
    torch.manual_seed(0)
    model = nn.Sequential(CSCConv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)).train()
    clean = (255 * np.random.default_rng(0).random((20, 8, 8, 1))).astype(np.uint8)
    noisy = np.clip(clean + 20.0, 0, 255).astype(np.uint8)

    def feature_maps(x):
        for lmbd in (0.1, 0.5):
            with use_lambda(model, lmbd):
                yield lmbd, model[0](x)
        yield "behind", model(x)

    found = stability_under(model, feature_maps, [(clean, noisy)])
    assert found[0.1].zeros < found[0.5].zeros
    assert model.training
    assert model[0].lmbd == 0.1
    # In evaluation mode batch norm is a scale and a shift of each channel, here the same for all.
    assert found["behind"].noise_to_signal == pytest.approx(found[0.1].noise_to_signal, rel=1e-5)


def test_no_batch_is_refused():
    with pytest.raises(ValueError, match="there is no batch"):
        stability_under(Plain(), lambda x: [("z", x)], [])


@pytest.mark.parametrize("name", ["resnet18", "sdnet18"])
def test_the_stem_is_the_first_part_of_the_network(name):
    model = build(name, 10, width=4).eval()
    x = torch.rand(2, 3, 32, 32)
    layer, behind = model.stem(x)
    assert torch.equal(layer, model.conv1(x))
    rest = nn.Sequential(model.layer1, model.layer2, model.layer3, model.layer4, model.avgpool, nn.Flatten(), model.fc)
    assert torch.equal(rest(behind), model(x))


def spec_of(network, width):
    return {
        "preset": "tiny",
        "system": network,
        "seed": 0,
        "dataset": {"name": "digits", "checksum": None, "train_images": 40, "test_images": 20, "image_size": None},
        "model": {"name": network, "width": width, "options": {}},
        "training": Recipe(epochs=1).model_dump(),
    }


def test_the_command_refuses_a_network_without_such_a_layer(tmp_path):
    spec = spec_of("mdeq", width=16)
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    torch.save(build_model(spec, 10).state_dict(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match="given mdeq; must be a ResNet or an SDNet"):
        stability(tmp_path, None, Noise("gaussian", "imagenet", 0, None), [0.1, 0.5], None, gpus=0)


def test_the_command_measures_every_lambda_the_atoms_alone_and_every_number_of_iterations(tmp_path):
    spec = spec_of("sdnet18", width=4)
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    torch.manual_seed(0)
    model = build_model(spec, 10)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    stability(tmp_path, None, Noise("gaussian", "imagenet", 0, None), [0.1, 0.3, 0.5, 0.7], 20, gpus=0)
    found = results.read(tmp_path / "stability.csv", "stability")
    # At each severity both places at each lambda, and the atoms; at one, other iterations at three of the lambdas.
    assert len(found) == 5 * (4 * 2 + 1) + 3 * 6
    assert (found.images == 20).all()
    of_images = found.groupby("severity").image_noise_to_signal.agg(["min", "max"]).to_numpy()
    assert np.array_equal(of_images[:, 0], of_images[:, 1]), "whatever is measured"
    assert (np.diff(of_images[:, 0]) > 0).all()
    layer = found[(found.place == "layer") & (found.severity == 3)]
    as_trained = layer[layer.n_iter == layer.n_iter0].set_index("lambda")
    assert as_trained.zeros[0.5] > as_trained.zeros[0.1]
    iterated = layer.groupby("lambda").filter(lambda of_lambda: len(of_lambda) > 1)
    assert sorted(iterated["lambda"].unique()) == [0.1, 0.5, 0.7]
    by_iterations = layer[layer["lambda"] == 0.1].set_index("n_iter")
    assert by_iterations.zeros[64] > by_iterations.zeros[1]
    assert by_iterations.noise_to_signal.nunique() == 7


def test_of_a_network_without_a_code_the_command_measures_what_there_is(tmp_path):
    spec = spec_of("resnet18", width=4)
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    torch.save(build_model(spec, 10).state_dict(), tmp_path / "model.pt")
    stability(tmp_path, None, Noise("gaussian", "imagenet", 0, None), [0.1, 0.5], 20, gpus=0)
    found = results.read(tmp_path / "stability.csv", "stability")
    assert found.place.to_list() == 5 * ["layer", "behind"]
    assert found[["lambda", "lambda0", "n_iter", "n_iter0"]].isna().all().all()


def test_the_atoms_alone_are_the_limit_of_one_iteration_without_sparsity(tmp_path):
    """At lambda 0 the first iteration is the convolution A*(x), times the step size."""
    spec = spec_of("sdnet18", width=4)
    spec["model"]["options"] = {"lmbd": 0.0, "n_iter": 1}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    torch.manual_seed(0)
    torch.save(build_model(spec, 10).state_dict(), tmp_path / "model.pt")
    stability(tmp_path, None, Noise("gaussian", "imagenet", 0, None), [0.1, 0.5], 20, gpus=0)
    found = results.read(tmp_path / "stability.csv", "stability")
    code = found[(found.place == "layer") & (found["lambda"] == 0) & (found.n_iter == 1)].set_index("severity")
    atoms = found[found.place == "atoms"].set_index("severity")
    assert len(atoms) == len(code) == 5
    assert atoms.noise_to_signal.to_numpy() == pytest.approx(code.noise_to_signal.to_numpy(), rel=1e-4)


RAISED = {1: 0.5, 2: 1, 64: 8}  # the gain after so many iterations over that of training


def rows(system, seed, gains, lambdas=(np.nan,)):
    """Of an image's 0.5: each place, lambda and number of iterations with its gain, at every severity."""
    common = dict.fromkeys(COLUMNS["stability"]) | {"dataset": "cifar10", "system": system, "seed": seed}
    common |= {"images": 10, "zeros": 0.01, "image_noise_to_signal": 0.5, "noise": "gaussian"}
    common |= {"lambda0": lambdas[0], "n_iter0": np.nan if np.isnan(lambdas[0]) else 2}
    as_trained = [(lmbd, common["n_iter0"], gain) for lmbd, gain in zip(lambdas, gains, strict=True)]
    iterated = [
        (lmbd, count, k * gain)
        for lmbd, gain in zip(lambdas, gains, strict=True)
        for count, k in RAISED.items()
        if len(lambdas) > 1 and count != 2
    ]
    atoms = [] if np.isnan(lambdas[0]) else [common | {"place": "atoms", "noise_to_signal": 0.05}]
    return [row | {"severity": severity} for row in atoms for severity in range(1, 6)] + [
        common
        | {"severity": severity, "place": place, "lambda": lmbd, "n_iter": count, "noise_to_signal": 0.5 * gain * k}
        for severity in range(1, 6)
        for place, k in (("layer", 1), ("behind", 3))
        for lmbd, count, gain in as_trained + (iterated if severity == 3 else [])
    ]


def test_gains_are_over_the_images_own_and_the_figure_shows_each_network():
    table = pd.DataFrame(rows("resnet18", 0, [0.5]) + rows("sdnet18", 0, [0.2, 0.1], (0.1, 0.5)))
    layer, behind, iterations = plots.stability_curves(table, "note").axes
    shown = [line for line in layer.lines if not line.get_label().startswith("_")]
    assert [line.get_label() for line in shown] == ["ResNet-18", "SDNet-18"]
    assert shown[1].get_xydata() == pytest.approx(np.array([[0.1, 0.2], [0.5, 0.1]]))
    assert behind.lines[0].get_ydata()[0] == pytest.approx(1.5)
    thick, dot, atoms, thin = iterations.lines[1:5]
    assert thick.get_xydata() == pytest.approx(np.array([[1, 0.1], [2, 0.2], [64, 1.6]]))
    assert thin.get_xydata() == pytest.approx(np.array([[1, 0.05], [2, 0.1], [64, 0.8]]))
    assert (dot.get_ydata()[0], atoms.get_ydata()[0]) == (pytest.approx(0.2), pytest.approx(0.1))


def test_iterations_are_compared_at_the_severities_that_have_them_and_bands_are_over_seeds():
    """The severities multiply a gain by 2 in the geometric mean, the third one by 1; the second seed's is double."""
    table = pd.DataFrame(rows("sdnet18", 0, [0.2, 0.1], (0.1, 0.5)))
    table["noise_to_signal"] *= table.severity.map({1: 1, 2: 2, 3: 1, 4: 4, 5: 4})
    table = pd.concat([table, table.assign(seed=1, noise_to_signal=2 * table.noise_to_signal)])
    layer, _, iterations = plots.stability_curves(table, "note").axes
    assert layer.lines[0].get_ydata() == pytest.approx([0.6, 0.3])
    ends = layer.collections[0].get_paths()[0].vertices[:, 1]
    spread = np.std([1, 2], ddof=1) * np.array([0.4, 0.2])
    assert (ends.min(), ends.max()) == pytest.approx((0.3 - spread[1], 0.6 + spread[0]))
    assert iterations.lines[0].get_ydata() == pytest.approx([0.15, 0.3, 2.4])


def test_each_network_has_a_dot_at_its_own_lambda_of_training():
    table = pd.DataFrame(rows("sdnet18", 0, [0.2, 0.1], (0.1, 0.5)) + rows("sdnet18-all", 0, [0.4, 0.3], (0.5, 0.9)))
    for axis, k in zip(plots.stability_curves(table, "note").axes[:2], (1, 3), strict=True):
        dots = {line.get_color(): line.get_xydata() for line in axis.lines if line.get_marker() == "o"}
        curves = [line.get_color() for line in axis.lines if not line.get_label().startswith("_")]
        assert [dots[color][0] for color in curves] == [pytest.approx([0.1, 0.2 * k]), pytest.approx([0.5, 0.4 * k])]


def test_effects_are_ratios_as_trained_nearly_solved_and_at_the_lambda_of_algorithm_1(capsys):
    """0.2 over 0.4 as trained; halfway between two lambdas the logarithms are halfway, too.

    Of the solution the lambda where it is most stable counts: 8 times the 0.05 of the larger one; the atoms have 0.1.
    The severities multiply what SDNet-18 has by 4 in the geometric mean, and other iterations were tried at one alone.
    ResNet-18's layer of the second seed is moved 4 times as much, and has 5% of zeros instead of 1%; there Algorithm 1
    was not run yet.
    """
    given = {"resnet18": pd.DataFrame(rows("resnet18", 0, [0.4]))}
    given["resnet18"].loc[given["resnet18"].place == "behind", "zeros"] = 0.5
    sdnet = pd.DataFrame(rows("sdnet18", 0, [0.2, 0.05], (0.1, 0.5)))
    sdnet["noise_to_signal"] *= sdnet.severity.map({1: 1, 2: 2, 3: 2, 4: 8, 5: 32})
    sdnet["new"] = sdnet.severity * np.where(sdnet["lambda"] == 0.5, 0.04, 0.02)
    sdnet.loc[sdnet.place != "layer", "new"] = 0.9
    given["sdnet18"] = sdnet[(sdnet.severity == 3) | sdnet.n_iter.isna() | (sdnet.n_iter == sdnet.n_iter0)]
    chosen = pd.DataFrame({"variant": "paper", "severity": list("12345"), "lambda": [0.1, 0.1, 0.1, 0.3, 0.5]})

    class Runs:
        preset = SimpleNamespace(line_noise="gaussian")

        def seeds(self, systems, *names):
            seeds = [0] if "adaptive-gaussian.csv" in names else [0, 1]
            return seeds if set(systems) <= set(given) else []

        def read(self, system, seed, kind, noise=""):
            if kind != "stability":
                return {0: chosen}[seed]
            of, layer = given[system], given[system].place == "layer"
            if system != "resnet18" or seed == 0:
                return of
            moved = of.noise_to_signal.where(~layer, 4 * of.noise_to_signal)
            return of.assign(noise_to_signal=moved, zeros=of.zeros.where(~layer, 0.05))

        def path(self, system, seed, file):
            return Path(system, file)

        def row(self, keys, intervals, seeds):
            return {"keys": keys} | over_seeds(intervals)

    expected = {("zeros", "resnet18", "", "clean", ""): (1 + 5) / 2}
    expected |= {("new", "sdnet18 adaptive", "", "gaussian", "layer"): (2 + 4 + 6 + (8 + 16) / 2 + 20) / 5}
    expected |= {("noise_to_signal", "sdnet18 solved", "sdnet18 atoms", "gaussian", "layer"): 4}
    expected |= {("noise_to_signal", "sdnet18 fixed", "sdnet18 atoms", "gaussian", "layer"): 2}
    for place, of_seeds in {"layer": 2, "behind": 1}.items():
        expected |= {
            ("noise_to_signal", "sdnet18 fixed", "resnet18", "gaussian", place): 0.5 * 4 / of_seeds,
            ("noise_to_signal", "sdnet18 adaptive", "sdnet18 fixed", "gaussian", place): 2 ** -(3 / 5),
        }
    found = {row["keys"]: row for row in evidence.stability(Runs())}
    assert {keys: row["estimate"] for keys, row in found.items()} == pytest.approx(expected)
    spread = found["noise_to_signal", "sdnet18 fixed", "resnet18", "gaussian", "layer"]
    assert 0 < spread["low"] < 0.01 < 100 < spread["high"], "of logarithms of two seeds, log 4 apart"
    assert spread["low"] * spread["high"] == pytest.approx(spread["estimate"] ** 2)
    for column, other in {"images": 7, "noise_source": "generated, imagenet severities"}.items():
        as_it_was = given["resnet18"].copy()
        given["resnet18"][column] = other
        beside = {keys for keys in found if keys[2] == "resnet18"}
        assert {row["keys"] for row in evidence.stability(Runs())} == found.keys() - beside
        given["resnet18"] = as_it_was
    assert "stability.csv are of different images or noise, and are not compared" in capsys.readouterr().err
    given["resnet18"]["noise"] = "shot"
    assert {row["keys"] for row in evidence.stability(Runs())} == {keys for keys in found if "resnet18" not in keys}
    warning = "resnet18/stability.csv is of shot noise and left out, since the preset's is gaussian"
    assert warning in capsys.readouterr().err


def test_other_iterations_are_tried_at_the_lambda_of_training_and_larger_ones_alone(tmp_path):
    spec = spec_of("sdnet18", width=4)
    spec["model"]["options"] = {"lmbd": 0.5}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    torch.manual_seed(0)
    torch.save(build_model(spec, 10).state_dict(), tmp_path / "model.pt")
    stability(tmp_path, None, Noise("gaussian", "imagenet", 0, None), [0.1, 0.3, 0.5, 0.7, 0.9], 20, gpus=0)
    found = results.read(tmp_path / "stability.csv", "stability")
    assert sorted(found[found.n_iter == 64]["lambda"].unique()) == [0.5, 0.7, 0.9]
