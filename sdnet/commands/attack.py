"""Adversarial robustness of a trained network: the paper's protocol and the attacks that it leaves open (Table 4)."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sdnet.commands.attack_results import COURSE, OUTCOME, AttackResult, write_attack_results
from sdnet.commands.attacked import adversarial_images, reference_name, tuned_lambda
from sdnet.commands.measuring import measuring
from sdnet.commands.parts import Arrays, Parts, digest, file_digest
from sdnet.commands.target import Defence, Target
from sdnet.data.datasets import INFO
from sdnet.experiments import results
from sdnet.robustness import autoattack
from sdnet.robustness.ladder import AT_LAMBDA0, Attempt, adaptive_attempts, craft, paper_attempt, weaker_attempts
from sdnet.robustness.peaks import check_grid


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

    def run(self, attempt: Attempt, batches: list[np.ndarray], progress: tqdm) -> tuple[AttackResult, np.ndarray]:
        """What became of the images in these batches, and the adversarial images (n, channels, H, W)."""
        progress.set_postfix_str(f"{attempt.pgd.norm} {attempt.step}: {attempt.title}")
        start = self.starts[attempt.start] if attempt.start else None
        kept = []
        for rows in batches:
            begin = None if start is None else start[rows]
            name = repr(attempt) + digest(rows.tobytes(), b"" if begin is None else begin.tobytes())
            kept.append(self.parts.get(name, lambda rows=rows, begin=begin: self._craft(attempt, rows, begin)))
            progress.update()
        flags = " ".join(sorted({str(part.pop("flags")) for part in kept} - {""}))
        columns = {name: np.concatenate([part[name] for part in kept], axis=-1) for name in kept[0] if name != "images"}
        images = np.concatenate([part["images"] for part in kept])
        return AttackResult(attempt, np.concatenate(batches), columns, flags), images

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
        data_path: as in `images.open_data`.
        radii: eps of each norm, in pixels of [0, 1].
        limit: how many test images; None for all.
        defence: how the network predicts.
        gpus: devices to hold.
    """
    with measuring(folder, gpus) as device:
        target = Target(folder, data_path, limit, defence, device)
        campaign = Campaign(target, "paper")
        attempts = [paper_attempt(norm, eps, target.lambda0) for norm, eps in radii.items()]
        with tqdm(total=len(attempts) * len(target.batches()), desc="attack", unit="batch", disable=None) as progress:
            attacks = [campaign.run(attempt, target.batches(), progress)[0] for attempt in attempts]
    write_attack_results(folder, "attack-paper", target, attacks)
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
    check_grid(effort.lambdas)
    with measuring(folder, gpus) as device:
        target = Target(folder, data_path, limit, defence, device)
        autoattack.check_classes(effort.autoattack, target.classes)
        campaign = Campaign(target, "adaptive")
        attacks, crafted = [], {}
        tuned = {norm: tuned_lambda(folder, norm, eps) for norm, eps in radii.items()}
        if missing := {lmbd for lmbd in tuned.values() if lmbd is not None} - set(target.lambdas):
            raise ValueError(
                f"--lambdas lacks {', '.join(f'{lmbd:g}' for lmbd in sorted(missing))}, to which "
                f"{folder}/attack-paper.csv is tuned; give it too, or run `attack` with the same --lambdas first"
            )
        for norm, eps in radii.items():
            name = reference_name(reference) if reference else ""
            if reference:
                campaign.starts[name] = adversarial_images(reference, norm, eps, target)
            paper = paper_attempt(norm, eps, target.lambda0)
            attempts = [
                paper,
                *weaker_attempts(paper, float(np.mean(INFO[target.spec["dataset"]["name"]].std))),
                *adaptive_attempts(
                    paper,
                    tuned=tuned[norm],
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
                    attack, images = campaign.run(attempt, batches, progress)
                    attacks.append(attack)
                    line = f"{norm} {number}/{len(work)}  {attempt.step}: {attack.in_words(target)}"
                    progress.write(line, file=sys.stderr)
                    if attempt.step == "c" and attempt.pgd.loss == "cross-entropy":
                        at = "lambda0" if attempt.lmbd == target.lambda0 else "tuned"
                        crafted[f"{norm}_{at}"] = images
                        if at == "lambda0":
                            campaign.starts[AT_LAMBDA0] = images
    radius = {f"{norm}_eps": np.array(eps) for norm, eps in radii.items()}
    results.write_arrays(folder / "adversarial.npz", index=target.indices, **radius, **crafted)
    write_attack_results(folder, "attack-adaptive", target, attacks)
    campaign.parts.clear()
