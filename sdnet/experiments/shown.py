"""What a notebook reads: the result files of the runs that its table or figure shows."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd

from sdnet.experiments import catalogue, results
from sdnet.experiments.labels import dataset_label, scale_label, system_label
from sdnet.experiments.places import run_name
from sdnet.experiments.project import preset_of, project_folder
from sdnet.experiments.settings.networks import has_lambda


def read_runs(folder: Path, target: str, kind: str) -> pd.DataFrame:
    """A result file of every run, or those of every noise, that a table or figure shows, in the order of the paper.

    Runs are those of the preset's present settings: a folder left over from other settings is not read. What is made of
    the first seed alone is read of that one.
    A data set without any tested run, as ImageNet where its root is not set, is left out.

    Args:
        folder: a results folder.
        target: the table or figure.
        kind: of result file, a key of `columns.COLUMNS`. What needs a lambda is read of networks that have one.

    Raises:
        FileNotFoundError: if a file is missing; the message says how to make it.
    """
    preset = preset_of(folder)
    by_noise = f"{kind}-*.csv" in catalogue.READS[target]
    frames = []
    for run in _run_folders(folder, target, kind in catalogue.OF_ALGORITHM_1, kind in catalogue.OF_FIRST_SEED):
        noises = catalogue.noises_of(target, run.parts[-3], preset)
        files = [f"{kind}-{noise}.csv" for noise in noises] if by_noise else [f"{kind}.csv"]
        frames += [results.read(run / file, kind) for file in files]
    return pd.concat(frames, ignore_index=True)


def read_arrays(folder: Path, target: str, name: str) -> list[tuple[str, str, dict[str, np.ndarray]]]:
    """An .npz file of the runs that a figure shows, of the first seed: data set, network and arrays of each.

    Raises:
        FileNotFoundError, ValueError: if a file is missing or damaged; the message says how to make it.
    """
    runs = _run_folders(folder, target, first_seed=True)
    return [(run.parts[-3], run.parts[-2], results.read_arrays(run / name)) for run in runs]


def _run_folders(folder: Path, target: str, need_lambda: bool = False, first_seed: bool = False) -> list[Path]:
    """The folders of the runs that a table or figure shows; of networks with a lambda, or of the first seed, alone.

    Raises:
        FileNotFoundError: if there is none; the message says how to make them.
    """
    preset = preset_of(folder)
    folders = [
        folder / "runs" / run_name(dataset, system, seed)
        for dataset in preset.datasets
        if catalogue.shows(target, dataset, preset) and has_runs(folder, dataset)
        for system in catalogue.systems_of(target, preset)
        if system in preset.systems_on(dataset) and (not need_lambda or has_lambda(preset.systems[system].model))
        for seed in (preset.seeds[:1] if first_seed else preset.seeds_of(system))
    ]
    if not folders:
        wanted = folder.relative_to(project_folder()) / catalogue.file_of(target)
        raise FileNotFoundError(f"{folder}/runs holds no run; make it with: snakemake --cores all {wanted}")
    return folders


def has_runs(folder: Path, dataset: str) -> bool:
    """Whether some run on a data set was tested; a spec.json alone may be left over from other settings."""
    return any((folder / "runs" / dataset).glob("*/*/accuracy.csv"))


def scale_note(folder: Path, target: str) -> str:
    """The images and the scale of the runs that a table or figure shows in words, to be put under every figure.

    The scale of most networks comes first; those of another one are named with theirs.
    """
    accuracy = read_runs(folder, target, "accuracy")
    labelled = accuracy.assign(
        images=[dataset_label(row.dataset, row.data_source) for row in accuracy.itertuples()],
        scale=[scale_label(row.width, row.epochs, row.train_images) for row in accuracy.itertuples()],
    )
    notes = []
    for images, runs in labelled.groupby("images"):
        networks = runs.groupby("scale").system.unique()
        usual, *others = sorted(networks.items(), key=lambda found: -len(found[1]))
        notes.append(f"{images}: {usual[0]}")
        notes += [f"{', '.join(map(system_label, systems))}: {scale}" for scale, systems in others]
    return "; ".join(notes)


def noise_note(sources: pd.Series, images: pd.Series) -> str:
    """How noisy test images were made, and how many there are, in words; rows of clean images have no source."""
    counts = images.groupby(sources, sort=False).max()
    return "; ".join(f"{source}, on {count:,.0f} test images" for source, count in counts.items())


def calibration_note(folder: Path, target: str) -> str:
    """On how many training images Algorithm 1 fitted what a table or figure shows, in words."""
    counts = read_runs(folder, target, "calibration").images.unique()
    return f"Algorithm 1 on {' or '.join(f'{count:,}' for count in sorted(counts))} training images"


def solver_note(folder: Path, target: str) -> str:
    """A sentence for a caption: whose inner solvers missed their tolerance in the last epoch; nothing if none did."""
    missed = defaultdict(list)
    for run in _run_folders(folder, target):
        history = results.read(run / "history.csv", "history")
        if "solver_unconverged" in history and len(history):
            missed[run.parts[-3:-1]].append(history.solver_unconverged.iloc[-1])
    notes = [
        f"{system_label(system)}'s on {dataset_label(dataset)} for {share:.1%} of its samples"
        for (dataset, system), shares in missed.items()
        if (share := np.mean(shares)) >= 0.0005
    ]
    return (
        f" Inner solvers that missed their tolerance in the last epoch of training: {', '.join(notes)}."
        if notes
        else ""
    )


def left_out_note(folder: Path) -> str:
    """A sentence for the caption of a table: the preset's data sets that have no runs; nothing if all have some."""
    rooted = ("imagenet", "folder")
    names = [
        dataset_label(name) + (f" (which needs {name}_root in config/config.yaml)" if name in rooted else "")
        for name in preset_of(folder).datasets
        if not has_runs(folder, name)
    ]
    return f" Left out, having no runs: {', '.join(names)}." if names else ""
