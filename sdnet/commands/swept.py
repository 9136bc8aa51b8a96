"""What a sweep leaves: its rows, what it is of, and its arrays as Algorithm 1 takes them."""

from pathlib import Path

import numpy as np

from sdnet.commands.parts import digest, file_digest
from sdnet.experiments import results
from sdnet.robustness.sweep import Sweep
from sdnet.runs.noisy import Noise, Split


def made_of(folder: Path, images: Split, noise: Noise) -> str:
    """What a sweep depends on besides its lambdas: the weights, the images, the noise."""
    weights, source = file_digest(folder / "model.pt"), images.noise_source(noise)
    return digest(weights, images.contents(noise), images.indices.tobytes(), source, str(noise.seed))


def sweep_rows(one: Sweep) -> list[dict]:
    """One row per lambda; the residuals, at lambda_0, are those of all rows. Empty without a CSC layer."""
    has_layers = len(one.residuals) > 0
    residual = {
        "residual_norm": one.residuals.mean() if has_layers else None,
        "residual_squared": np.square(one.residuals, dtype=np.float64).mean() if has_layers else None,
    }
    return [
        {"lambda": None if np.isnan(lmbd) else float(lmbd), "correct": int(correct.sum()), "total": correct.size}
        | residual
        for lmbd, correct in zip(one.lambdas, one.correct, strict=True)
    ]


def sweep_of(folder: Path, test: Split, noise: Noise, lambdas: list[float]) -> dict[str, np.ndarray]:
    """The run's sweep under one noise.

    Raises:
        ValueError: if it is not of these images, this noise, these lambdas, or the run's present weights.
    """
    path = folder / f"sweep-{noise.name}.npz"
    swept = results.read_arrays(path)
    if swept.get("made_of") != made_of(folder, test, noise):
        raise ValueError(
            f"{path} is of other weights, images or noise than are to be calibrated for; sweep again, "
            "with the same --images, --scale, --noise-seed and --official"
        )
    if not np.array_equal(swept["lambdas"], lambdas):
        raise ValueError(
            f"{path} is of the lambdas {', '.join(f'{value:g}' for value in swept['lambdas'])}, and --lambdas are "
            f"{', '.join(f'{value:g}' for value in lambdas)}; give the same, or sweep again with these"
        )
    return swept
