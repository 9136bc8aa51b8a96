"""Figures from hand-made numbers: what is drawn is what was measured."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy.stats import binomtest

from sdnet import plots
from sdnet.plots.growth import growth_curves
from sdnet.plots.layout import log_scale

RUN = {"dataset": "cifar10", "system": "sdnet18"}


def test_figure_3_shows_each_seed_with_its_own_line_and_r_squared():
    common = {"dataset": "cifar10", "system": "sdnet18", "noise": "gaussian"}
    fits = {0: (0.02, -0.1, 0.98), 1: (0.0, 0.3, float("nan"))}
    peaks = pd.DataFrame(
        common
        | {"seed": seed, "residual": residual, "lambda": slope * residual + intercept}
        | {"lambda_std": (seed + 1) * residual / 1000}
        for seed, (slope, intercept, _) in fits.items()
        for residual in (10.0, 20.0, 30.0)
    )
    lines = pd.DataFrame(
        common | {"seed": seed, "slope": slope, "intercept": intercept, "r_squared": r_squared}
        for seed, (slope, intercept, r_squared) in fits.items()
    )
    (axis,) = plots.fitted_lines(peaks, lines.assign(definition="norm"), "note").axes
    assert axis.get_xlabel() == "residual ‖x − A(z)‖"
    drawn = [line for line in axis.lines if len(line.get_xdata()) == 2]
    assert [list(line.get_ydata()) for line in drawn] == [pytest.approx([0.1, 0.5]), pytest.approx([0.3, 0.3])]
    assert len({line.get_color() for line in drawn}) == 2
    bars = [bar[:, 1] for seed in axis.collections for bar in seed.get_segments()]
    assert [np.ptp(bar) / 2 for bar in bars] == pytest.approx([0.01, 0.02, 0.03, 0.02, 0.04, 0.06])
    assert [bar.mean() for bar in bars] == pytest.approx(list(peaks["lambda"]))
    assert [text.get_text() for text in axis.texts] == ["R² = 0.98, none (flat)"]


def curves(axis):
    """x and y of the lines of an axis that have more than two points."""
    drawn = [line.get_data() for line in axis.lines if len(line.get_xdata()) > 2]
    return [(list(x), list(y)) for x, y in drawn]


def test_figure_2_shows_the_mean_accuracy_of_each_severity_at_each_lambda_and_its_best():
    lambdas, correct = [0.1, 0.2, 0.3], {("gaussian", 1): [60, 80, 70], ("gaussian", 5): [20, 30, 40]}
    correct |= {("shot", 1): [91, 71, 81]}
    sweep = pd.DataFrame(
        RUN
        | {"seed": seed, "noise": noise, "severity": severity, "lambda": lmbd, "lambda0": 0.15}
        | {"correct": count + 4 * seed, "total": 200}
        for (noise, severity), counts in correct.items()
        for lmbd, count in zip(lambdas, counts, strict=True)
        for seed in (0, 1)
    )
    gaussian, shot = plots.lambda_curves(sweep, "note").axes
    assert curves(gaussian) == [(lambdas, [31, 41, 36]), (lambdas, [11, 16, 21])]
    assert curves(shot) == [(lambdas, [46.5, 36.5, 41.5])]
    dots = [line.get_xydata().tolist()[0] for line in gaussian.lines if line.get_marker() == "o"]
    assert dots == [[0.2, 41], [0.3, 21]]
    assert [list(line.get_xdata()) for line in gaussian.lines if line.get_linestyle() == ":"] == [[0.15, 0.15]]
    assert [axis.get_title(loc="left") for axis in (gaussian, shot)] == ["Gaussian", "Shot"]
    spread = np.std([0, 2], ddof=1)
    heights = gaussian.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((31 - spread, 41 + spread))
    heights = plots.lambda_curves(sweep[sweep.seed == 0], "").axes[0].collections[0].get_paths()[0].vertices[:, 1]
    least, most = (binomtest(count, 200).proportion_ci(0.95, method="wilson") for count in (60, 80))
    assert (heights.min(), heights.max()) == pytest.approx((100 * least.low, 100 * most.high))


def test_where_a_data_set_lacks_a_noise_figure_2_keeps_its_labels_and_the_legend_covers_no_panel():
    noises_of = {"cifar10": ("gaussian", "shot"), "imagenet": ("shot",), "digits": ("gaussian",)}
    sweep = pd.DataFrame(
        {"dataset": dataset, "system": "sdnet18", "seed": 0, "noise": noise, "severity": severity, "lambda": lmbd}
        | {"lambda0": 0.1, "correct": 10, "total": 20}
        for dataset, noises in noises_of.items()
        for noise in noises
        for severity in (1, 5)
        for lmbd in (0.1, 0.2)
    )
    figure = plots.lambda_curves(sweep, "note")
    shown = [(axis.axison, axis.get_ylabel().split("\n")[1:], axis.get_xlabel()) for axis in figure.axes]
    accuracy = "accuracy (%)"
    assert shown == [
        *((True, ["CIFAR-10", accuracy], ""), (True, [], "")),
        *((False, [], ""), (True, ["ImageNet", accuracy], "λ")),
        *((True, ["scikit-learn digits", accuracy], "λ"), (False, [], "")),
    ]
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["level 0", "level 4"]
    assert not any(legend.get_window_extent().overlaps(axis.get_window_extent()) for axis in figure.axes)


def test_figure_5_shows_zero_as_mid_grey_and_every_atom_at_full_contrast():
    atoms = np.array([[0, 1, 0, -1], [0.5, 0, 0, 0]])
    entries = pd.DataFrame(
        RUN | {"seed": seed, "layer": "conv1", "atom": k, "channel": 0, "row": i // 2, "column": i % 2, "value": value}
        for seed, of_seed in ((1, atoms), (2, 1 - atoms))  # the first one is drawn
        for k, atom in enumerate(of_seed)
        for i, value in enumerate(atom)
    )
    (axis,) = plots.dictionaries(entries, "note").axes
    picture = axis.images[0].get_array()
    tops, lefts = (2 + 4, 2 + 12), [(2 + 4, 2 + 12), (20 + 4, 20 + 12)]  # entries of 8 pixels, lines of 2
    shown = [[picture[top, left].tolist() for top in tops for left in of_atom] for of_atom in lefts]
    assert shown == [[[grey] * 3 for grey in of_atom] for of_atom in ([0.5, 1, 0.5, 0], [1, 0.5, 0.5, 0.5])]


def test_figure_6_shows_the_share_of_each_bin_and_of_exact_zeros():
    bins = [(0, 0, 50), (-1, 0, 20), (0, 1, 30), (1, np.inf, 0)]
    codes = pd.DataFrame(
        RUN | {"seed": 0, "layer": layer, "bin_low": low, "bin_high": high, "count": count}
        for layer, factor in (("conv1", 1), ("later", 7))
        for low, high, count in [(low, high, factor * count) for low, high, count in bins]
    )
    (axis,) = plots.code_histograms(codes, "note").axes
    (steps,) = axis.patches
    assert (steps.get_data().values.tolist(), steps.get_data().edges.tolist()) == ([20, 30], [-1, 0, 1])
    assert axis.lines[0].get_ydata()[1] == 50
    assert axis.texts[0].get_text() == "exactly zero: 50.0%"
    more = codes.assign(seed=1, count=np.where(codes.bin_low == codes.bin_high, 4, 2) * codes["count"])
    (axis,) = plots.code_histograms(pd.concat([codes, more]), "note").axes
    shares = [steps.get_data().values.tolist() for steps in axis.patches]
    assert shares == [[20, 30], pytest.approx([40 / 3, 20])], "of each seed's own entries"
    assert axis.texts[0].get_text() == "exactly zero: 58.3 ± 11.8%"


def inversion(generator, layers=1, images=1):
    """What `invert` writes of SDNet-18 for grey images of 4 x 4 pixels: random numbers, two channels of five."""
    shapes = {"codes": (2, 4, 4), "atoms": (2, 1, 3, 3), "terms": (2, 1, 4, 4)}
    pixels = {"images": (images, 4, 4, 1), "sums": (5, 4, 4, 1), "pictures": (layers, images, 4, 4, 1)}
    arrays = {name: generator.normal(size=shape) for name, shape in shapes.items()}
    arrays |= {name: generator.integers(256, size=shape, dtype=np.uint8) for name, shape in pixels.items()}
    return arrays | {"channels": np.array([3, 1]), "indices": np.arange(7, 7 + images)}


def drawn(axis):
    """The image on an axis; of an RGB one its red, which is its green and blue as well."""
    values = np.asarray(axis.images[0].get_array())
    assert values.ndim == 2 or np.array_equal(values[..., 0], values[..., 2])
    return values if values.ndim == 2 else values[..., 0]


def test_figure_1_shows_how_the_code_s_channels_add_up_to_the_image_beside_the_input():
    arrays = inversion(np.random.default_rng(0))
    axes = {axis.get_label(): axis for axis in plots.operator([("digits", "sdnet18", arrays)], "note").axes}
    assert np.array_equal(drawn(axes["x"]), arrays["images"][0, ..., 0])
    assert np.array_equal(drawn(axes["A(z)"]), arrays["sums"][4, ..., 0])
    strongest = np.abs(arrays["terms"]).max()
    for row, channel in enumerate((3, 1)):
        assert axes[f"code{row}"].get_ylabel() == f"c = {channel}"
        assert np.array_equal(drawn(axes[f"code{row}"]), arrays["codes"][row])
        assert np.array_equal(drawn(axes[f"sum{row}"]), arrays["sums"][row, ..., 0])
        atom, term = arrays["atoms"][row, 0], arrays["terms"][row, 0]
        assert drawn(axes[f"atom{row}"]) == pytest.approx((1 + atom / np.abs(atom).max()) / 2)
        assert drawn(axes[f"term{row}"]) == pytest.approx((1 + term / strongest) / 2), "all on one scale"
    titles = [axes[name].get_title() for name in ("code0", "atom0", "term0", "sum0", "A(z)", "x")]
    of_channels = ["code $\\zeta_c$", "atom $\\alpha_c$", "$\\alpha_c * \\zeta_c$", "sum so far"]
    assert titles == [*of_channels, "$A(z)$: the sum of all 5", "input $x$"]


def test_of_a_code_of_zeros_figure_1_shows_white_and_what_it_adds_as_mid_grey():
    arrays = inversion(np.random.default_rng(0))
    arrays |= {name: np.zeros_like(arrays[name]) for name in ("codes", "terms")}
    axes = {axis.get_title(): axis for axis in plots.operator([("digits", "sdnet18", arrays)], "note").axes}
    assert min(axes["code $\\zeta_c$"].images[0].to_rgba(0.0)) > 0.96
    assert (drawn(axes["$\\alpha_c * \\zeta_c$"]) == 0.5).all()


def test_figure_4_shows_each_image_then_what_some_layers_give_back_of_it_with_its_scores():
    arrays, depths = inversion(np.random.default_rng(0), layers=6, images=2), (1, 2, 3, 5)
    scores = pd.DataFrame(
        RUN | {"seed": seed, "depth": depth, "image": 7 + i, "psnr_db": 10 * depth + i, "correlation": 0.9 - seed}
        for seed in (0, 1)
        for depth in range(1, 7)
        for i in (0, 1)
    )
    axes = plots.reconstructions([("cifar10", "sdnet18", arrays)], scores, "note").axes
    assert [axis.get_title() for axis in axes[:5]] == ["image", *(f"layer {depth}" for depth in depths)]
    for i, line in enumerate((axes[:5], axes[5:])):
        expected = [arrays["images"][i], *(arrays["pictures"][depth - 1, i] for depth in depths)]
        assert np.array_equal([drawn(axis) for axis in line], np.stack(expected)[..., 0])
        labels = [f"{10 * depth + i}.0 dB, 0.90" for depth in depths]
        assert [axis.get_xlabel() for axis in line] == ["", *labels]


def test_growth_is_drawn_by_what_grows():
    measured = pd.DataFrame(
        {"system": system, "varied": varied, "value": value, "ms": factor * value}
        for varied, values in {"width": (32, 8, 16), "lambdas": (1, 4, 2)}.items()
        for system, factor in {"resnet18": 1.0, "sdnet18": 3.0}.items()
        if varied == "width" or system == "sdnet18"
        for value in values
    )
    width, lambdas = growth_curves(measured, "note").axes
    assert curves(width) == [([8, 16, 32], [8, 16, 32]), ([8, 16, 32], [24, 48, 96])]
    assert curves(lambdas) == [([1, 2, 4], [3, 6, 12])]
    assert width.get_yscale() == lambdas.get_yscale() == "log"
    assert (width.get_xlabel(), lambdas.get_xlabel()) == ("width", "number of λ in a sweep")


@pytest.mark.parametrize("ratio", [1.1, 2, 4, 6, 30, 1000])
def test_a_logarithmic_axis_has_ticks_all_over_however_narrow_or_wide_it_is(ratio):
    """Two to ten, and no part without one that is longer than 60% of the axis."""
    for low in np.geomspace(0.1, 1, 5):
        axis = Figure().subplots()
        axis.plot([low, ratio * low])
        log_scale(axis)
        bottom, top = axis.get_ylim()
        ticks = [tick for tick in axis.get_yticks() if bottom <= tick <= top]
        assert 2 <= len(ticks) <= 10
        assert np.diff(np.log([bottom, *ticks, top])).max() < 0.6 * np.log(top / bottom)


def test_the_worst_of_all_attacks_is_drawn_where_every_seed_was_attacked():
    """Each seed is tuned to another lambda, and nobody crafted images for it at the other's."""
    common = RUN | {"norm": "linf", "eps": 8 / 255, "choice": "given", "clean_correct": 90, "total": 100}
    attacks = pd.DataFrame(
        common | {"seed": seed, "step": step, "lambda_attack": crafted, "lambda": lmbd, "correct": correct}
        for seed, tuned in ((0, 0.5), (1, 0.8))
        for lmbd, correct in {0.1: 10, 0.3: 20, 0.5: 77, 0.8: 77, tuned: 30}.items()
        for step, crafted in [("a", np.nan), ("worst", np.nan)] + [("b", lmbd)] * (lmbd in (0.1, 0.3, tuned))
    )
    (axis,) = plots.attack_curves(attacks, "note").axes
    (worst,) = [line for line in axis.lines if line.get_label() == "worst of all attacks"]
    assert worst.get_xydata().tolist() == [[0.1, 10], [0.3, 20]]
    (alone,) = plots.attack_curves(attacks[attacks.seed == 0], "note").axes
    (worst,) = [line for line in alone.lines if line.get_label() == "worst of all attacks"]
    assert worst.get_xydata().tolist() == [[0.1, 10], [0.3, 20], [0.5, 30]]
    plain = attacks[attacks.step == "worst"].iloc[:1].assign(**{"lambda": np.nan})
    others = [
        plain.assign(system=name, correct=count, total=100) for name, count in (("resnet18", 25), ("unlabelled", 31))
    ]
    (axis,) = plots.attack_curves(pd.concat([attacks, *others]), "note").axes
    drawn = {line.get_label(): line.get_ydata()[0] for line in axis.lines if ", worst" in line.get_label()}
    assert drawn == {"ResNet-18, worst of all attacks": 25, "unlabelled, worst of all attacks": 31}


