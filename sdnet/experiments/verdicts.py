"""The verdict on each of the paper's claims, by the effects of a results folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import pandas as pd

from sdnet.experiments import plan, results
from sdnet.experiments.claims import (
    COMPARE,
    RELEASED,
    SIZE_EPOCHS,
    SIZE_WIDTH,
    TEXT,
    Claim,
    Test,
    Which,
    as_released,
    as_text,
)
from sdnet.experiments.labels import DATASETS, KEPT, SYSTEMS
from sdnet.experiments.settings import Noise, Preset, has_lambda
from sdnet.experiments.tables import paper_values

VERDICTS = ("replicated", "direction", "contradicted", "undecided", "not run")
MEASURED_ONCE = ("speed of ", "memory of ")  # once for each network, not for each seed
LEARNED = ("accuracy", "robust", "noise_to_signal")  # what hangs on the seed, and on how long one trains


@dataclass(frozen=True)
class Outcome:
    """What came of a test: kept, surely broken, or neither; in words, too."""

    kept: bool
    broken: bool
    words: str


def judge_all(claims: list[Claim], effects: pd.DataFrame, preset: Preset, root: str) -> pd.DataFrame:
    """A verdict for each claim, data set that it can be judged on, and reading of the layer; see `results.COLUMNS`.

    Args:
        claims: from `load_claims`.
        effects: of a results folder, from `evidence.effects`.
        preset: the folder's.
        root: the folder, as it is typed.
    """
    rows = []
    for claim in claims:
        for dataset in _judged_on(claim, effects, preset):
            here = effects[effects.dataset == dataset]
            seen = {
                "text": (here, _expected(claim, preset, dataset)),
                "released": (_of_released(here), _expected(claim, preset, dataset, released=True)),
            }
            judged = [_row(claim, *one, dataset, reading, preset, root) for reading, one in seen.items() if one[1]]
            rows += judged or [_absent(claim, dataset, preset)]
    return pd.DataFrame(rows, columns=list(results.COLUMNS["claims"]))


def _judged_on(claim: Claim, effects: pd.DataFrame, preset: Preset) -> list[str]:
    """The claim's data sets that the preset has; if none of them has results, a stand-in comes first."""
    attacked = set(claim.needs) & set(plan.ATTACKED)
    usable = [name for name in preset.datasets if not attacked or name in preset.adversarial.datasets]
    present = [name for name in usable if name in set(effects.dataset)]
    meant = [name for name in claim.about if name in usable]
    if claim.stand_in and not set(meant) & set(present) and (present or not meant):
        meant = (present or usable)[:1] + meant
    return meant or claim.about[:1]


def _expected(claim: Claim, preset: Preset, dataset: str, released: bool = False) -> set[str]:
    """The effects of a claim that the preset makes on a data set; nothing if those that the claim is about are not.

    In the released reading, effects of SDNet-18 alone: of the other networks the preset has the paper's reading.
    """
    if _not_tested(claim, dataset, preset):
        return set()
    has = {name for name, system in preset.systems.items() if system.trains_on(dataset)}
    if released:
        has = {name for name in has if not has_lambda(name)} | ({TEXT} if RELEASED in has else set())
    wanted = {name for test in (*claim.direction, *claim.size) for name in claim.which(test).effects}
    expected = {name for name in wanted if _networks(name) <= has and (not released or TEXT in _networks(name))}
    if released and not plan.has_speed(RELEASED):  # it costs what the text's reading does, and is not measured
        expected = {name for name in expected if not name.startswith(MEASURED_ONCE)}
    return expected if expected & set(claim.effects) else set()


def _planned_seeds(expected: set[str], reading: str, preset: Preset) -> int:
    """How many seeds all networks that some effects are of have in the preset; 1 for what is benchmarked."""
    networks = {name for effect in expected for name in _networks(effect) if not effect.startswith(MEASURED_ONCE)}
    if reading == "released":
        networks = set(map(as_released, networks))
    return len(set.intersection(*(set(preset.seeds_of(name)) for name in networks))) if networks else 1


def _networks(name: str) -> set[str]:
    """The networks that an effect is of."""
    return set(name.split()) & set(SYSTEMS)


def _of_released(effects: pd.DataFrame) -> pd.DataFrame:
    """The effects of SDNet-18 in the released reading, under the paper's name."""
    mine = effects[effects.subject.str.split().map(lambda words: RELEASED in words).astype(bool)]
    return mine.assign(subject=mine.subject.map(as_text), over=mine.over.map(as_text))


