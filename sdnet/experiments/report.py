"""The parts of the report, from the files of a results folder: the verdict, what stands behind it, and what it cost."""

import json
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path

import pandas as pd

from sdnet.experiments import catalogue, plan, results
from sdnet.experiments.claims.claim import SIZE_EPOCHS, SIZE_WIDTH
from sdnet.experiments.claims.words import effect_in_words, tally
from sdnet.experiments.environment import read_environment
from sdnet.experiments.labels import DATASETS, TITLES, VERDICTS, dataset_label, radius_label, system_label
from sdnet.experiments.project import named_preset, preset_of, project_folder
from sdnet.experiments.settings.datasets import NUMBER_OF_IMAGES
from sdnet.experiments.settings.files import PRESETS
from sdnet.experiments.settings.loading import load_preset
from sdnet.experiments.settings.preset import Preset
from sdnet.experiments.shown import has_runs

READINGS = {"text": "the layer as in the paper's text", "released": "the layer as in the authors' code"}


def opening(folder: Path) -> str:
    """What these results are of, and how far below the paper's scale, in Markdown."""
    name, preset = named_preset(folder)
    lines = [f"**{_sentence(preset.description)}** (preset `{name}`)."]
    full = preset.width >= SIZE_WIDTH and (preset.imported or _usual_epochs(preset) >= SIZE_EPOCHS)
    which = "claims of cost alone" if preset.width >= SIZE_WIDTH else "no claim"
    so = "" if full else f", so that {which} can count as replicated in full"
    reduced = _reduced(preset, load_preset("paper", project_folder() / PRESETS))
    lines += [f"**Less than in the paper{so}:**", "\n".join(f"* {item}" for item in [*reduced, *_substitutes(folder)])]
    if "digits" in preset.datasets:
        lines += [
            "**Handwritten digits of 8 by 8 pixels stand in for photographs.** They show that everything runs, and say "
            "nothing about the paper."
        ]
    return "\n\n".join(lines)


def _usual_epochs(preset: Preset) -> int:
    """The epochs of networks without a recipe of their own; of several data sets the most."""
    return max(preset.recipes[images.recipe].epochs for images in preset.datasets.values())


def _reduced(preset: Preset, paper: Preset) -> list[str]:
    """What is less than in the paper, or not the same, in words."""
    found = []
    if preset.width < paper.width:
        found.append(f"networks of width {preset.width}, not {paper.width}")
    full = _usual_epochs(paper)
    if not preset.imported and _usual_epochs(preset) < full:
        epochs = {preset.recipe_of(system, dataset).epochs for dataset, system in plan.networks(preset)}
        given = f"{min(epochs)} to {max(epochs)}" if len(epochs) > 1 else f"{max(epochs)}"
        found.append(f"{given} epochs of training, not {full} as for CIFAR-10")
    if len(preset.seeds) < len(paper.seeds):
        more = [f"{system_label(name)} {len(preset.seeds_of(name))}" for name in preset.more_seeds]
        found.append(f"{len(preset.seeds)} of {len(paper.seeds)} seeds" + (f" ({', '.join(more)})" if more else ""))
    for name, images in preset.datasets.items():
        parts = {"training": images.train_images, "test": images.test_images}
        found += [f"{size:,} {kind} images of {DATASETS[name]}, not all" for kind, size in parts.items() if size]
    if preset.robustness.test_images:
        found.append(f"{preset.robustness.test_images:,} test images under noise, not all")
    for name, images in preset.datasets.items():
        fitted, known = preset.robustness.calibration_images, NUMBER_OF_IMAGES.get(name, {}).get("train_images", 0)
        if fitted < (images.train_images or known):
            found.append(f"Algorithm 1 fitted on {fitted:,} training images of {DATASETS[name]}, not all")
    fewer = len(paper.robustness.lambdas) - len(preset.robustness.lambdas)
    if fewer > 0:
        found.append(f"{len(preset.robustness.lambdas)} values of λ, not {len(paper.robustness.lambdas)}")
    if set(preset.adversarial.datasets) & set(preset.datasets):
        if preset.adversarial.paper_images:
            found.append(f"{preset.adversarial.paper_images:,} test images under the paper's attack, not all")
        ours, theirs = (
            " and ".join(radius_label(*radius) for radius in one.adversarial.radii.items()) for one in (preset, paper)
        )
        if ours != theirs:
            found.append(f"attacks within {ours}, not {theirs}")
    missing = [DATASETS[name] for name in paper.datasets if name not in preset.datasets]
    if missing:
        found.append(f"no {', no '.join(missing)}")
    return found


