"""Algorithm 1 on a trained network and one noise: fit lambda(r), and test with the lambda that it gives."""

from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from torch import nn
from tqdm import tqdm

from sdnet.commands.measuring import measuring
from sdnet.commands.parts import Arrays, Parts
from sdnet.commands.swept import made_of, sweep_of, sweep_rows
from sdnet.csc import training_lambda
from sdnet.data.corruptions import CALIBRATION_LEVELS, RELEASED_LAMBDA_MAX, SEVERITIES
from sdnet.experiments import results
from sdnet.robustness.calibration import (
    Calibration,
    LambdaEstimate,
    bootstrap_lambdas,
    fit_calibration,
    image_residuals,
    released_residuals,
)
from sdnet.robustness.peaks import Peak, find_peaks
from sdnet.robustness.statistics import adaptive_difference, mcnemar_p_value, paired_difference
from sdnet.robustness.sweep import Sweep, evaluate_at
from sdnet.runs.network import load_model
from sdnet.runs.noisy import Noise, Split, open_split
from sdnet.runs.spec import read_spec, run_columns

LINE = ["variant", "slope", "intercept", "r_squared"]  # what is printed
CHOSEN = ["variant", "severity", "residual", "lambda", "fixed_correct", "correct", "total", "gain"]

# What of Algorithm 1 the paper leaves open: the residual's norm, and where the maximum of a plateau lies.
VARIANTS = {
    "paper": {"definition": "norm", "estimator": "argmax"},
    "squared": {"definition": "squared", "estimator": "argmax"},
    "parabola": {"definition": "norm", "estimator": "parabola"},
}


@dataclass(frozen=True)
class Fit:
    """A fitted line, the points it was fitted to, and what it might have been with other images."""

    calibration: Calibration
    levels: tuple[float | None, ...]
    residuals: np.ndarray  # r_c, (levels,)
    peaks: list[Peak]
    estimator: str
    draws: np.ndarray | None  # lambda_hat of each bootstrap sample at each test set, (resamples, test sets)


def calibrate(
    folder: Path,
    data_path: Path | None,
    noise: Noise,
    lambdas: list[float],
    *,
    levels: str,
    images: int,
    limit: int | None,
    variants: list[str],
    gpus: int,
) -> None:
    """Write calibration-, peaks-, lines- and adaptive-<noise>.csv into the folder of a run that has been swept.

    A killed calibration goes on after the last noise level that it had done.

    Args:
        folder: the run's.
        data_path: as in `images.open_data`.
        noise: which noise.
        lambdas: the set Lambda, as in the sweep.
        levels: which set C, a key of `CALIBRATION_LEVELS`.
        images: how many training images to fit on; all, if there are fewer.
        limit: how many test images, as in the sweep.
        variants: keys of `VARIANTS`, or "released": the fit of the authors' code, on test images.
        gpus: devices to hold.

    Raises:
        ValueError: if the network has no CSC layer, or was swept on other images, noise, weights or lambdas.
    """
    spec = read_spec(folder / "spec.json")
    with measuring(folder, gpus) as device:
        test = open_split(spec, data_path, "test", limit)
        model = load_model(folder, spec, len(test.classes), device)
        if (lambda0 := training_lambda(model)) is None:
            raise ValueError(f"{folder}: {spec['model']['name']} has no CSC layer, so there is no lambda to calibrate")
        swept = sweep_of(folder, test, noise, lambdas)
        train = open_split(spec, data_path, "train", images)
        clean = evaluate_at(model, test.clean(), [lambda0], lambda0)
        # Of the clean test set, then of each severity: the residual of each image and layer at lambda_0.
        test_residuals = [clean.residuals, *swept["residuals"]]
        at_lambda0 = np.isclose(swept["lambdas"], lambda0).argmax()  # no sweep is without it
        fixed = np.stack([clean.correct[0], *swept["correct"][:, at_lambda0]])
        chosen_levels = CALIBRATION_LEVELS[levels][noise.name]
        on_training_images = made_of(folder, train, replace(noise, official=None))  # there, noise is generated
        depends = on_training_images, str(swept["made_of"]), repr(lambdas)
        parts = Parts(folder / "parts", "calibrate", noise.name, *depends)

        def at(position: int, level: float | None) -> Arrays:
            return vars(evaluate_at(model, train.at_level(noise, position, level), lambdas, lambda0))

        sweeps = [
            Sweep(**parts.get(f"{position} {level}", partial(at, position, level)))
            for position, level in enumerate(tqdm(chosen_levels, f"{noise.name}: Algorithm 1", disable=None))
        ]
        fits = {
            variant: _fit_released(model, test, noise, lambdas, lambda0, parts)
            if variant == "released"
            else _fit(sweeps, chosen_levels, lambdas, lambda0, test_residuals, **VARIANTS[variant])
            for variant in variants
        }
        estimates = {variant: _estimates(fit.calibration, test_residuals) for variant, fit in fits.items()}
        predicted = _predict(model, test, noise, estimates)
        adaptive = [
            {"variant": variant} | row
            for variant, fit in fits.items()
            for row in _test_rows(fit, estimates[variant], predicted[variant], fixed, swept)
        ]
    run = run_columns(spec) | {"noise": noise.name}
    tested = run | test.columns(noise)
    calibration = [
        run | {"level": level, "images": len(train)} | row
        for level, one in zip(chosen_levels, sweeps, strict=True)
        for row in sweep_rows(one)
    ]
    peaks = [run | {"variant": variant} | row for variant, fit in fits.items() for row in _peak_rows(fit)]
    lines = [run | {"variant": variant} | asdict(fit.calibration) for variant, fit in fits.items()]
    results.write(folder / f"calibration-{noise.name}.csv", "calibration", calibration)
    results.write(folder / f"peaks-{noise.name}.csv", "peaks", peaks)
    results.write(folder / f"lines-{noise.name}.csv", "lines", lines)
    results.write(folder / f"adaptive-{noise.name}.csv", "adaptive", [tested | row for row in adaptive])
    parts.clear()
    print(f"{folder}/lines-{noise.name}.csv: lambda as a function of the residual\n{_page(lines, LINE)}\n")
    print(f"{folder}/adaptive-{noise.name}.csv: its lambda for clean images (severity 0) and each severity")
    print(_page(adaptive, CHOSEN))


