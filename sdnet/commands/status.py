"""How far the runs are: once, or again and again."""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import click

from sdnet.experiments import plan
from sdnet.experiments.settings import Preset, SettingsError, Site, load_presets, load_site, read_yaml
from sdnet.experiments.status import Status, status, summary, table


def show(folders: tuple[Path, ...], every: float | None) -> None:
    """Print the state of every run of some results folders.

    On a terminal a repeated table takes the former one's place; elsewhere only lines that changed are printed, with the
    time. Ends by itself once all runs are trained.

    Args:
        folders: results folders; none for those of all presets that have begun.
        every: repeat after so many seconds; None for once.
    """
    planned = _planned()
    live, shown = sys.stdout.isatty(), {}
    while True:
        found = {folder: _rows(folder, planned) for folder in folders or _begun(planned)}
        if not found:
            print("no run has begun; `make quick` starts the smallest preset")
            return
        if every is not None and live:
            click.clear()
        if every is None or live:
            print("\n\n".join(_page(folder, rows) for folder, rows in found.items()))
        else:
            shown = _log(found, shown)
        if every is None or all(row.state == "trained" for rows in found.values() for row in rows):
            return
        try:
            time.sleep(every)
        except KeyboardInterrupt:
            return


def _planned() -> dict[Path, dict[str, int]]:
    """The epochs of each run of each preset, by results folder and name."""
    site = load_site(read_yaml(Path("config/config.yaml")))
    presets = load_presets(Path("config/presets"))
    return {Path(plan.results_folder(name)): _epochs(name, preset, site) for name, preset in presets.items()}


def _epochs(name: str, preset: Preset, site: Site) -> dict[str, int]:
    """Those of a preset's runs; nothing where it cannot be planned, as if its folders are named by `--configfile`."""
    try:
        return {run.name: run.spec["training"]["epochs"] for run in plan.runs(name, preset, site)}
    except SettingsError:
        return {}


def _begun(planned: dict[Path, dict[str, int]]) -> list[Path]:
    return [folder for folder in planned if (folder / "runs").is_dir()]


def _rows(folder: Path, planned: dict[Path, dict[str, int]]) -> list[Status]:
    """The planned runs, in the plan's order, then others that have a description."""
    known = planned.get(Path(os.path.relpath(folder)), {})
    others = sorted(str(path.parent.relative_to(folder / "runs")) for path in folder.glob("runs/*/*/*/spec.json"))
    if not known and not others:
        raise ValueError(f"{folder} holds no runs; give a results folder, such as {next(iter(planned))}")
    return [status(folder, run, known.get(run)) for run in dict.fromkeys([*known, *others])]


def _page(folder: Path, rows: list[Status]) -> str:
    ended = [f"{row.run} failed: {row.reason}" for row in rows if row.reason]
    return "\n".join([f"{folder}: {summary(rows)}", "", *table(rows), *([""] if ended else []), *ended])


def _log(found: dict[Path, list[Status]], shown: dict[tuple[Path, str], Status]) -> dict[tuple[Path, str], Status]:
    """Print a line for each run that is further than it was `shown`; what is shown now."""
    now = {(folder, row.run): replace(row, seconds_left=None) for folder, rows in found.items() for row in rows}
    for folder, rows in found.items():
        for row, line in zip(rows, table(rows)[1:], strict=True):
            if row.state != "waiting" and now[folder, row.run] != shown.get((folder, row.run)):
                print(time.strftime("%H:%M:%S"), f"{folder}:", line, row.reason, flush=True)
    return now