def _substitutes(folder: Path) -> list[str]:
    """What is not there, or not what the paper has, in words."""
    used = {(spec["dataset"]["name"], about.get("data_source", "official")) for _, spec, about in _runs(folder)}
    others = sorted(dataset_label(*one) for one in used if one[1] != "official" and one[0] != "digits")
    effects = results.read(folder / "effects.csv", "effects")
    noise = sorted({measure for measure in effects.measure if measure.startswith(("generated", "local CIFAR"))})
    absent = [DATASETS[name] for name in preset_of(folder).datasets if not has_runs(folder, name)]
    return [
        *(f"images that are not the official ones: {label}" for label in others),
        *(f"noise that is not the official one: {how}" for how in noise),
        *(f"nothing yet on {name}" for name in absent),
    ]


def counts(folder: Path) -> str:
    """How many claims came out how, by reading of the layer, in Markdown."""
    judged = results.read(folder / "claims.csv", "claims")
    text = judged[judged.reading != "released"]
    images = " and ".join(judged["data"][judged.verdict != "not run"].unique())
    lines = [f"{f'On {images}, the' if images else 'The'} CSC layer as the paper's text has it: {tally(text)}."]
    if (released := judged[judged.reading == "released"]).size:
        lines.append(f"The CSC layer as the authors' released code has it: {tally(released)}.")
    if judged[judged.verdict != "not run"].stand_in.any():
        lines.append("**Outlined: judged on images that the paper does not claim it of.**")
    return "\n\n".join(lines)


def verdicts(folder: Path) -> str:
    """The table of the claims with their outcome, as HTML: a column for each reading of the layer."""
    judged = results.read(folder / "claims.csv", "claims")
    rows = []
    for topic, of_topic in judged.groupby("topic", sort=False):
        rows.append(f'<tr class="topic"><th colspan="4">{escape(topic)}</th></tr>')
        for claim, found in of_topic.groupby("claim", sort=False):
            first = found.iloc[0]
            # What has no reading, since the preset lacks its networks, stands with the text's.
            of_reading = found.assign(reading=found.reading.replace("", "text"))
            cells = "".join(_cell(of_reading[of_reading.reading == reading], reading) for reading in READINGS)
            rows.append(
                f'<tr id="{claim}"><td>{claim}</td><td>{escape(first.statement)}'
                f"<small>{escape(first.place)}. Measured by: {escape(first.quantity)}</small></td>"
                + (cells if (found.reading != "").any() else _cell(found, ""))
                + "</tr>"
            )
    titles = "".join(f"<th>{title}</th>" for title in ("", "The paper claims", *map(_sentence, READINGS.values())))
    return f'<table class="claims"><thead><tr>{titles}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _sentence(words: str) -> str:
    return words[0].upper() + words[1:]


def _cell(found: pd.DataFrame, reading: str) -> str:
    """What came of a claim in one reading of the layer; of a network without such a layer, across both columns."""
    title = f"<em>{READINGS[reading]}</em>" if reading else ""
    outcomes = "".join(_outcome(row, title) for row in found.itertuples())
    return f"<td{'' if reading else ' colspan=2'}>{outcomes}</td>"


def _outcome(row, title: str) -> str:
    stand_in = row.stand_in and row.verdict != "not run"
    badge = row.verdict.replace(" ", "-") + (" stand-in" if stand_in else "")
    data = row.data + (", as a stand-in" if stand_in else "")
    paper = f"<small>paper: {escape(str(row.paper))}</small>" if row.paper else ""
    effect = f"<p>{escape(effect_in_words(row))} {paper}</p>" if row.verdict != "not run" else ""
    why = f"<p>{escape(_sentence(row.reason))}.</p><p>{escape(row.scale)}</p>"
    return (
        f'<div class="outcome">{title}<b class="{badge}">{row.verdict}</b>{effect}'
        f"<details><summary>{escape(data)}</summary>{why}</details></div>"
    )


