"""How one of the paper's claims is judged: its tests, by the effects that were measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import pandas as pd

from sdnet.experiments.claims.claim import COMPARE, COSTS, SIZE_EPOCHS, SIZE_WIDTH, Claim, Test, Which, networks_of
from sdnet.experiments.claims.words import number
from sdnet.experiments.labels import DATASETS, KEPT
from sdnet.experiments.settings.names import Noise

LEARNED = ("accuracy", "robust", "noise_to_signal")  # what hangs on the seed, and on how long one trains


@dataclass(frozen=True)
class Outcome:
    """What came of a test, in words, too.

    Attributes:
        kept: its bound.
        broken: surely, whatever the scale.
        broken_here: surely in these runs, be it that more seeds or longer training may order two networks otherwise.
    """

    kept: bool
    broken: bool
    broken_here: bool
    words: str


def judge(
    claim: Claim, effects: pd.DataFrame, expected: set[str], noises: Sequence[str], lacking: Sequence[str] = ()
) -> dict:
    """The verdict on a claim by the effects on one data set, in one reading of the layer, and what goes with it.

    Args:
        claim: the claim.
        effects: rows of effects.csv.
        expected: which of the claim's effects there must be; no others are looked at.
        noises: of the noises that the claim is about, those that the preset has. There must be results under each;
            those under other noises are ignored. Empty for a claim that is about no noise.
        lacking: the noises that the claim is about and the preset lacks.
    """
    others = set(get_args(Noise)) - set(noises)
    effects = effects[~effects.condition.isin(others)] if noises else effects
    if missing := _missing(claim, effects, expected, noises):
        return {"verdict": "not run", "reason": missing}
    direction, size = (
        [(test, _select(claim.which(test), effects, expected)) for test in tests]
        for tests in (claim.direction, claim.size)
    )
    outcomes = [_outcome(test, rows, lacking) for test, rows in direction]
    words = [one.words for one in outcomes]
    used = pd.concat([_select(claim.which(test), effects, expected, anywhere=True) for test in claim.direction])
    doubts = _doubts(claim, used, lacking)
    if unequal := sorted(set(used.unequal) - {""}):
        verdict = "undecided"
        words.append(f"no fair comparison: {'; '.join(unequal)}")
    elif any(one.broken for one in outcomes):
        verdict = "contradicted"
        words += [f"how far that counts against the paper is not judged: {doubts}"] if doubts else []
    elif any(one.broken_here for one in outcomes):
        verdict = "against"
    elif not all(one.kept for one in outcomes):
        verdict = "undecided"
    elif doubts:
        verdict = "direction"
        words.append(f"how much is not judged: {doubts}")
    else:
        sizes = [_outcome(test.model_copy(update={"sure": False}), rows) for test, rows in size]
        verdict = "replicated" if all(one.kept for one in sizes) else "direction"
        words += [f"how much: {one.words}" for one in sizes]
    if lacking and verdict in ("undecided", "against"):
        words.append(f"without {', '.join(lacking)} noise")
    ways = "; ".join(way for way in used.measure.unique() if way)
    trained = used[~used.quantity.isin(COSTS)]
    if trained.n_seeds.min() == 1:
        covered = (
            "so that intervals do not cover the variance of training" if trained.low.notna().any() else "no interval"
        )
        words.append(f"of one seed, {covered}")
    first, rows = direction[0]
    return _summary(rows, first.pool == "size", claim.paper) | {
        "verdict": verdict,
        "n_seeds": used.n_seeds.min(),
        "data": used["data"].iloc[0],
        "scale": used.scale.iloc[0],
        "reason": "; ".join(words) + (f". Measured: {ways}" if ways else ""),
    }


def _missing(claim: Claim, effects: pd.DataFrame, expected: set[str], noises: Sequence[str]) -> str:
    """Which effects or noises the tests of direction need and there are none of, in words; empty if all are there."""
    for test in claim.direction:
        found = _select(claim.which(test), effects, expected, anywhere=True)
        if absent := sorted(set(claim.which(test).effects) & expected - set(found.name)):
            return f"results are missing: {', '.join(absent)}"
        if found.empty:
            return "results are missing"
        tested = set(found.condition) & set(noises)
        if tested and claim.which(test).condition == ["any"] and tested < set(noises):
            return f"results under {', '.join(noise for noise in noises if noise not in tested)} noise are missing"
    return ""


def _doubts(claim: Claim, rows: pd.DataFrame, lacking: Sequence[str]) -> str:
    """Why the size of an effect cannot be judged, in words; nothing if it can."""
    if lacking:
        return f"without {', '.join(lacking)} noise"
    if rows.dataset.iloc[0] not in claim.about:
        return f"the paper claims it of {', '.join(DATASETS[name] for name in claim.about)}"
    if not rows.official.all():
        return "these are not the official images"
    if not rows.full_scale.all():
        return f"it takes width {SIZE_WIDTH} and {SIZE_EPOCHS} epochs"
    if rows.measure.str.endswith(KEPT).any():
        return "the paper's is the largest memory allocated on a GPU"
    return "it takes more than one seed" if _may_turn(rows).any() else ""


def _may_turn(rows: pd.DataFrame) -> np.ndarray:
    """Which effects more seeds may turn round, or longer training may.

    Those of two networks, by what they learned; and of one seed what has no interval, as if it were exact.
    """
    two_networks = np.array([len(networks_of(name)) > 1 for name in rows.name], dtype=bool)
    compared, one_seed = two_networks & rows.quantity.isin(LEARNED), rows.n_seeds == 1
    bare = rows.low.isna() & ~rows.quantity.isin(COSTS)
    return (compared & ~rows.full_scale.astype(bool)) | (one_seed & (compared | bare))


def _select(which: Which, effects: pd.DataFrame, expected: set[str], anywhere: bool = False) -> pd.DataFrame:
    """The effects that are meant, and the preset makes; `name` as they are written in config/claims.yaml.

    With `anywhere`, also those where the subject is no better than what it has to be better than.
    """
    written = zip(effects.quantity, effects.subject, effects.over, strict=True)
    effects = effects.assign(
        name=[f"{quantity} of {one}" + (f" over {two}" if two else "") for quantity, one, two in written]
    )
    chosen = effects.name.isin(set(which.effects) & expected)
    for column, values in {"condition": which.condition, "level": which.level}.items():
        if "any" not in values:
            chosen &= effects[column].isin(values)
    if which.without:
        left_out = [effects[column].isin(values) for column, values in which.without.items()]
        chosen &= ~np.logical_and.reduce(left_out)
    if which.where_better_than is not None and not anywhere:
        at = ["subject", "condition", "level"]
        better = effects[
            (effects.quantity == "accuracy") & (effects.over == which.where_better_than) & (effects.low > 0)
        ]
        chosen &= pd.MultiIndex.from_frame(effects[at]).isin(pd.MultiIndex.from_frame(better[at]))
    return effects[chosen]


def _outcome(test: Test, rows: pd.DataFrame, lacking: Sequence[str] = ()) -> Outcome:
    """What came of a test. While noises are lacking, a bound over all of them is not broken: those might keep it."""
    if rows.empty:
        return Outcome(False, False, False, f"{test.what}: nowhere")
    if test.bound is None and (rows := rows[rows.paper.notna()]).empty:
        return Outcome(False, False, False, f"{test.what}: the paper prints no number")
    ends = np.array([rows.low.fillna(rows.estimate), rows.estimate, rows.high.fillna(rows.estimate)], dtype=float)
    ends = _sizes(*ends) if test.pool == "size" else ends
    ends = ends.mean(axis=1, keepdims=True) if test.pool else ends
    if test.bound is None:
        kept, bound = _near_paper(test, ends[1], rows.paper.to_numpy(float))
        broken = ~kept
    else:
        kept, broken, bound = _within_bound(test, *ends)
    may_turn = _may_turn(rows).to_numpy()
    may_turn = np.array([may_turn.any()]) if test.pool else may_turn
    found = _in_words(kept, broken & ~may_turn, broken & may_turn, *ends)
    tolerated = round(1 - test.share, 9)
    surely, here = (bool(which.mean() > tolerated) for which in (broken & ~may_turn, broken))
    may_be_kept = bool(lacking) and (test.pool is not None or test.share < 1)
    words = f"{test.what} ({bound}): {found}"
    return Outcome(bool(kept.mean() >= test.share), surely and not may_be_kept, here and not may_be_kept, words)


def _within_bound(
    test: Test, low: np.ndarray, estimate: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray, str]:
    """Which effects keep a bound, and which surely break it; the bound in words."""
    name, value = test.bound
    fails = value if test.fails is None else test.fails
    upper = name in ("below", "at_most")
    end = estimate if not test.sure else high if upper else low
    return COMPARE[name](end, value), low > fails if upper else high < fails, f"{name.replace('_', ' ')} {value:g}"


def _near_paper(test: Test, estimate: np.ndarray, paper: np.ndarray) -> tuple[np.ndarray, str]:
    """Which effects are as near the paper's numbers as a test wants, but for rounding; those numbers in words."""
    if test.near_paper is not None:
        kept = np.round(np.abs(estimate - paper), 9) <= test.near_paper
    else:
        kept = np.round(estimate - test.share_of_paper * paper, 9) >= 0
    return kept, "paper: " + ", ".join(f"{value:.3g}" for value in paper)


