"""Adversarial robustness of a trained network: the paper's protocol and the attacks that it leaves open (Table 4)."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from sdnet.commands.experiment import EVALUATION_BATCH, choose_device, load_model, read_spec
from sdnet.commands.noisy import Split
from sdnet.commands.parts import Arrays, Parts, digest, file_digest
from sdnet.commands.sweep import run_columns
from sdnet.csc import csc_layers
from sdnet.data.datasets import INFO
from sdnet.data.images import balanced_indices
from sdnet.experiments import results
from sdnet.experiments.devices import lease
from sdnet.robustness import autoattack
from sdnet.robustness.calibration import Calibration, image_residuals
from sdnet.robustness.ladder import (
    AT_LAMBDA0,
    Attempt,
    adaptive_attempts,
    craft,
    paper_attempt,
    weaker_attempts,
)
from sdnet.robustness.outcome import frozen
from sdnet.robustness.statistics import paired_difference, split_half
from sdnet.robustness.sweep import evaluate_at
from sdnet.training.checkpoint import write_arrays

BOOTSTRAP_SEED = 0
TOGETHER = "all of these together"
OUTCOME = ("adv_pred", "margin", "linf", "l2")
COURSE = ("first_broken_step", "loss_start", "loss_end")  # of PGD alone


@dataclass(frozen=True)
class Defence:
    """At which lambdas a network predicts, and how Algorithm 1 would choose one.

    Attributes:
        lambdas: to predict at, ascending; ignored for a network without CSC layers.
        noise: the noise whose fitted line Algorithm 1 takes. ASSUME: Gaussian, since the paper's needs a type of
            noise, and names none for adversarial images.
    """

    lambdas: Sequence[float]
    noise: str


class Target:
    """A trained network and the test images that it is attacked with.

    Attributes:
        images, labels, indices: uint8 (N, H, W, channels), class, and position in the data set.
        lambda0: the lambda of training; None for a network without CSC layers.
        clean: what becomes of the images without an attack, as from `judge`.
    """

    def __init__(self, folder: Path, data_path: Path | None, limit: int | None, defence: Defence, device: torch.device):
        self.folder, self.spec = folder, read_spec(folder / "spec.json")
        split = Split(self.spec, data_path, "test", limit)
        images, labels = zip(*split.clean(), strict=True)
        self.images, self.labels, self.indices = np.concatenate(images), np.concatenate(labels), split.indices
        self.data_source = split.data_source
        self.model = load_model(folder, self.spec, len(split.classes), device)
        self.lambda0, self.lambdas, self.calibration = None, (np.nan,), None
        if layers := csc_layers(self.model):
            self.lambda0, self.lambdas = layers[0].lmbd, tuple(defence.lambdas)
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
        batch, lambda0 = [(images, labels)], self.lambda0 or 0
        with frozen(self.model):  # in the precision that images were crafted in
            sweep = evaluate_at(self.model, batch, self.lambdas, lambda0)
            if self.calibration is None:
                unknown = np.full(len(labels), np.nan)
                return {"correct": sweep.correct, "residual": unknown, "lambda_hat": unknown}
            residual = image_residuals(sweep.residuals, self.calibration.definition)
            lmbd = self.calibration.lambda_for(residual.mean()).lmbd
            chosen = evaluate_at(self.model, batch, [lmbd], lmbd)
        correct = np.concatenate([sweep.correct, chosen.correct])
        return {"correct": correct, "residual": residual, "lambda_hat": np.full(len(labels), lmbd)}


@dataclass(frozen=True)
class Fate:
    """What one attack did: a column per attacked image.

    Attributes:
        attempt: the attack.
        rows: of the target's images, those attacked.
        columns: OUTCOME, COURSE, "broken_by" (of AutoAttack), and `Target.judge`'s of the adversarial images.
        flags: AutoAttack's warnings.
    """

    attempt: Attempt
    rows: np.ndarray
    columns: Arrays
    flags: str

    def robust(self, target: Target) -> np.ndarray:
        """(E, N) bool: the image is classified correctly, clean and attacked. True where it was not attacked."""
        robust = np.ones_like(target.clean["correct"])
        robust[:, self.rows] = self.columns["correct"] & target.clean["correct"][:, self.rows]
        return robust

    def in_words(self, target: Target) -> str:
        """The attack, and how many images withstand it."""
        left = 100 * self.robust(target)[:, self.rows].mean(axis=1)
        at = "" if self.attempt.lmbd is None else f", crafted at lambda {self.attempt.lmbd:g}"
        where = " at the best lambda" if len(left) > 1 else ""
        return f"{self.attempt.title}{at}: {left.max():.1f}% of {len(self.rows)} images robust{where}"


class Campaign:
    """The attacks on one target, batch by batch; each batch is kept until `parts.clear`, should the job be killed.

    Args:
        target: what is attacked.
        name: of the protocol.

    Attributes:
        starts: adversarial images (N, channels, H, W) that an attempt can start from, by the name it has for them.
    """

    def __init__(self, target: Target, name: str):
        about = repr((target.lambdas, target.calibration))
        depends = name, file_digest(target.folder / "model.pt"), target.images.tobytes(), about
        self.target, self.parts = target, Parts(target.folder / "parts", *depends)
        self.starts: dict[str, np.ndarray] = {}

    def run(self, attempt: Attempt, batches: list[np.ndarray], progress: tqdm) -> tuple[Fate, np.ndarray]:
        """The fate of the images in these batches, and the adversarial images (n, channels, H, W)."""
        progress.set_postfix_str(f"{attempt.pgd.norm} {attempt.step}: {attempt.title}")
        start = self.starts.get(attempt.start)
        kept = []
        for rows in batches:
            begin = None if start is None else start[rows]
            name = repr(attempt) + digest(rows.tobytes(), b"" if begin is None else begin.tobytes())
            kept.append(self.parts.get(name, lambda rows=rows, begin=begin: self._craft(attempt, rows, begin)))
            progress.update()
        flags = " ".join(sorted({str(part.pop("flags")) for part in kept} - {""}))
        columns = {name: np.concatenate([part[name] for part in kept], axis=-1) for name in kept[0] if name != "images"}
        return Fate(attempt, np.concatenate(batches), columns, flags), np.concatenate([part["images"] for part in kept])

    def _craft(self, attempt: Attempt, rows: np.ndarray, start: np.ndarray | None) -> Arrays:
        target = self.target
        images, labels = target.images[rows], target.labels[rows]
        options = {"indices": target.indices[rows], "start": start, "calibration": target.calibration}
        outcome = craft(attempt, target.model, images, labels, **options)
        unknown = np.full(len(rows), np.nan)
        return (
            target.judge(outcome.images, labels)
            | {name: getattr(outcome, name) for name in (*OUTCOME, "images")}
            | {name: getattr(outcome, name, unknown) for name in COURSE}
            | {
                "broken_by": getattr(outcome, "broken_by", np.full(len(rows), "")),
                "flags": np.array(" ".join(getattr(outcome, "flags", ()))),
            }
        )


def attack_as_the_paper(
    folder: Path, data_path: Path | None, radii: dict[str, float], limit: int | None, defence: Defence, gpus: int
) -> None:
    """The paper's protocol: write attack-paper.csv, counts, and attack-paper.npz, each image's fate.

    Args:
        folder: of the run.
        data_path: as in `experiment.open_data`.
        radii: eps of each norm, in pixels of [0, 1].
        limit: how many test images; None for all.
        defence: how the network predicts.
        gpus: devices to hold.
    """
    with lease(gpus) as devices:
        target = Target(folder, data_path, limit, defence, choose_device(devices))
        campaign = Campaign(target, "paper")
        attempts = [paper_attempt(norm, eps, target.lambda0) for norm, eps in radii.items()]
        with tqdm(total=len(attempts) * len(target.batches()), desc="attack", unit="batch", disable=None) as progress:
            fates = [campaign.run(attempt, target.batches(), progress)[0] for attempt in attempts]
    _write(folder, "attack-paper", target, fates)
    campaign.parts.clear()


@dataclass(frozen=True)
class Effort:
    """How hard the adaptive attacks try; see `ladder.adaptive_attempts`."""

    lambdas: Sequence[float]
    steps: int
    restarts: int
    autoattack: Sequence[str]
    autoattack_images: int


def attack_adaptively(
    folder: Path,
    data_path: Path | None,
    radii: dict[str, float],
    limit: int,
    defence: Defence,
    effort: Effort,
    reference: Path | None,
    gpus: int,
) -> None:
    """The attacks by those who know the defence, on a run that was attacked as in the paper.

    Writes attack-adaptive.csv, attack-adaptive.npz, and adversarial.npz: the images of the strongest descent (step c)
    against the lambda of training and against the tuned one.

    Args:
        folder, data_path, radii, limit, defence, gpus: see `attack_as_the_paper`.
        effort: how hard to try.
        reference: folder of an undefended network of the same data set, attacked already, whose adversarial images
            one attack starts from; None leaves that one out.
    """
    autoattack.check(effort.autoattack)
    with lease(gpus) as devices:
        target = Target(folder, data_path, limit, defence, choose_device(devices))
        campaign = Campaign(target, "adaptive")
        fates, crafted = [], {}
        for norm, eps in radii.items():
            tuned = tuned_lambda(folder, norm, eps)
            name = reference_name(reference) if reference else ""
            if reference:
                campaign.starts[name] = adversarial_images(reference, norm, target.indices)
            paper = paper_attempt(norm, eps, target.lambda0)
            attempts = [
                paper,
                *weaker_attempts(paper, float(np.mean(INFO[target.spec["dataset"]["name"]].std))),
                *adaptive_attempts(
                    paper,
                    tuned=tuned,
                    lambdas=effort.lambdas,
                    steps=effort.steps,
                    restarts=effort.restarts,
                    attacks=effort.autoattack,
                    reference=name,
                ),
            ]
            work = [(one, target.batches(effort.autoattack_images if one.autoattack else None)) for one in attempts]
            total = sum(len(batches) for _, batches in work)
            with tqdm(total=total, desc=f"attacks, {norm}", unit="batch", disable=None) as progress:
                for number, (attempt, batches) in enumerate(work, 1):
                    fate, images = campaign.run(attempt, batches, progress)
                    fates.append(fate)
                    line = f"{norm} {number}/{len(work)}  {attempt.step}: {fate.in_words(target)}"
                    progress.write(line, file=sys.stderr)
                    if attempt.step == "c" and attempt.pgd.loss == "cross-entropy":
                        at = "lambda0" if attempt.lmbd == target.lambda0 else "tuned"
                        crafted[f"{norm}_{at}"] = images
                        if at == "lambda0":
                            campaign.starts[AT_LAMBDA0] = images
    write_arrays(folder / "adversarial.npz", index=target.indices, **crafted)
    _write(folder, "attack-adaptive", target, fates)
    campaign.parts.clear()


def tuned_lambda(folder: Path, norm: str, eps: float) -> float | None:
    """The lambda that is best against the paper's protocol on a run; None for a network without one."""
    rows = results.read(folder / "attack-paper.csv", "attack-paper")
    rows = rows[(rows.norm == norm) & np.isclose(rows.eps, eps)]
    if rows.empty:
        raise ValueError(f"{folder}/attack-paper.csv: no attack of radius {eps:g} in the {norm} norm; attack again")
    tuned = rows[rows.choice == "tuned"]
    return None if tuned.empty else float(tuned["lambda"].iloc[0])


