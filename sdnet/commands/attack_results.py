"""What attacks did to each image, counted at every lambda and for every way to choose one; written as result files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sdnet.commands.parts import Arrays
from sdnet.commands.target import Target
from sdnet.experiments import results
from sdnet.experiments.columns import TOGETHER
from sdnet.robustness.ladder import Attempt
from sdnet.robustness.statistics import held_out, paired_difference, split_half
from sdnet.runs.spec import run_columns

OUTCOME = ("adv_pred", "margin", "linf", "l2")
COURSE = ("first_broken_step", "loss_start", "loss_end")  # of PGD alone


@dataclass(frozen=True)
class AttackResult:
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


def write_attack_results(folder: Path, name: str, target: Target, attacks: list[AttackResult]) -> None:
    """The counts of every attack at every lambda, those of all attacks together, and each image's fate."""
    run = run_columns(target.spec) | {"data_source": target.data_source}
    rows, arrays = [], {name: target.clean[name] for name in ("correct", "residual", "lambda_hat")}
    for norm in dict.fromkeys(attack.attempt.pgd.norm for attack in attacks):
        of_norm = [attack for attack in attacks if attack.attempt.pgd.norm == norm]
        robust = np.stack([attack.robust(target) for attack in of_norm])
        for attack, survived in zip(of_norm, robust, strict=True):
            pgd = attack.attempt.pgd
            about = {
                "norm": norm,
                "eps": pgd.eps,
                "step": attack.attempt.step,
                "attack": attack.attempt.title,
                "lambda_attack": attack.attempt.lmbd,
                "warnings": attack.flags,
            }
            lambda_hat = attack.columns["lambda_hat"].mean()
            counts = _counts(target, survived[:, attack.rows], attack.rows, target.lambdas, lambda_hat)
            rows += [run | about | row for row in counts]
        if len(of_norm) > 1:
            about = {"norm": norm, "eps": of_norm[0].attempt.pgd.eps, "attack": TOGETHER, "warnings": ""}
            rows += [run | about | row for row in _together(target, of_norm, robust)]
        arrays |= _arrays(norm, of_norm, robust)
    results.write_arrays(
        folder / f"{name}.npz", index=target.indices, label=target.labels, lambdas=np.array(target.lambdas), **arrays
    )
    results.write(folder / f"{name}.csv", name, rows)
    print(f"{folder / name}.csv: {len(attacks)} attacks on {len(target.indices)} images\n{_page(rows, target)}")


def _page(rows: list[dict], target: Target) -> str:
    """What a person wants to know first: the last attack of each norm, or the worst of all, but not at every lambda."""
    table = pd.DataFrame(rows)
    for name in ("step", "attack"):
        table = table[table[name] == table.groupby("norm")[name].transform("last")]
    table = table[(table.choice != "given") | table["lambda"].isna() | (table["lambda"] == target.lambda0)]
    shown = ["norm", "attack", "choice", "lambda", "clean_correct", "correct", "total"]
    return table.fillna({"lambda": np.nan})[shown].to_string(index=False, na_rep="", float_format="{:.3g}".format)


def _together(target: Target, attacks: list[AttackResult], robust: np.ndarray) -> Iterator[dict]:
    """Rows that count each image at its worst: over the attacks of each step, then over all ("worst")."""
    steps = np.array([attack.attempt.step for attack in attacks])
    for step in [*dict.fromkeys(steps), "worst"]:
        chosen = (steps == step) | (step == "worst")
        of_step = [attacks[a] for a in np.flatnonzero(chosen)]
        attacked = np.unique(np.concatenate([attack.rows for attack in of_step]))
        survived = robust[chosen].all(axis=0)[:, attacked]
        # Lambda is chosen among those that were attacked; over all steps, among those of step c, the strong descent.
        hard = {attack.attempt.lmbd for attack in of_step if step != "worst" or attack.attempt.step == "c"}
        crafted = [lmbd for lmbd in target.lambdas if lmbd in hard]
        for row in _counts(target, survived, attacked, crafted, None):
            yield {"step": step, "lambda_attack": None} | row


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
    survived_held_out, by_half = split_half(survived[among], choices)
    clean_held_out = held_out(clean, *map(lambdas.index, by_half))
    return [
        *(
            _count("given", lmbd, survived[e], clean[e], fixed if e != at_lambda0 else None)
            for e, lmbd in enumerate(lambdas)
        ),
        _count("tuned", lambdas[best], survived[best], clean[best], fixed),
        _count("held-out", sum(by_half) / 2, survived_held_out, clean_held_out, fixed),
        _count("algorithm1", lambda_hat, survived[-1], clean[-1], fixed),
    ]


def _count(
    choice: str, lmbd: float | None, survived: np.ndarray, clean: np.ndarray, fixed: np.ndarray | None
) -> dict[str, str | float | None]:
    gain = None if fixed is None else paired_difference(survived, fixed)
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


def _arrays(norm: str, attacks: list[AttackResult], robust: np.ndarray) -> Arrays:
    """What is kept of each image, for A attacks in this norm: (A, N), robust (A, E, N)."""
    number, images = len(attacks), robust.shape[-1]
    columns = {name: np.full((number, images), np.nan) for name in (*OUTCOME, *COURSE, "residual", "lambda_hat")}
    columns["broken_by"] = np.full((number, images), "", dtype="U8")
    for a, attack in enumerate(attacks):
        for name, column in columns.items():
            column[a, attack.rows] = attack.columns[name]
    names = {
        "step": np.array([attack.attempt.step for attack in attacks]),
        "attack": np.array([attack.attempt.title for attack in attacks]),
        "lambda_attack": np.array([attack.attempt.lmbd for attack in attacks], dtype=float),
    }
    return {f"{norm}_{name}": values for name, values in (names | columns | {"robust": robust}).items()}