def tables_and_figures(folder: Path) -> Iterator[tuple[str, str, Path | None]]:
    """Each one that the preset has: its title, a text in Markdown, and its picture if it is a figure that is there."""
    preset = preset_of(folder)
    for name in catalogue.SYSTEMS_OF:
        if catalogue.nothing_to_show(name, plan.networks(preset), preset):
            continue
        table = name in catalogue.TABLES
        path = folder / f"{name}{'.md' if table else '.png'}"
        if not path.exists():
            wanted = folder.relative_to(project_folder()) / catalogue.file_of(name)
            yield TITLES[name], f"Not there yet; make it with: `snakemake --cores all {wanted}`", None
            continue
        caption = (project_folder() / "workflow" / "report" / f"{name}.rst").read_text(encoding="utf-8")
        if table:
            caption += "\n" + path.read_text(encoding="utf-8")
        yield TITLES[name], caption, None if table else path


def _runs(folder: Path) -> Iterator[tuple[Path, dict, dict]]:
    """Each trained run of the preset: its folder, spec.json and environment.json."""
    preset = preset_of(folder)
    for path in sorted(folder.glob("runs/*/*/seed*/environment.json")):
        if plan.has_run(preset, path.parent):
            spec = json.loads((path.parent / "spec.json").read_text())
            yield path.parent, spec, read_environment(path)


def cost(folder: Path) -> pd.DataFrame:
    """Device hours of training, by network and device; a run that went on elsewhere counts at each of its devices."""
    runs = []
    for run, spec, about in _runs(folder):
        if spec["training"]["epochs"] == 0:  # imported weights
            continue
        epochs = results.read(run / "history.csv", "history").assign(Device=about["device"])
        for earlier in about.get("earlier", []):
            epochs.loc[epochs.epoch.between(*earlier["epochs"]), "Device"] = earlier["device"]
        devices = epochs.Device.str.extract(r"^(\d+) x ", expand=False).astype(float).fillna(1)
        columns = {
            "Data set": dataset_label(spec["dataset"]["name"]),
            "Network": system_label(spec["system"]),
            "Device": epochs.Device,
            "Runs": str(run),
            "Device hours": epochs.train_seconds * devices / 3600,
        }
        runs.append(pd.DataFrame(columns))
    if not runs:
        return pd.DataFrame()
    keys, totals = ["Data set", "Network", "Device"], {"Runs": "nunique", "Device hours": "sum"}
    found = pd.concat(runs)
    by_network = found.groupby(keys, sort=False).agg(totals).reset_index()
    total = {"Data set": "all", "Network": "", "Device": "", **found.agg(totals)}
    return pd.concat([by_network, pd.DataFrame([total])], ignore_index=True).astype({"Runs": int}).round(3)


def provenance(folder: Path) -> pd.DataFrame:
    """With what the runs were made, each value with the number of runs that had it, be it for some epochs."""
    rows = []
    for run, spec, about in _runs(folder):
        dataset = DATASETS[spec["dataset"]["name"]]
        for environment in (about, *about.get("earlier", [])):
            of_run = [
                ("commit", environment["commit"] or "unknown"),
                ("device", environment["device"]),
                ("precision", environment.get("precision", "not recorded")),
                ("platform", environment["platform"]),
                ("Python", environment["python"]),
                *environment["packages"].items(),
                ("trained", environment["time"][:10]),
                (f"images of {dataset}", environment.get("data_source", "none: imported")),
                (f"archive of {dataset}", spec["dataset"]["checksum"] or "none: not downloaded"),
            ]
            rows += [(run, *row) for row in of_run]
    found = pd.DataFrame(rows, columns=["Run", "What", "Value"]).drop_duplicates()
    found["What"] = pd.Categorical(found.What, found.What.unique())  # each thing's values together
    return found.groupby(["What", "Value"], observed=True).size().rename("Runs").reset_index()


def differences() -> str:
    """Where the paper's text and its authors' code differ, in Markdown; what it links to is named instead."""
    text = (project_folder() / "docs" / "differences.md").read_text(encoding="utf-8").partition("\n")[2]
    within = re.sub(r"\[([^]]+)\]\(#[^)]+\)", r"\1", text)
    return re.sub(r"\[([^]]+)\]\(([^)#]+)[^)]*\)", r"\1 (`docs/\2`)", within)


def legend() -> str:
    """What the verdicts mean, as HTML."""
    words = "".join(
        f'<li><b class="{name.replace(" ", "-")}">{name}</b> {meaning}</li>' for name, meaning in VERDICTS.items()
    )
    counts = (
        "<i>3 of 4, surely not 1, 1.1 to 24.9</i>: the whole 95% intervals of three effects keep the bound, that of "
        "one breaks it. Last stand the smallest and the largest effect."
    )
    return f'<ul class="legend">{words}<li>{counts}</li></ul>'