def _row(
    claim: Claim, effects: pd.DataFrame, expected: set[str], dataset: str, reading: str, preset: Preset, root: str
) -> dict:
    row = _about(claim, dataset) | {"reading": _reading(expected, reading, preset)}
    wanted = _noises(claim, dataset)
    noises = [noise for noise in wanted if noise in plan.noises_on(dataset, preset)]
    judged = judge(claim, effects, expected, noises, [noise for noise in wanted if noise not in noises])
    if judged["verdict"] == "not run":
        judged["reason"] += f"; {_remedy(claim, dataset, effects.empty, preset, root)}"
    elif judged["n_seeds"] < (planned := _planned_seeds(expected, reading, preset)):
        judged["reason"] += f". Not all seeds yet: {judged['n_seeds']} of {planned}"
    if lacking := _networks(" ".join(claim.effects)) - _networks(" ".join(expected)):
        judged["reason"] += f". Without {', '.join(SYSTEMS[name] for name in SYSTEMS if name in lacking)}"
    return row | judged


def _remedy(claim: Claim, dataset: str, nothing: bool, preset: Preset, root: str) -> str:
    """How what a claim takes is made, in words; `nothing`: there is nothing yet on its data set."""
    why = {name: plan.nothing_to_show(name, plan.networks(preset), preset) for name in claim.needs}
    targets = [f"{root}/{name}{'.csv' if name in plan.TABLES else '.pdf'}" for name in why if not why[name]]
    if not targets:
        return "; ".join(f"this preset makes no {name}: {reason}" for name, reason in why.items())
    first = "set imagenet_root in config/config.yaml, then " if dataset == "imagenet" and nothing else ""
    return f"{first}make them with: snakemake --cores all {' '.join(targets)}"


def _absent(claim: Claim, dataset: str, preset: Preset) -> dict:
    """The row of a claim that the preset can never make results for."""
    networks = {name for effect in claim.effects for name in _networks(effect)}
    has = {name for name, system in preset.systems.items() if system.trains_on(dataset)}
    lacking = ", ".join(SYSTEMS[name] for name in SYSTEMS if name in networks - has)
    what = _not_tested(claim, dataset, preset) or f"{lacking} on {DATASETS[dataset]}"
    return _about(claim, dataset) | {"reading": "", "verdict": "not run", "reason": f"this preset has no {what}"}


def _not_tested(claim: Claim, dataset: str, preset: Preset) -> str:
    """The images, attacks or noise that a claim takes and the preset does not have, in words; nothing if it has all."""
    if dataset not in preset.datasets:
        return DATASETS[dataset]
    if set(claim.needs) & set(plan.ATTACKED) and dataset not in preset.adversarial.datasets:
        return f"attacks on {DATASETS[dataset]}"
    asked = _noises(claim, dataset)
    if asked and set(asked).isdisjoint(plan.noises_on(dataset, preset)):
        return f"{', '.join(asked)} noise on {DATASETS[dataset]}"
    return ""


def _noises(claim: Claim, dataset: str) -> list[str]:
    """The noises that a claim is of; none of most claims. Where it names none, and is about noise, those of Table 3.

    On images that the paper has no noise on, those of the images that they stand in for.
    """
    conditions = [claim.which(test).condition for test in claim.direction]
    named = [text for condition in conditions for text in _texts(condition) if text in get_args(Noise)]
    if named or not set(claim.needs) & {*plan.SWEPT, *plan.CALIBRATED}:
        return list(dict.fromkeys(named))
    tested = paper_values("table3").groupby("dataset", sort=False).condition.unique()
    return list(tested[dataset if dataset in tested else claim.about[0]])


def _about(claim: Claim, dataset: str) -> dict:
    return {
        "claim": claim.id,
        "topic": claim.topic,
        "statement": claim.statement,
        "place": claim.place,
        "quantity": claim.quantity,
        "implied": claim.implied,
        "stand_in": dataset not in claim.about,
        "data": DATASETS[dataset],
    }


def _reading(expected: set[str], given: str, preset: Preset) -> str:
    """Which reading of the CSC layer these effects are of; empty if no network among them has one."""
    networks = [name for effect in expected for name in _networks(effect) if has_lambda(name)]
    if given == "released" or not networks:
        return given if networks else ""
    return "released" if all(preset.systems[name].options.nonnegative for name in networks) else given


