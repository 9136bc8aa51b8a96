"""Result files, read and written whole, with the columns that `columns` describes."""

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from sdnet.experiments.columns import COLUMNS, EXTRA, MAY_BE_EMPTY, TEXT
from sdnet.experiments.settings.files import PRESETS
from sdnet.files import DAMAGED_ARRAYS, whole, write_text

# The command for each file of a run's folder, and for the verdicts.
MADE_BY = {
    "history": "train",
    "accuracy": "evaluate",
    "codes": "evaluate",
    "dictionary": "evaluate",
    "sweep": "sweep",
    "stability": "stability",
    "calibration": "calibrate",
    "peaks": "calibrate",
    "lines": "calibrate",
    "adaptive": "calibrate",
    "renormalised": "renormalise",
    "inversion": "invert",
    "attack-paper": "attack",
    "attack-adaptive": "attack-adaptive",
    "adversarial": "attack-adaptive",
    "diagnostics": "diagnose",
    "claims": "claims",
    "effects": "claims",
}


def write(path: Path, kind: str, rows: Iterable[dict]) -> None:
    """Write a result file, whole or not at all.

    Raises:
        ValueError: if a row has not exactly the columns of its kind.
    """
    rows = list(rows)
    for row in rows:
        _check(path, kind, list(row))
    frame = pd.DataFrame(rows, columns=None if rows else list(COLUMNS[kind]))
    write_text(path, frame.to_csv(index=False))


def read(path: Path, kind: str) -> pd.DataFrame:
    """Read a result file.

    Raises:
        FileNotFoundError: if it is not there; the message says how to make it.
        ValueError: if it has not the columns of its kind.
    """
    try:
        content = path.read_bytes()
        if content and not content.endswith(b"\n"):
            raise ValueError("its last line is cut short")
        # From pandas 3.1 on, numbers are read to the last digit.
        frame = pd.read_csv(io.BytesIO(content), dtype=dict.fromkeys(TEXT.get(kind, ()), str))
        if frame.empty and kind not in MAY_BE_EMPTY:
            raise ValueError("it holds no rows")
    except FileNotFoundError:
        raise _missing(path) from None
    except ValueError as error:
        raise ValueError(
            f"{path} is no CSV file ({error}); remove it and make it anew with: {command_for(path)}"
        ) from None
    _check(path, kind, list(frame.columns))
    return frame.fillna(dict.fromkeys(TEXT.get(kind, ()), ""))


def as_trained(rows: pd.DataFrame) -> pd.Series:
    """Which rows of a sweep are at the lambda of training, or of a network without one."""
    return rows["lambda"].isna() | np.isclose(rows["lambda"], rows.lambda0)


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write NumPy arrays to a compressed .npz, whole or not at all."""
    with whole(path) as file:
        np.savez_compressed(file, **arrays)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of an .npz file.

    Raises:
        FileNotFoundError, ValueError: if it is not there or damaged; the message says how to make it.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except FileNotFoundError:
        raise _missing(path) from None
    except DAMAGED_ARRAYS as error:
        remedy = f"remove it and make it anew with: {command_for(path)}"
        raise ValueError(f"{path} is damaged ({error}); {remedy}") from None


def _missing(path: Path) -> FileNotFoundError:
    return FileNotFoundError(f"{path} is not there; make it with: {command_for(path)}")


def command_for(path: Path) -> str:
    """What makes a result file: Snakemake in the project's results, elsewhere the command itself."""
    kind = next((kind for kind in MADE_BY if path.stem == kind or path.stem.startswith(f"{kind}-")), None)
    of_project = [
        Path(*path.parts[k:])
        for k, part in enumerate(path.parts)
        if part == "results" and Path(*path.parts[:k], PRESETS).is_dir()
    ]
    if of_project and MADE_BY.get(kind) != "claims":  # which need not wait for all that a preset has
        return f"snakemake --cores all {of_project[-1]}"
    if kind is None:
        return "snakemake, in the project's folder"
    noise = path.stem.removeprefix(kind).removeprefix("-")
    return f"python -m sdnet {MADE_BY[kind]} {path.parent}" + (f" --noise {noise} ..." if noise else "")


def _check(path: Path, kind: str, given: list[str]) -> None:
    extra = [name for name in given if kind in EXTRA and name.startswith(EXTRA[kind])]
    wrong = (set(given) - set(extra)) ^ set(COLUMNS[kind])
    if wrong:
        raise ValueError(
            f"{path} is no {kind} file: missing or unknown columns {', '.join(sorted(wrong))}; "
            f"it must have {', '.join(COLUMNS[kind])}; remove it and make it anew with: " + command_for(path)
        )