def _in_words(
    kept: np.ndarray, broken: np.ndarray, seen: np.ndarray, low: np.ndarray, estimate: np.ndarray, high: np.ndarray
) -> str:
    """How many effects keep a bound; `broken`: surely do not; `seen`: do not here, but may at full scale."""
    if len(kept) == 1:
        found = "yes" if kept[0] else "no" if broken[0] else "not here" if seen[0] else "uncertain"
        found += f", {number(estimate[0], low[0], high[0])}"
    else:
        found = f"{kept.sum()} of {len(kept)}" + (f", surely not {broken.sum()}" if broken.any() else "")
        found += f", not here {seen.sum()}" if seen.any() else ""
        found += f", {np.nanmin(estimate):.3g} to {np.nanmax(estimate):.3g}" if not np.isnan(estimate).all() else ""
    if seen.any():
        found += f" (it takes width {SIZE_WIDTH}, {SIZE_EPOCHS} epochs and several seeds to contradict)"
    return found


def _sizes(low: np.ndarray, estimate: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Ends and estimates of the size of each effect, whatever its sign, (3, n)."""
    ends = np.abs([low, high])
    return np.array([np.where((low < 0) & (high > 0), 0, ends.min(axis=0)), np.abs(estimate), ends.max(axis=0)])


def _summary(rows: pd.DataFrame, sizes: bool, printed: str) -> dict:
    """The mean effect, or its size, with the mean of the intervals: effects share images, so that none is narrower."""
    rows = rows[rows.estimate.notna()]
    if rows.empty:
        return {"paper": printed}
    ends, paper = rows[["low", "estimate", "high"]].to_numpy(float).T, rows.paper.to_numpy(float)
    if sizes:
        ends, paper = _sizes(*ends), np.abs(paper)
    low, effect, high = ends.mean(axis=1)
    return {
        "effect": effect,
        "low": low,
        "high": high,
        "paper": printed or ("" if np.isnan(paper).any() else f"{paper.mean():.3g}"),
    }