def reference_name(folder: Path) -> str:
    """What the adversarial images of another run are called."""
    return f"images against {read_spec(folder / 'spec.json')['system']}"


def adversarial_images(folder: Path, norm: str, indices: np.ndarray) -> np.ndarray:
    """The adversarial images (N, channels, H, W) of an attacked run, crafted at the lambda of training if it has one.

    Raises:
        FileNotFoundError, ValueError: if there are none, or not of the images with these positions.
    """
    path = folder / "adversarial.npz"
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; make it with: python -m sdnet attack-adaptive {folder}")
    arrays = results.read_arrays(path)
    found = np.isin(indices, arrays["index"])
    if not found.all():
        raise ValueError(f"{path} lacks {np.sum(~found)} of the {len(found)} images; attack both with as many images")
    return arrays[f"{norm}_lambda0"][np.searchsorted(arrays["index"], indices)]


def _write(folder: Path, name: str, target: Target, fates: list[Fate]) -> None:
    """The counts of every attack at every lambda, those of all attacks together, and each image's fate."""
    run = run_columns(target.spec) | {"data_source": target.data_source}
    rows, arrays = [], {name: target.clean[name] for name in ("correct", "residual", "lambda_hat")}
    for norm in dict.fromkeys(fate.attempt.pgd.norm for fate in fates):
        of_norm = [fate for fate in fates if fate.attempt.pgd.norm == norm]
        robust = np.stack([fate.robust(target) for fate in of_norm])
        for fate, survived in zip(of_norm, robust, strict=True):
            pgd = fate.attempt.pgd
            about = {
                "norm": norm,
                "eps": pgd.eps,
                "step": fate.attempt.step,
                "attack": fate.attempt.title,
                "lambda_attack": fate.attempt.lmbd,
                "warnings": fate.flags,
            }
            lambda_hat = fate.columns["lambda_hat"].mean()
            counts = _counts(target, survived[:, fate.rows], fate.rows, target.lambdas, lambda_hat)
            rows += [run | about | row for row in counts]
        steps = np.array([fate.attempt.step for fate in of_norm])
        for step in [*dict.fromkeys(steps), "worst"] if len(steps) > 1 else []:
            chosen = (steps == step) | (step == "worst")
            about = {"norm": norm, "eps": of_norm[0].attempt.pgd.eps, "step": step, "attack": TOGETHER}
            about |= {"lambda_attack": None, "warnings": ""}
            of_step = [of_norm[a] for a in np.flatnonzero(chosen)]
            attacked = np.unique(np.concatenate([fate.rows for fate in of_step]))
            together = robust[chosen].all(axis=0)[:, attacked]
            # One is chosen of the lambdas that were attacked: over all steps, of those of the strong descent, step c.
            hard = {fate.attempt.lmbd for fate in of_step if step != "worst" or fate.attempt.step == "c"}
            crafted = [lmbd for lmbd in target.lambdas if lmbd in hard]
            rows += [run | about | row for row in _counts(target, together, attacked, crafted, None)]
        arrays |= _arrays(norm, of_norm, robust)
    write_arrays(
        folder / f"{name}.npz", index=target.indices, label=target.labels, lambdas=np.array(target.lambdas), **arrays
    )
    results.write(folder / f"{name}.csv", name, rows)
    print(f"{folder}: {len(fates)} attacks on {len(target.indices)} images")