def judge(
    claim: Claim, effects: pd.DataFrame, expected: set[str], noises: Sequence[str] = (), lacking: Sequence[str] = ()
) -> dict:
    """The verdict on a claim by the effects on one data set, in one reading of the layer, and what goes with it.

    Args:
        claim: the claim.
        effects: rows of effects.csv.
        expected: which of the claim's effects there must be; no others are looked at.
        noises: those that the claim is about and the preset has: there must be results under each, and no others are
            looked at. None of claims that are about no noise.
        lacking: further ones, which the paper has and the preset does not.
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
    elif not all(one.kept for one in outcomes):
        verdict = "undecided"
    elif doubts:
        verdict = "direction"
        words.append(f"how much is not judged: {doubts}")
    else:
        sizes = [_outcome(test.model_copy(update={"sure": False}), rows) for test, rows in size]
        verdict = "replicated" if all(one.kept for one in sizes) else "direction"
        words += [f"how much: {one.words}" for one in sizes]
    ways = "; ".join(way for way in used.measure.unique() if way)
    trained = used[~used.name.str.startswith(MEASURED_ONCE)]
    if trained.n_seeds.min() == 1 and trained.low.notna().any():
        words.append("of one seed, so that intervals do not cover the variance of training")
    first, rows = direction[0]
    return _summary(rows, first.pool == "size", claim.paper) | {
        "verdict": verdict,
        "n_seeds": used.n_seeds.min(),
        "data": used["data"].iloc[0],
        "scale": used.scale.iloc[0],
        "reason": "; ".join(words) + (f". Measured: {ways}" if ways else ""),
    }


def _missing(claim: Claim, effects: pd.DataFrame, expected: set[str], noises: list[str]) -> str:
    """What a claim's direction is judged by and is not there, in words."""
    for test in claim.direction:
        found = _select(claim.which(test), effects, expected, anywhere=True)
        if absent := sorted(set(claim.which(test).effects) & expected - set(found.name)):
            return f"results are missing: {', '.join(absent)}"
        if found.empty:
            return "results are missing"
        tested = set(found.condition) & set(noises)
        if tested and claim.which(test).condition == "any" and tested < set(noises):
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
    return "it takes more than one seed of two networks" if _may_turn(rows).any() else ""


def _may_turn(rows: pd.DataFrame) -> np.ndarray:
    """Which effects compare what two networks learned, and more seeds or longer training may order otherwise."""
    two_networks = np.array([len(_networks(name)) > 1 for name in rows.name], dtype=bool)
    return two_networks & rows.quantity.isin(LEARNED) & ((rows.n_seeds == 1) | ~rows.full_scale.astype(bool))


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
        if values != "any":
            chosen &= effects[column].isin(_texts(values))
    if which.without:
        left_out = [effects[column].isin(_texts(values)) for column, values in which.without.items()]
        chosen &= ~np.logical_and.reduce(left_out)
    if which.where_better_than is not None and not anywhere:
        at = ["subject", "condition", "level"]
        better = effects[
            (effects.quantity == "accuracy") & (effects.over == which.where_better_than) & (effects.low > 0)
        ]
        chosen &= pd.MultiIndex.from_frame(effects[at]).isin(pd.MultiIndex.from_frame(better[at]))
    return effects[chosen]


def _texts(values: int | str | list) -> list[str]:
    return [str(value) for value in (values if isinstance(values, list) else [values])]