def _fit(
    sweeps: list[Sweep],
    levels: tuple[float | None, ...],
    lambdas: list[float],
    lambda0: float,
    test_residuals: list[np.ndarray],
    *,
    definition: str,
    estimator: str,
) -> Fit:
    """Steps 4 to 12 of Algorithm 1, as printed."""
    correct = np.stack([one.correct for one in sweeps])
    residuals = np.stack([image_residuals(one.residuals, definition) for one in sweeps])
    peaks = find_peaks(correct, lambdas)
    best = [getattr(peak, estimator) for peak in peaks]
    line = fit_calibration(residuals.mean(axis=1), best, lambdas, lambda0=lambda0, definition=definition)
    targets = [image_residuals(norms, definition).mean() for norms in test_residuals]
    draws = bootstrap_lambdas(correct, residuals, lambdas, targets, estimator=estimator)
    return Fit(line, levels, residuals.mean(axis=1), peaks, estimator, draws)


def _fit_released(
    model: nn.Module, test: Split, noise: Noise, lambdas: list[float], lambda0: float, parts: Parts
) -> Fit:
    """The fit of the authors' released code: on test images and their labels, with its running mean for a residual."""
    grid = [value for value in lambdas if value <= RELEASED_LAMBDA_MAX]
    levels = [level for level in CALIBRATION_LEVELS["released"][noise.name] if level is not None]

    def at(position: int, level: float | None) -> Arrays:
        batches = [
            [evaluate_at(model, [batch], [value], lambda0=value) for value in grid]
            for batch in test.at_level(noise, position, level)
        ]
        of_images = np.hstack([[image_residuals(one.residuals, "squared") for one in batch] for batch in batches])
        correct = np.hstack([np.vstack([one.correct for one in batch]) for batch in batches])
        return {"correct": correct, "residuals": of_images.mean(axis=1)}

    found = [
        parts.get(f"released {position} {level}", partial(at, position, level))
        for position, level in enumerate(tqdm(levels, f"{noise.name}: released code's fit", disable=None))
    ]
    correct, residuals = (np.stack([one[name] for one in found]) for name in ("correct", "residuals"))
    peaks = find_peaks(correct, grid)
    levels_residuals = released_residuals(residuals, correct.mean(axis=2))
    best = [peak.argmax for peak in peaks]
    line = fit_calibration(levels_residuals, best, grid, lambda0=lambda0, definition="squared")
    return Fit(line, levels, levels_residuals, peaks, "argmax", None)


