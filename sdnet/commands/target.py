"""What is attacked: a trained network, its test images, and how it predicts."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

from sdnet.commands.parts import Arrays
from sdnet.csc import training_lambda
from sdnet.data.images import balanced_indices
from sdnet.experiments import results
from sdnet.robustness.calibration import Calibration, image_residuals
from sdnet.robustness.outcome import frozen_in_float32
from sdnet.robustness.sweep import evaluate_at
from sdnet.runs.images import EVALUATION_BATCH
from sdnet.runs.network import load_model
from sdnet.runs.noisy import open_split
from sdnet.runs.spec import read_spec


@dataclass(frozen=True)
class Defence:
    """At which lambdas a network predicts, and how Algorithm 1 would choose one.

    Attributes:
        lambdas: to predict at, ascending; ignored for a network without CSC layers.
        noise: the noise whose fitted line Algorithm 1 takes. ASSUME: Gaussian; Algorithm 1 needs a type of noise, and
            the paper names none for adversarial images.
    """

    lambdas: Sequence[float]
    noise: str


class Target:
    """A trained network and the test images that it is attacked with.

    Attributes:
        images, labels, indices: uint8 (N, H, W, channels), class, and position in the data set.
        classes: how many there are.
        lambda0: the lambda of training; None for a network without CSC layers.
        clean: what becomes of the images without an attack, as from `judge`.
    """

    def __init__(self, folder: Path, data_path: Path | None, limit: int | None, defence: Defence, device: torch.device):
        self.folder, self.spec = folder, read_spec(folder / "spec.json")
        split = open_split(self.spec, data_path, "test", limit)
        images, labels = zip(*split.clean(), strict=True)
        self.images, self.labels, self.indices = np.concatenate(images), np.concatenate(labels), split.indices
        self.data_source, self.classes = split.data_source, len(split.classes)
        self.model = load_model(folder, self.spec, self.classes, device)
        self.lambda0, self.lambdas, self.calibration = None, (np.nan,), None
        if (lambda0 := training_lambda(self.model)) is not None:
            self.lambda0, self.lambdas = lambda0, tuple(defence.lambdas)
            if self.lambda0 not in self.lambdas:
                raise ValueError(f"{folder}: lambdas {self.lambdas} must contain {self.lambda0:g}, that of training")
            line = results.read(folder / f"lines-{defence.noise}.csv", "lines").set_index("variant").loc["paper"]
            self.calibration = Calibration(**{field.name: line[field.name] for field in fields(Calibration)})
        judged = [self.judge(self.images[rows], self.labels[rows]) for rows in self.batches()]
        self.clean = {name: np.concatenate([one[name] for one in judged], axis=-1) for name in judged[0]}

    def batches(self, limit: int | None = None) -> list[np.ndarray]:
        """The rows of each batch, of all images or of the class-balanced `limit` of them."""
        rows = np.arange(len(self.indices))
        if limit is not None and limit < len(rows):
            rows = balanced_indices(self.labels, limit, np.random.default_rng(0))
        return np.split(rows, range(EVALUATION_BATCH, len(rows), EVALUATION_BATCH))

    def judge(self, images: np.ndarray, labels: np.ndarray) -> Arrays:
        """Classify a batch at every lambda and, in the last row, at that which Algorithm 1 chooses for it.

        Returns:
            correct: bool, (E, n), E one more than lambdas; of a network without CSC layers (1, n).
            residual: at the lambda of training, (n,).
            lambda_hat: Algorithm 1's, (n,), the same for all of the batch.
        """
        batch = [(images, labels)]
        with frozen_in_float32(self.model):  # in the precision that images were crafted in
            sweep = evaluate_at(self.model, batch, self.lambdas, self.lambda0)
            if self.calibration is None:
                unknown = np.full(len(labels), np.nan)
                return {"correct": sweep.correct, "residual": unknown, "lambda_hat": unknown}
            residual = image_residuals(sweep.residuals, self.calibration.definition)
            lmbd = self.calibration.lambda_for(residual.mean()).lmbd
            chosen = evaluate_at(self.model, batch, [lmbd], lmbd)
        correct = np.concatenate([sweep.correct, chosen.correct])
        return {"correct": correct, "residual": residual, "lambda_hat": np.full(len(labels), lmbd)}
