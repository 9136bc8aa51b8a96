"""How far noise moves what the first layer makes of an image, and what reaches the layer behind it."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pandas as pd
from torch import Tensor, nn

from sdnet.commands.measuring import measuring
from sdnet.csc import CSCConv2d, training_lambda, use_lambda
from sdnet.data.corruptions import SEVERITIES
from sdnet.experiments import results
from sdnet.models.resnet import ResNet
from sdnet.robustness.peaks import check_grid
from sdnet.robustness.stability import stability_under
from sdnet.runs.network import load_model
from sdnet.runs.noisy import Noise, open_split
from sdnet.runs.spec import read_spec, run_columns

IMAGE = ("image", None, None)  # its place, lambda and iterations
ITERATIONS = (1, 2, 4, 8, 16, 32, 64)  # towards the solution of Eq. 4, with the dictionary as it is
ITERATED_AT = 3  # of the severities, since so many take time and the severity matters little


def stability(
    folder: Path, data_path: Path | None, noise: Noise, lambdas: list[float], limit: int | None, gpus: int
) -> None:
    """Write stability.csv into a run's folder.

    It has the first layer's output and what reaches the next layer, at each lambda; the convolution of the image with
    the same atoms; and the first layer's output after more iterations, at the lambda of training and, of the larger
    ones, the middle and the last.

    Raises:
        ValueError: if the network is no ResNet, with or without CSC layers.
    """
    spec = read_spec(folder / "spec.json")
    lambdas = check_grid(lambdas)
    with measuring(folder, gpus) as device:
        images = open_split(spec, data_path, "test", limit)
        model = load_model(folder, spec, len(images.classes), device)
        if not isinstance(model[1], ResNet):
            raise ValueError(
                f"{folder}: given {spec['model']['name']}; must be a ResNet or an SDNet, with a first layer"
            )
        lambda0 = training_lambda(model)
        tried = [] if lambda0 is None else sorted({lambda0, *map(float, lambdas)})
        larger = [lmbd for lmbd in tried if lmbd >= lambda0]
        solved = sorted({*larger[:1], *larger[len(larger) // 2 :][:1], *larger[-1:]})
        found = {}
        for severity in SEVERITIES:
            pairs = zip(images.clean(), images.at_severity(noise, severity), strict=True)
            batches = ((clean, noisy) for (clean, _), (noisy, _) in pairs)
            feature_maps = partial(_feature_maps, model, tried, solved if severity == ITERATED_AT else [])
            found[severity] = stability_under(model, feature_maps, batches)
    common = run_columns(spec) | images.columns(noise)
    common |= {
        "lambda0": lambda0,
        "n_iter0": None if lambda0 is None else model[1].conv1.n_iter,
        "images": len(images),
    }
    rows = [
        common
        | {"severity": severity, "lambda": lmbd, "n_iter": count, "place": place}
        | vars(one)
        | {"image_noise_to_signal": of_severity[IMAGE].noise_to_signal}
        for severity, of_severity in found.items()
        for (place, lmbd, count), one in of_severity.items()
        if place != IMAGE[0]
    ]
    results.write(folder / "stability.csv", "stability", rows)
    print(f"{folder}/stability.csv: noise to signal over that of the images, {noise.name} noise\n{_page(rows)}")


def _feature_maps(
    model: nn.Sequential, tried: Sequence[float], solved: Sequence[float], x: Tensor
) -> Iterator[tuple[tuple[str, float | None, int | None], Tensor]]:
    """What is measured, by its place, lambda and iterations: at lambdas `tried`, with more iterations at `solved`."""
    normalize, network = model
    image, layer = normalize(x), network.conv1
    yield IMAGE, image
    if not tried:
        output, behind = network.stem(image)
        yield from [(("layer", None, None), output), (("behind", None, None), behind)]
        return
    yield ("atoms", None, None), layer.adjoint(image)
    for lmbd in tried:
        with use_lambda(model, lmbd):
            code, behind = network.stem(image)
        yield from [(("layer", lmbd, layer.n_iter), code), (("behind", lmbd, layer.n_iter), behind)]
    for lmbd, count in itertools.product(solved, ITERATIONS):
        if count != layer.n_iter:
            with use_lambda(model, lmbd), _iterations(layer, count):
                code = layer(image)
            yield ("layer", lmbd, count), code


@contextmanager
def _iterations(layer: CSCConv2d, count: int) -> Iterator[None]:
    """Let a layer take another number of iterations."""
    before = layer.n_iter
    layer.n_iter = count
    try:
        yield
    finally:
        layer.n_iter = before


def _page(rows: list[dict]) -> str:
    table = pd.DataFrame(rows).assign(gain=lambda row: row.noise_to_signal / row.image_noise_to_signal)
    for name in ("lambda", "n_iter"):
        table[name] = ["" if pd.isna(value) else f"{value:g}" for value in table[name]]
    table = table.rename(columns={"n_iter": "iterations"})
    pages = table.pivot_table("gain", ["lambda", "iterations"], ["severity", "place"], sort=False)
    return pages.to_string(float_format="{:.2f}".format, na_rep="")