def _estimates(line: Calibration, test_residuals: list[np.ndarray]) -> list[LambdaEstimate]:
    """Step 14, and lambda(r_test): of the clean test set, then of each severity."""
    return [line.lambda_for(image_residuals(norms, line.definition).mean()) for norms in test_residuals]


def _predict(
    model: nn.Module, test: Split, noise: Noise, estimates: dict[str, list[LambdaEstimate]]
) -> dict[str, np.ndarray]:
    """Algorithm 1's output: which test images the lambda of each variant classifies correctly, (1 + severities, N)."""
    correct = {variant: [] for variant in estimates}
    for severity in (0, *SEVERITIES):
        chosen = {variant: of[severity].lmbd for variant, of in estimates.items()}
        lambdas = sorted(set(chosen.values()))
        images = test.at_severity(noise, severity) if severity else test.clean()
        found = evaluate_at(model, images, lambdas, lambda0=lambdas[0])  # whose residuals are known already
        for variant, lmbd in chosen.items():
            correct[variant].append(found.correct[lambdas.index(lmbd)])
    return {variant: np.stack(rows) for variant, rows in correct.items()}


def _test_rows(
    fit: Fit, estimates: list[LambdaEstimate], adaptive: np.ndarray, fixed: np.ndarray, swept: dict[str, np.ndarray]
) -> list[dict]:
    """What came of a line: rows of adaptive-<noise>.csv, for clean images (severity 0), each severity, and the mean."""

    def gain(first: int, last: int) -> dict[str, float]:
        """Gain over these severities.

        The interval also covers the choice of calibration images, except for clean images, which were not swept.
        """
        cells = slice(first, last + 1)
        found = [paired_difference(adaptive[cells], fixed[cells])]
        if fit.draws is not None and first > 0:
            correct, chosen = swept["correct"][first - 1 : last], [one.lmbd for one in estimates[cells]]
            found.append(adaptive_difference(correct, swept["lambdas"], chosen, fit.draws[:, cells], fixed[cells]))
        low, high = min(one.low for one in found), max(one.high for one in found)
        return {"gain": 100 * found[0].estimate, "gain_low": 100 * low, "gain_high": 100 * high}

    rows = []
    for severity, estimate in enumerate(estimates):
        low, high = (None, None) if fit.draws is None else np.quantile(fit.draws[:, severity], (0.025, 0.975))
        rows.append(
            {
                "severity": str(severity),
                "residual": estimate.residual,
                "lambda": estimate.lmbd,
                "lambda_low": low,
                "lambda_high": high,
                "clamped": estimate.clamped,
                "extrapolated": estimate.extrapolated,
                "correct": int(adaptive[severity].sum()),
                "fixed_correct": int(fixed[severity].sum()),
                "total": adaptive.shape[1],
            }
            | gain(severity, severity)
            | {"p_value": mcnemar_p_value(adaptive[severity], fixed[severity])}
        )
    rows.append(
        dict.fromkeys(rows[0])
        | {
            "severity": "mean",
            "correct": int(adaptive[1:].sum()),
            "fixed_correct": int(fixed[1:].sum()),
            "total": adaptive[1:].size,
        }
        | gain(1, len(SEVERITIES))
    )
    return rows


def _page(rows: list[dict], columns: list[str]) -> str:
    return pd.DataFrame(rows)[columns].to_string(index=False, na_rep="", float_format="{:.3g}".format)


def _peak_rows(fit: Fit) -> list[dict]:
    return [
        {
            "level": level,
            "residual": residual,
            "lambda": getattr(peak, fit.estimator),
            "lambda_std": getattr(peak, f"{fit.estimator}_std"),
            "plateau_low": min(peak.plateau),
            "plateau_high": max(peak.plateau),
            "at_grid_end": peak.at_grid_end,
        }
        for level, residual, peak in zip(fit.levels, fit.residuals, fit.peaks, strict=True)
    ]
