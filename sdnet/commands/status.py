"""How far the runs are: once, or again and again."""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import click

from sdnet.experiments import places, plan
from sdnet.experiments.settings.files import SettingsError
from sdnet.experiments.settings.loading import load_preset, load_site, preset_files
from sdnet.experiments.settings.site import Site
from sdnet.experiments.status import Status, status, summary, table

NOTHING = "no run has begun; `make quick` starts the smallest preset"


def show(folders: tuple[Path, ...], every: float | None) -> None:
    """Print the state of the runs of some results folders, of those that were asked for.

    On a terminal a repeated table takes the former one's place; elsewhere only lines that changed are printed, with the
    time. Ends by itself once all runs that were asked for are trained.

    Args:
        folders: results folders; none for those of all presets that have begun.
        every: repeat after so many seconds; None for once.
    """
    planned = _planned()
    live, shown = sys.stdout.isatty(), {}
    while True:
        found = {folder: _rows(folder, planned) for folder in folders or _begun(planned)}
        if not found:
            print(NOTHING)
            return
        if every is not None and live:
            click.clear()
        if every is None or live:
            print("\n\n".join(_page(folder, rows, planned) for folder, rows in found.items()))
        else:
            shown = _log(found, shown)
        states = {row.state for rows in found.values() for row in rows}
        if every is None or states == {"trained"}:
            return
        try:
            time.sleep(every)
        except KeyboardInterrupt:
            return


def _planned() -> dict[Path, dict[str, dict]]:
    """The resolved experiment of each run of each preset, by results folder and name."""
    site = load_site()
    return {Path(places.results_of(name)): _specs(name, site) for name in preset_files()}


def _specs(name: str, site: Site) -> dict[str, dict]:
    """Those of a preset's runs; nothing where it cannot be planned: half written, or its folders are site settings."""
    try:
        return {run.name: run.spec for run in plan.runs(name, load_preset(name), site)}
    except SettingsError:
        return {}


def _begun(planned: dict[Path, dict[str, dict]]) -> list[Path]:
    return [folder for folder in planned if (folder / "runs").is_dir()]


def _known(folder: Path, planned: dict[Path, dict[str, dict]]) -> dict[str, dict]:
    return planned.get(Path(os.path.relpath(folder)), {})


def _rows(folder: Path, planned: dict[Path, dict[str, dict]]) -> list[Status]:
    """The runs that were asked for, which have a description: those of the plan in its order, then others."""
    known = _known(folder, planned)
    asked = sorted(str(path.parent.relative_to(folder / "runs")) for path in folder.glob("runs/*/*/*/spec.json"))
    if not known and not asked:
        begun = _begun(planned)
        remedy = f"give a results folder, such as {begun[0]}" if begun else NOTHING
        raise ValueError(f"{folder} holds no runs/<data set>/<network>/seed<k>: {remedy}")
    return [status(folder, run, known.get(run)) for run in dict.fromkeys([*filter(asked.__contains__, known), *asked])]


def _page(folder: Path, rows: list[Status], planned: dict[Path, dict[str, dict]]) -> str:
    unasked = len(_known(folder, planned).keys() - {row.run for row in rows})
    ended = [f"{row.run} failed: {row.reason}" for row in rows if row.reason]
    return "\n".join([f"{folder}: {summary(rows, unasked)}", "", *table(rows), *([""] if ended else []), *ended])


def _log(found: dict[Path, list[Status]], shown: dict[tuple[Path, str], Status]) -> dict[tuple[Path, str], Status]:
    """Print a line for each run that is further than it was `shown`; what is shown now."""
    now = {(folder, row.run): replace(row, seconds_left=None) for folder, rows in found.items() for row in rows}
    for folder, rows in found.items():
        for row, line in zip(rows, table(rows)[1:], strict=True):
            if row.state != "waiting" and now[folder, row.run] != shown.get((folder, row.run)):
                print(time.strftime("%H:%M:%S"), f"{folder}:", line, row.reason, flush=True)
    return now
