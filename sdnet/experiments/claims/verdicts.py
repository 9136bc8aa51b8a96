"""The verdicts on the paper's claims in a results folder: what each is judged on, and what is missing."""

from typing import get_args

import pandas as pd

from sdnet.experiments import catalogue, plan
from sdnet.experiments.claims.claim import MEASURED_ONCE, RELEASED, TEXT, Claim, as_released, as_text, networks_of
from sdnet.experiments.claims.judging import judge
from sdnet.experiments.columns import COLUMNS
from sdnet.experiments.labels import DATASETS, SYSTEMS
from sdnet.experiments.settings.names import Noise
from sdnet.experiments.settings.networks import has_lambda
from sdnet.experiments.settings.preset import Preset
from sdnet.experiments.tables.layout import paper_values


def judge_all(claims: list[Claim], effects: pd.DataFrame, preset: Preset, root: str) -> pd.DataFrame:
    """A verdict for each claim, data set that it can be judged on, and reading of the layer; see `columns.COLUMNS`.

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
    return pd.DataFrame(rows, columns=list(COLUMNS["claims"]))


def _judged_on(claim: Claim, effects: pd.DataFrame, preset: Preset) -> list[str]:
    """The claim's data sets that the preset has; if none of them has results, a stand-in comes first."""
    attacked = set(claim.needs) & set(catalogue.ATTACKED)
    usable = [name for name in preset.datasets if not attacked or name in preset.adversarial.datasets]
    present = [name for name in usable if name in set(effects.dataset)]
    meant = [name for name in claim.about if name in usable]
    if claim.stand_in and not set(meant) & set(present) and (present or not meant):
        meant = (present or usable)[:1] + meant
    return meant or claim.about[:1]


def _expected(claim: Claim, preset: Preset, dataset: str, released: bool = False) -> set[str]:
    """Names of a claim's effects that the preset can make on a data set; none without some of its main effects.

    In the released reading, effects of SDNet-18 alone: of the other networks the preset has the paper's reading.
    """
    if _not_tested(claim, dataset, preset):
        return set()
    has = set(preset.systems_on(dataset))
    if released:
        has = {name for name in has if not has_lambda(name)} | ({TEXT} if RELEASED in has else set())
    wanted = {name for test in (*claim.direction, *claim.size) for name in claim.which(test).effects}
    expected = {name for name in wanted if networks_of(name) <= has and (not released or TEXT in networks_of(name))}
    if released and not catalogue.has_speed(RELEASED):  # it costs what the text's reading does, and is not measured
        expected = {name for name in expected if not name.startswith(MEASURED_ONCE)}
    return expected if expected & set(claim.effects) else set()


def _planned_seeds(expected: set[str], reading: str, preset: Preset) -> int:
    """How many seeds all networks behind these effects share in the preset; 1 if each effect is of the benchmark."""
    networks = {name for effect in expected for name in networks_of(effect) if not effect.startswith(MEASURED_ONCE)}
    if reading == "released":
        networks = set(map(as_released, networks))
    return len(set.intersection(*(set(preset.seeds_of(name)) for name in networks))) if networks else 1


def _of_released(effects: pd.DataFrame) -> pd.DataFrame:
    """The effects of SDNet-18 in the released reading, under the paper's name."""
    mine = effects[effects.subject.str.split().map(lambda words: RELEASED in words).astype(bool)]
    return mine.assign(subject=mine.subject.map(as_text), over=mine.over.map(as_text))


def _row(
    claim: Claim, effects: pd.DataFrame, expected: set[str], dataset: str, reading: str, preset: Preset, root: str
) -> dict:
    row = _about(claim, dataset) | {"reading": _reading(expected, reading, preset)}
    wanted = _noises(claim, dataset)
    noises = [noise for noise in wanted if noise in preset.noises_on(dataset)]
    judged = judge(claim, effects, expected, noises, [noise for noise in wanted if noise not in noises])
    if judged["verdict"] == "not run":
        judged["reason"] += f"; {_remedy(claim, dataset, effects.empty, preset, root)}"
    elif judged["n_seeds"] < (planned := _planned_seeds(expected, reading, preset)):
        judged["reason"] += f". Not all seeds yet: {judged['n_seeds']} of {planned}"
    if lacking := networks_of(" ".join(claim.effects)) - networks_of(" ".join(expected)):
        judged["without"] = ", ".join(SYSTEMS[name] for name in SYSTEMS if name in lacking)
        judged["reason"] += f". Without {judged['without']}"
    return row | judged


def _remedy(claim: Claim, dataset: str, nothing: bool, preset: Preset, root: str) -> str:
    """How what a claim takes is made, in words; `nothing`: there is nothing yet on its data set."""
    why = {name: catalogue.nothing_to_show(name, plan.networks(preset), preset) for name in claim.needs}
    targets = [f"{root}/{catalogue.file_of(name)}" for name in why if not why[name]]
    if not targets:
        return "; ".join(f"this preset makes no {name}: {reason}" for name, reason in why.items())
    first = "set imagenet_root in config/config.yaml, then " if dataset == "imagenet" and nothing else ""
    return f"{first}make them with: snakemake --cores all {' '.join(targets)}"


def _absent(claim: Claim, dataset: str, preset: Preset) -> dict:
    """The row of a claim that the preset can never make results for."""
    networks = networks_of(" ".join(claim.effects)) - set(preset.systems_on(dataset))
    lacking = ", ".join(SYSTEMS[name] for name in SYSTEMS if name in networks)
    what = _not_tested(claim, dataset, preset) or f"{lacking} on {DATASETS[dataset]}"
    return _about(claim, dataset) | {"reading": "", "verdict": "not run", "reason": f"this preset has no {what}"}


def _not_tested(claim: Claim, dataset: str, preset: Preset) -> str:
    """The images, attacks or noise that a claim takes and the preset does not have, in words; nothing if it has all."""
    if dataset not in preset.datasets:
        return DATASETS[dataset]
    if set(claim.needs) & set(catalogue.ATTACKED) and dataset not in preset.adversarial.datasets:
        return f"attacks on {DATASETS[dataset]}"
    asked = _noises(claim, dataset)
    if asked and set(asked).isdisjoint(preset.noises_on(dataset)):
        return f"{', '.join(asked)} noise on {DATASETS[dataset]}"
    return ""


def _noises(claim: Claim, dataset: str) -> list[str]:
    """The noises that a claim is about; empty for other claims. If it is about noise and names none, those of Table 3.

    On images that the paper has no noise on, those of the images that they stand in for.
    """
    conditions = [claim.which(test).condition for test in claim.direction]
    named = [text for condition in conditions for text in condition if text in get_args(Noise)]
    if named or not set(claim.needs) & {*catalogue.SWEPT, *catalogue.CALIBRATED}:
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
    networks = [name for name in networks_of(" ".join(expected)) if has_lambda(name)]
    if given == "released" or not networks:
        return given if networks else ""
    return "released" if all(preset.systems[name].options.nonnegative for name in networks) else given
