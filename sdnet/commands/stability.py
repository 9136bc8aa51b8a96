"""How far noise moves what the first layer makes of an image, and what reaches the layer behind it."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import pandas as pd
from torch import Tensor

from sdnet.commands.experiment import choose_device, load_model, read_spec, run_columns, training_lambda
from sdnet.commands.noisy import Noise, Split
from sdnet.commands.sweep import SEVERITIES
from sdnet.csc import CSCConv2d, use_lambda
from sdnet.experiments import results
from sdnet.experiments.devices import lease
from sdnet.models.resnet import ResNet
from sdnet.robustness.calibration import check_grid
from sdnet.robustness.stability import stability_under

ITERATIONS = (1, 2, 4, 8, 16, 32, 64)  # towards the solution of Eq. 4, with the dictionary as it is
ITERATED_AT = 3  # of the severities, since so many take time and the severity matters little


def stability(
    folder: Path, data_path: Path | None, noise: Noise, lambdas: list[float], limit: int | None, gpus: int
) -> None:
    """Write stability.csv into a run's folder: at each lambda, and at that of training after more iterations.

    Raises:
        ValueError: if the network is no ResNet, with or without CSC layers.
    """
    spec = read_spec(folder / "spec.json")
    lambdas = check_grid(lambdas)
    with lease(gpus) as devices:
        images = Split(spec, data_path, "test", limit)
        model = load_model(folder, spec, len(images.classes), choose_device(devices))
        normalize, network = model
        if not isinstance(network, ResNet):
            raise ValueError(
                f"{folder}: given {spec['model']['name']}; must be a ResNet or an SDNet, with a first layer"
            )

        def feature_maps(x: Tensor) -> dict[str, Tensor]:
            image = normalize(x)
            layer, behind = network.stem(image)
            return {"image": image, "layer": layer, "behind": behind}

        lambda0 = training_lambda(model)
        n_iter = None if lambda0 is None else network.conv1.n_iter
        of_lambda, of_iterations = {(None, None): nullcontext}, {}
        if lambda0 is not None:
            of_lambda = {(float(lmbd), n_iter): partial(use_lambda, model, lmbd) for lmbd in lambdas}
            of_iterations = {(lambda0, count): partial(_iterations, network.conv1, count) for count in ITERATIONS}
        found = {}
        for severity in SEVERITIES:
            conditions = of_lambda | (of_iterations if severity == ITERATED_AT else {})
            pairs = zip(images.clean(), images.at_severity(noise, severity), strict=True)
            batches = ((clean, noisy) for (clean, _), (noisy, _) in pairs)
            measured = stability_under([*conditions.values()], model, feature_maps, batches)
            found |= {(severity, *condition): one for condition, one in zip(conditions, measured, strict=True)}
    common = run_columns(spec) | {
        "data_source": images.data_source,
        "noise": noise.name,
        "noise_source": images.noise_source(noise),
        "lambda0": lambda0,
        "n_iter0": n_iter,
        "images": len(images),
    }
    rows = [
        common
        | {"severity": severity, "lambda": lmbd, "n_iter": count, "place": place}
        | vars(one[place])
        | {"image_noise_to_signal": one["image"].noise_to_signal}
        for (severity, lmbd, count), one in found.items()
        for place in ("layer", "behind")
    ]
    results.write(folder / "stability.csv", "stability", rows)
    print(f"{folder}/stability.csv: noise to signal over that of the images, {noise.name} noise\n{_page(rows)}")


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