def _counts(
    target: Target, survived: np.ndarray, rows: np.ndarray, choices: Sequence[float], lambda_hat: float | None
) -> list[dict]:
    """A row for each lambda and for each way to choose one of `choices`, from survived (E, n) of images `rows`."""
    clean = target.clean["correct"][:, rows]
    if target.lambda0 is None:
        return [_count("given", None, survived[0], clean[0], None)]
    lambdas = list(target.lambdas)
    at_lambda0 = lambdas.index(target.lambda0)
    fixed = survived[at_lambda0]
    among = [lambdas.index(lmbd) for lmbd in choices]
    best = among[int(survived[among].mean(axis=1).argmax())]
    held_out, by_half = split_half(survived[among], choices)
    by_even, by_odd = map(lambdas.index, by_half)
    held_out_clean = np.empty_like(held_out)
    held_out_clean[0::2], held_out_clean[1::2] = clean[by_odd, 0::2], clean[by_even, 1::2]
    return [
        *(
            _count("given", lmbd, survived[e], clean[e], fixed if e != at_lambda0 else None)
            for e, lmbd in enumerate(lambdas)
        ),
        _count("tuned", lambdas[best], survived[best], clean[best], fixed),
        _count("held-out", sum(by_half) / 2, held_out, held_out_clean, fixed),
        _count("algorithm1", lambda_hat, survived[-1], clean[-1], fixed),
    ]


