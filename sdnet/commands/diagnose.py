"""Are the attacks on a network good ones? D1 to D11 of sdnet/robustness/diagnostics.py, as a result file."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sdnet.commands.attacked import adversarial_images, reference_name, tuned_lambda
from sdnet.commands.measuring import measuring
from sdnet.commands.parts import Arrays, Parts, file_digest
from sdnet.commands.target import Defence, Target
from sdnet.csc import use_lambda
from sdnet.experiments import results
from sdnet.robustness import autoattack, diagnostics
from sdnet.robustness.ladder import AT_LAMBDA0
from sdnet.robustness.pgd import PGD, STEP_SIZE, Attacked, attack
from sdnet.runs.spec import run_columns

STEPS = (0.2, 0.4, 1, 2, 4)  # of D2, in those of the attack under test: 10 to 200 for 50
DIFFERENTIATED = 20  # images of D10


def diagnose(
    folder: Path,
    data_path: Path | None,
    radii: dict[str, float],
    limit: int,
    defence: Defence,
    steps: int,
    square: bool,
    reference: Path | None,
    gpus: int,
) -> None:
    """Write diagnostics.csv of a run that has been attacked adaptively; checks that are done survive a kill.

    Args:
        folder: of the run.
        data_path: as in `images.open_data`.
        radii: eps of each norm, in pixels of [0, 1].
        limit: how many test images; no more than were attacked.
        defence: how the network predicts.
        steps: of the attack under test, step b of the ladder.
        square: whether to try a black-box attack, which is slow (D6).
        reference: as in `attack.attack_adaptively`.
        gpus: devices to hold.
    """
    autoattack.check(("square",) if square else ())
    with measuring(folder, gpus) as device:
        target = Target(folder, data_path, limit, defence, device)
        todo = []
        for norm, eps in radii.items():
            settings = PGD(norm, eps, steps, STEP_SIZE * eps / steps)
            foreign = {}
            if reference:
                foreign[reference_name(reference)] = adversarial_images(reference, norm, eps, target)
            own = {AT_LAMBDA0: adversarial_images(folder, norm, eps, target)}
            for lmbd in sorted({target.lambda0, tuned_lambda(folder, norm, eps)}, key=lambda value: value or 0):
                todo.append((settings, lmbd, foreign if lmbd == target.lambda0 else foreign | own))
        files = [folder / "model.pt", *(run / "adversarial.npz" for run in (folder, reference) if run)]
        depends = "diagnostics", *map(file_digest, files), target.images.tobytes(), repr(square)
        parts = Parts(folder / "parts", *depends)
        with tqdm(todo, desc="diagnostics", disable=None) as progress:
            rows = [
                run_columns(target.spec) | {"norm": settings.norm, "lambda": lmbd, "images": len(target.indices)} | row
                for settings, lmbd, foreign in progress
                for row in _checks(target, parts, settings, lmbd, foreign, square)
            ]
    results.write(folder / "diagnostics.csv", "diagnostics", rows)
    parts.clear()
    failed, judged = (sum(row["accepted"] in values for row in rows) for values in ((False,), (False, True)))
    print(f"{folder}: {failed} of {judged} checks of the attacks failed")


def _checks(
    target: Target, parts: Parts, settings: PGD, lmbd: float | None, foreign: dict[str, np.ndarray], square: bool
) -> list[dict]:
    """The rows of all checks at one lambda."""
    model, norm, eps = target.model, settings.norm, settings.eps
    batches = [(target.images[rows], target.labels[rows]) for rows in target.batches()]
    few = [(target.images[:DIFFERENTIATED], target.labels[:DIFFERENTIATED])]
    steps = [max(1, round(share * settings.steps)) for share in STEPS]
    under_test = repr((settings, lmbd))

    def kept(check: str, measure: Callable[[], list[diagnostics.Check]]) -> list[dict]:
        def as_text() -> Arrays:
            return {"rows": np.array(json.dumps([asdict(row) for row in measure()]))}

        return json.loads(str(parts.get(f"{check} {under_test}", as_text)["rows"]))

    with nullcontext() if lmbd is None else use_lambda(model, lmbd):
        outcome = Attacked(
            **parts.get(under_test, lambda: vars(attack(model, batches, settings, indices=target.indices)))
        )
        checks = {
            "D1": lambda: diagnostics.control(outcome, norm) if lmbd is None else [],
            "D2": lambda: diagnostics.more_steps(model, batches, settings, steps),
            "D3": lambda: diagnostics.loss_curve(outcome.losses),
            "D4": lambda: diagnostics.radius_curve(model, batches, settings),
            "D5": lambda: diagnostics.single_step(model, batches, settings, outcome),
            "D6": lambda: diagnostics.black_box(model, outcome, batches, norm, eps) if square else [],
            "D7": lambda: diagnostics.transfer(model, outcome, foreign),
            "D8": lambda: diagnostics.random_noise(model, batches, settings, outcome, 2 * settings.steps),
            "D9": lambda: diagnostics.zero_gradients(model, batches),
            "D10": lambda: diagnostics.gradient_accuracy(model, few),
            "D11": lambda: diagnostics.other_step_sizes(model, batches, settings, outcome),
        }
        return [row for check, measure in checks.items() for row in kept(check, measure)]