def test_accuracy_under_attack_is_drawn_in_its_norm_by_what_the_attacker_knows():
    """Of images crafted at another lambda than that of the prediction, and at a tuned one, 99 are left: not drawn."""
    lambdas = (0.1, 0.5)
    attacks = pd.DataFrame(
        RUN
        | {"seed": seed, "norm": norm, "eps": eps, "choice": choice, "step": step, "total": 100}
        | {"lambda_attack": crafted, "lambda": lmbd, "clean_correct": 95 - 10 * k + seed, "correct": correct + seed}
        for seed in (0, 4)
        for (norm, eps), less in {("linf", 8 / 255): 0, ("l2", 0.5): 5}.items()
        for k, lmbd in enumerate(lambdas)
        for choice, step, crafted, correct in [
            ("given", "a", np.nan, 20 + 30 * k - less),
            *(("given", "b", other, 10 + 20 * k - less if other == lmbd else 99) for other in lambdas),
            ("given", "worst", np.nan, 5 + 10 * k - less),
            ("tuned", "a", np.nan, 99),
        ]
    )
    expected = {
        "not attacked": [97, 87],
        "crafted at the λ of training": [22, 52],
        "crafted at the λ of the prediction": [12, 32],
        "worst of all attacks": [7, 17],
    }
    linf, l2 = plots.attack_curves(attacks, "note").axes
    for axis, title, less in ((linf, "L∞ 8/255", 0), (l2, "L2 0.5", 5)):
        assert axis.get_title(loc="left") == title
        drawn = {line.get_label(): line for line in axis.lines}
        assert drawn.keys() == expected.keys()
        for (label, line), bands in zip(drawn.items(), axis.collections, strict=True):
            heights = [y - less * (label != "not attacked") for y in expected[label]]
            assert line.get_xydata().tolist() == [[0.1, heights[0]], [0.5, heights[1]]]
            ends = bands.get_paths()[0].vertices[:, 1]
            spread = 4 / 2**0.5  # the standard deviation of two seeds
            assert (ends.min(), ends.max()) == pytest.approx((min(heights) - spread, max(heights) + spread))


def test_each_attackers_lambda_is_drawn_against_each_that_classifies():
    """Means over seeds; the row of a lambda that one seed alone was tuned to is left out."""
    correct = {0.1: (10, 40), 0.5: (60, 20)}
    crafted = pd.DataFrame(
        RUN
        | {"seed": seed, "norm": norm, "eps": eps, "lambda_attack": attacked, "lambda": lmbd}
        | {"clean_correct": clean, "correct": count + 10 * seed, "total": 200}
        for seed in (0, 1)
        for norm, eps in (("linf", 8 / 255), ("l2", 0.5))
        for attacked, counts in (correct | {0.8: (70, 70)} if seed else correct).items()
        for lmbd, count, clean in zip((0.1, 0.5), counts, (160, 140), strict=True)
    )
    figure = plots.transfer(crafted, "note")
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["L∞ 8/255: accuracy (%)", "L2 0.5: accuracy (%)"]
    for axis in figure.axes:
        assert [text.get_text() for text in axis.get_yticklabels()] == ["not attacked", "0.1", "0.5"]
        assert [text.get_text() for text in axis.texts] == ["80", "70", "8", "22", "32", "12"]
        assert [frame.get_xy() for frame in axis.patches] == [(0, 1), (1, 2)]
