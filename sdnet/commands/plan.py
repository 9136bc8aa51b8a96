"""What a preset will run: runs, jobs, images, disk and, after a short measurement, hours."""

from collections import defaultdict
from pathlib import Path

from tabulate import tabulate

from sdnet.commands import work
from sdnet.commands.work import KINDS, Job
from sdnet.data.corruptions import check_noise
from sdnet.experiments import catalogue, places, plan
from sdnet.experiments.labels import duration
from sdnet.experiments.plan import Run
from sdnet.experiments.settings.files import SITE_FILE, read_yaml
from sdnet.experiments.settings.loading import load_preset, load_site
from sdnet.experiments.settings.preset import Preset

# The columns of times, and the rules whose jobs are in each.
PARTS = {
    "train": ("train",),
    "noise": ("sweep", "calibrate", "renormalise", "stability"),
    "attacks": ("attack", "attack_adaptive", "diagnose"),
    "other": ("spec", "evaluate", "invert"),
}


def show(name: str, site_file: Path | None, measured: bool, gpus: int) -> None:
    """Print what a preset will run at this site.

    Args:
        name: of the preset.
        site_file: settings that win over those of config/config.yaml, as with `snakemake --configfile`.
        measured: estimate the hours, from a short measurement of each network on this machine.
        gpus: how many work side by side; 0 for the CPU.
    """
    if site_file:
        from snakemake.utils import update_config  # what `snakemake --configfile` does; it takes a second to import

        update_config(values := read_yaml(SITE_FILE), read_yaml(site_file))
        site = load_site(values, f"{SITE_FILE} or {site_file}")
    else:
        site = load_site()
    preset = load_preset(name)
    for noise in preset.robustness.noises:
        check_noise(noise)
    planned = plan.runs(name, preset, site)
    jobs = {run.name: list(work.jobs(run, planned, preset, site)) for run in planned}
    groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in planned:
        groups[run.dataset, run.system].append(run)
    print(_overview(name, preset, planned, jobs), end="\n\n")
    if unshown := sorted({run.system for run in planned} - _shown(planned, preset)):
        print(
            f"snakemake {name} does not train {', '.join(unshown)}, which no table or figure shows: see TABLES and "
            f"FIGURES of sdnet/experiments/catalogue.py, or ask for {places.results_of(name)}/runs/.../accuracy.csv\n"
        )
    if not measured:
        print(_table(groups, jobs), end="\n\n")
        print("Hours depend on the machine: --measure estimates them, in a minute or more.")
        return

    from tqdm import tqdm

    from sdnet.commands.speed import leased_machine

    with leased_machine(gpus) as machine:
        networks = tqdm(groups.items(), "measuring", disable=None, leave=False)
        speeds = {key: machine.speed(runs[0].spec, runs[0].gpus) for key, runs in networks}
    seconds = {
        (run.name, part): sum(
            speeds[run.dataset, run.system].seconds(job, machine.start) for job in jobs[run.name] if job.rule in rules
        )
        for run in planned
        for part, rules in PARTS.items()
    }
    print(_table(groups, jobs, seconds), end="\n\n")
    total = sum(seconds.values()) + len(work.shared_jobs(planned, preset)) * machine.start
    print(
        f"{machine.name}: {duration(total)} of one {machine.unit}; {duration(total / machine.at_once)} with "
        f"{machine.at_once} at once on an otherwise idle machine.\nEach network was measured for a moment; attacks go "
        "on with the images that withstood those before, whose number was guessed."
    )


def _shown(planned: list[Run], preset: Preset) -> set[str]:
    """The networks that the tables and figures of a preset need."""
    targets = catalogue.targets(planned, preset)
    return {run.system for target in targets for run in catalogue.runs_of(target, planned, preset)}


def _overview(name: str, preset: Preset, planned: list[Run], jobs: dict[str, list[Job]]) -> str:
    shared = work.shared_jobs(planned, preset)
    left_out = sorted(set(preset.datasets) - {run.dataset for run in planned})
    disk = sum(work.result_bytes(run, planned, preset) for run in planned) / 1e9
    data = work.data_gigabytes(planned)
    rows = {
        "preset": f"{name}: {preset.description}",
        "results": places.results_of(name),
        "data sets": ", ".join(dict.fromkeys(run.dataset for run in planned))
        + (f" (left out: {', '.join(left_out)}, since config/config.yaml names no folder of it)" if left_out else ""),
        "networks": f"{len({run.system for run in planned})}, of width {preset.width}",
        "runs": f"{len(planned)}, with seeds {_numbers(preset.seeds)}"
        + "".join(f"; {system} also with {_numbers(more)}" for system, more in preset.more_seeds.items()),
        "jobs": f"{sum(map(len, jobs.values())) + len(shared)}, at most, of which {len(shared)} are of no single run",
        "shows": ", ".join(catalogue.targets(planned, preset)) or "nothing",
        "disk": f"about {disk:.1f} GB of results" + (f", {data:.1f} GB of data" if data else ""),
    }
    return tabulate(rows.items(), tablefmt="plain", disable_numparse=True)


def _table(
    groups: dict[tuple[str, str], list[Run]],
    jobs: dict[str, list[Job]],
    seconds: dict[tuple[str, str], float] | None = None,
) -> str:
    """A row for each network and data set, with all its seeds: runs, jobs, images, and times where they are known."""
    rows = []
    for (dataset, system), runs in groups.items():
        of_runs = [job for run in runs for job in jobs[run.name]]
        rows.append([dataset, system, len(runs), len(of_runs)])
        rows[-1] += [sum(getattr(job, kind) for job in of_runs) for kind in KINDS]
        if seconds is not None:
            parts = [sum(seconds[run.name, part] for run in runs) for part in PARTS]
            rows[-1] += [*parts, sum(parts)]
    rows.append(["all", "", *(sum(column) for column in list(zip(*rows, strict=True))[2:])])
    headers = ["data set", "network", "runs", "jobs", *KINDS, *([] if seconds is None else [*PARTS, "together"])]
    shown = [[*row[:4], *map(_count, row[4 : 4 + len(KINDS)]), *map(duration, row[4 + len(KINDS) :])] for row in rows]
    align = ("left", "left", *["right"] * (len(headers) - 2))
    table = tabulate(shown, headers, tablefmt="plain", disable_numparse=True, colalign=align)
    return f"{table}\n\nTrained on, passed through the network, differentiated by attacks: numbers of images."


def _numbers(values: list[int]) -> str:
    return ", ".join(map(str, values))


def _count(images: float) -> str:
    """A number of images at a glance."""
    if images >= 1e6:
        return f"{images / 1e6:,.1f} M"
    return f"{images / 1e3:,.1f} k" if images else "–"
