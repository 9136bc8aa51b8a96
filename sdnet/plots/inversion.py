"""From a code back to an image: Figures 1 and 4."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sdnet.experiments.labels import dataset_label, system_label
from sdnet.plots.layout import blocks_of, patch, rgb, without_scales

DEPTHS = (1, 2, 3, 5, 9, 13, 17)  # of Figure 4: the first layers, and the last ones of the stages of SDNet-18-All


def operator(runs: list[tuple[str, str, dict]], note: str) -> Figure:
    """Figure 1: the operator A. A code's channels, each convolved with its atom, add up to the image.

    The channels that add most are shown, one a row: the code (blue below zero, red above), the atom, what they add
    (zero is mid-grey, all on one scale), and the image up to there; beside them A(z), and the input x.

    Args:
        runs: data set, network and inversion.npz of each.
        note: printed below: the images and the scale.
    """
    note += ". What each channel adds is amplified, all of them alike; sums and x are as they are."
    figure, blocks = blocks_of(runs, note, height=3.8)
    for block, (dataset, system, arrays) in zip(blocks, runs, strict=True):
        count, total = len(arrays["channels"]), len(arrays["sums"])
        names = [[f"{kind}{row}" for kind in ("code", "atom", "term", "sum")] for row in range(count)]
        large = [["A(z)"] * 2 if row < count / 2 else ["x"] * 2 for row in range(count)]
        axes = block.subplot_mosaic([[*left, *right] for left, right in zip(names, large, strict=True)])
        reach, strongest = np.abs(arrays["codes"]).max() or 1, np.abs(arrays["terms"]).max()
        for row, channel in enumerate(arrays["channels"]):
            axes[f"code{row}"].imshow(arrays["codes"][row], cmap="RdBu_r", vmin=-reach, vmax=reach)
            axes[f"atom{row}"].imshow(patch(arrays["atoms"][row]))
            axes[f"term{row}"].imshow(patch(arrays["terms"][row], strongest))
            axes[f"sum{row}"].imshow(rgb(arrays["sums"][row]))
            axes[f"code{row}"].set_ylabel(f"c = {channel}", fontsize="xx-small")
        axes["A(z)"].imshow(rgb(arrays["sums"][-1]))
        axes["x"].imshow(rgb(arrays["images"][0]))
        titles = {"code0": "code $\\zeta_c$", "atom0": "atom $\\alpha_c$", "term0": "$\\alpha_c * \\zeta_c$"}
        titles |= {"sum0": "sum so far", "A(z)": f"$A(z)$: the sum of all {total}", "x": "input $x$"}
        for name, axis in axes.items():
            axis.set_title(titles.get(name, ""), fontsize="x-small", pad=3)
            without_scales(axis)
        block.suptitle(f"{system_label(system)}, {dataset_label(dataset)}", fontsize="small")
    return figure


def reconstructions(runs: list[tuple[str, str, dict]], scores: pd.DataFrame, note: str) -> Figure:
    """Figure 4: test images as the codes of some layers give them back (Eq. 14).

    What differs from the mean over the test images is amplified to the contrast of the image, or nothing of it could
    be seen behind the first layers. Under each picture the PSNR in dB of the reconstruction as it is, not amplified,
    and the correlation of the two differences.

    Args:
        runs: data set, network and inversion.npz of each.
        scores: rows of inversion.csv of these runs.
        note: printed below: the images and the scale.
    """
    shown = len(runs[0][2]["images"])
    note += ". What differs from the mean image is amplified; below: PSNR without that, correlation with the image."
    figure, blocks = blocks_of(runs, note, height=0.25 + 0.92 * shown)
    for block, (dataset, system, arrays) in zip(blocks, runs, strict=True):
        of_run = scores[(scores.dataset == dataset) & (scores.system == system)]
        of_run = of_run[of_run.seed == of_run.seed.iloc[0]].set_index(["depth", "image"])  # the seed of the arrays
        depths = [depth for depth in DEPTHS if depth <= len(arrays["pictures"])]
        axes = block.subplots(len(arrays["images"]), 1 + len(depths), squeeze=False)
        for line, original, i in zip(axes, arrays["images"], range(shown), strict=True):
            line[0].imshow(rgb(original))
            for axis, depth in zip(line[1:], depths, strict=True):
                axis.imshow(rgb(arrays["pictures"][depth - 1, i]))
                score = of_run.loc[(depth, arrays["indices"][i])]
                axis.set_xlabel(f"{score.psnr_db:.1f} dB, {score.correlation:.2f}", fontsize="xx-small", labelpad=2)
        for axis, title in zip(axes[0], ["image", *(f"layer {depth}" for depth in depths)], strict=True):
            axis.set_title(title, fontsize="x-small", pad=3)
        for axis in axes.flat:
            without_scales(axis)
        block.suptitle(f"{system_label(system)}, {dataset_label(dataset)}", fontsize="small")
    return figure
