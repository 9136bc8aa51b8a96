"""What an earlier attack left in a run's folder: the lambda tuned against it, and its adversarial images."""

from pathlib import Path

import numpy as np

from sdnet.commands.target import Target
from sdnet.experiments import results
from sdnet.runs.spec import read_spec


def tuned_lambda(folder: Path, norm: str, eps: float) -> float | None:
    """The lambda that is best against the paper's protocol on a run; None for a network without one."""
    rows = results.read(folder / "attack-paper.csv", "attack-paper")
    unit = 255 if norm == "linf" else 1  # as the options have it: L-infinity in grey levels
    there = [f"{unit * radius:g}" for radius in rows.eps[rows.norm == norm].unique()]
    rows = rows[(rows.norm == norm) & np.isclose(rows.eps, eps)]
    if rows.empty:
        raise ValueError(
            f"--{norm}: given {unit * eps:g}, and {folder}/attack-paper.csv has {', '.join(there) or 'no such norm'}: "
            f"give what it has, or make it anew with: python -m sdnet attack {folder} --{norm} {unit * eps:g} ..."
        )
    tuned = rows[rows.choice == "tuned"]
    return None if tuned.empty else float(tuned["lambda"].iloc[0])


def reference_name(folder: Path) -> str:
    """What the adversarial images of another run are called."""
    return f"images against {read_spec(folder / 'spec.json')['system']}"


def adversarial_images(folder: Path, norm: str, eps: float, target: Target) -> np.ndarray:
    """The adversarial images (N, channels, H, W) of an attacked run, crafted at the lambda of training if it has one.

    Raises:
        FileNotFoundError, ValueError: if there are none, or not of this radius and the target's images.
    """
    path = folder / "adversarial.npz"
    arrays = results.read_arrays(path)
    if not np.isclose(arrays.get(f"{norm}_eps", np.nan), eps):
        raise ValueError(
            f"{path} has no images within radius {eps:g} in the {norm} norm; attack both with the same radii"
        )
    found = np.isin(target.indices, arrays["index"])
    if not found.all():
        raise ValueError(f"{path} lacks {np.sum(~found)} of the {len(found)} images; attack both with as many images")
    images = arrays[f"{norm}_lambda0"][np.searchsorted(arrays["index"], target.indices)]
    clean = np.moveaxis(target.images, -1, 1).astype(np.float32) / 255
    if images.shape != clean.shape or _distance(images - clean, norm).max() > 1.001 * eps:  # float32 rounds
        raise ValueError(f"{path} is of other images than are attacked here; give a run on the same ones")
    return images


def _distance(difference: np.ndarray, norm: str) -> np.ndarray:
    """The norm of each perturbation (N, channels, H, W), (N,)."""
    flat = difference.reshape(len(difference), -1)
    return np.linalg.norm(flat, ord=np.inf if norm == "linf" else 2, axis=1)