def _count(
    choice: str, lmbd: float | None, survived: np.ndarray, clean: np.ndarray, fixed: np.ndarray | None
) -> dict[str, str | float | None]:
    gain = None if fixed is None else paired_difference(survived, fixed, seed=BOOTSTRAP_SEED)
    return {
        "choice": choice,
        "lambda": lmbd,
        "clean_correct": int(clean.sum()),
        "correct": int(survived.sum()),
        "total": survived.size,
        "gain": gain and 100 * gain.estimate,
        "gain_low": gain and 100 * gain.low,
        "gain_high": gain and 100 * gain.high,
    }


def _arrays(norm: str, fates: list[Fate], robust: np.ndarray) -> Arrays:
    """What is kept of each image, for A attacks in this norm: (A, N), robust (A, E, N)."""
    number, images = len(fates), robust.shape[-1]
    columns = {name: np.full((number, images), np.nan) for name in (*OUTCOME, *COURSE, "residual", "lambda_hat")}
    columns["broken_by"] = np.full((number, images), "", dtype="U8")
    for a, fate in enumerate(fates):
        for name, column in columns.items():
            column[a, fate.rows] = fate.columns[name]
    names = {
        "step": np.array([fate.attempt.step for fate in fates]),
        "attack": np.array([fate.attempt.title for fate in fates]),
        "lambda_attack": np.array([fate.attempt.lmbd for fate in fates], dtype=float),
    }
    return {f"{norm}_{name}": values for name, values in (names | columns | {"robust": robust}).items()}