def _outcome(test: Test, rows: pd.DataFrame, lacking: Sequence[str] = ()) -> Outcome:
    """What came of a test; while noises are lacking, what is bounded over all of them is not surely broken."""
    if rows.empty:
        return Outcome(False, False, f"{test.what}: nowhere")
    if test.bound is None and (rows := rows[rows.paper.notna()]).empty:
        return Outcome(False, False, f"{test.what}: the paper prints no number")
    ends = np.array([rows.low.fillna(rows.estimate), rows.estimate, rows.high.fillna(rows.estimate)], dtype=float)
    ends = _sizes(*ends) if test.pool == "size" else ends
    low, estimate, high = ends.mean(axis=1, keepdims=True) if test.pool else ends
    if test.bound is None:
        kept = _near_paper(test, estimate, rows.paper.to_numpy(float))
        broken, bound = ~kept, "paper: " + ", ".join(f"{value:.3g}" for value in rows.paper)
    else:
        name, value = test.bound
        fails = value if test.fails is None else test.fails
        upper = name in ("below", "at_most")
        end = estimate if not test.sure else high if upper else low
        kept, broken = COMPARE[name](end, value), low > fails if upper else high < fails
        bound = f"{name.replace('_', ' ')} {value:g}"
    may_turn = _may_turn(rows).to_numpy()
    may_turn = np.array([may_turn.any()]) if test.pool else may_turn
    seen, broken = broken & may_turn, broken & ~may_turn
    if len(kept) == 1:
        found = "yes" if kept[0] else "no" if broken[0] else "not here" if seen[0] else "uncertain"
        found += f", {_number(estimate[0], low[0], high[0])}"
    else:
        found = f"{kept.sum()} of {len(kept)}" + (f", surely not {broken.sum()}" if broken.any() else "")
        found += f", not here {seen.sum()}" if seen.any() else ""
        found += f", {np.nanmin(estimate):.3g} to {np.nanmax(estimate):.3g}" if not np.isnan(estimate).all() else ""
    if seen.any():
        found += f" (it takes width {SIZE_WIDTH}, {SIZE_EPOCHS} epochs and several seeds to contradict)"
    enough, too_many = kept.mean() >= test.share, broken.mean() > round(1 - test.share, 9)
    over_all = test.pool is not None or test.share < 1
    return Outcome(bool(enough), bool(too_many) and not (lacking and over_all), f"{test.what} ({bound}): {found}")


def _near_paper(test: Test, estimate: np.ndarray, paper: np.ndarray) -> np.ndarray:
    """Which estimates are as near the paper's numbers as a test wants; differences of its numbers are rounded ones."""
    if test.near_paper is not None:
        return np.round(np.abs(estimate - paper), 9) <= test.near_paper
    return np.round(estimate - test.share_of_paper * paper, 9) >= 0


def _sizes(low: np.ndarray, estimate: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Ends and estimates of the size of each effect, whatever its sign, (3, n)."""
    ends = np.abs([low, high])
    return np.array([np.where((low < 0) & (high > 0), 0, ends.min(axis=0)), np.abs(estimate), ends.max(axis=0)])


def _summary(rows: pd.DataFrame, sizes: bool, printed: str) -> dict:
    """The mean effect, or its size. Effects share their images, so that the interval of the mean is the mean one."""
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


def _number(estimate: float, low: float, high: float) -> str:
    if np.isnan(estimate):
        return "no number"  # as R² of points that all have the same λ
    estimate, low, high = (round(value, 9) + 0.0 for value in (estimate, low, high))  # 0, where rounding left 1e-17
    return f"{estimate:.3g}" + ("" if low == high else f" ({low:.3g} to {high:.3g})")


def tally(judged: pd.DataFrame) -> str:
    """How many claims came out how, in a sentence; apart, what the paper does not say itself."""
    implied = judged.implied.astype(bool)
    parts = [
        ", ".join(f"{count} {verdict}" for verdict in VERDICTS if (count := (part.verdict == verdict).sum()))
        for part in (judged[~implied], judged[implied])
    ]
    return "; of what it does not say but implies: ".join(filter(None, parts))


def in_markdown(judged: pd.DataFrame) -> str:
    """The verdicts as a table for each topic."""
    parts = [f"The paper's claims, judged: {tally(judged)}."]
    for topic, rows in judged.groupby("topic", sort=False):
        table = pd.DataFrame(
            {
                "": rows.claim,
                "The paper's claim": rows.statement + " (" + rows.place + ")",
                "Layer": rows.reading,
                "Images": rows["data"] + np.where(rows.stand_in & (rows.verdict != "not run"), ", as a stand-in", ""),
                "Verdict": rows.verdict,
                "Ours": [effect_in_words(row) for row in rows.itertuples()],
                "Paper": rows.paper.astype(object).fillna(""),
                "Why": rows.reason,
            }
        )
        parts += [f"## {topic}", table.to_markdown(index=False, disable_numparse=True)]
    return "\n\n".join(parts) + "\n"


def effect_in_words(row) -> str:
    """The effect of a row of claims.csv, with its interval."""
    if pd.isna(row.effect):
        return ""
    return _number(row.effect, *((row.effect, row.effect) if pd.isna(row.low) else (row.low, row.high)))
