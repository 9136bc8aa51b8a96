"""Result files: whole, with exactly the documented columns, or not there at all."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from sdnet.experiments import results
from sdnet.experiments.columns import COLUMNS, MAY_BE_EMPTY

ROW = {"dataset": "digits", "system": "sdnet18", "seed": 0, "layer": "conv1", "lambda": 0.1}
ROWS = [ROW | {"bin_low": -0.5, "bin_high": 0.1 + 0.2, "count": 3}, ROW | {"bin_low": 0.0, "bin_high": 0.0, "count": 9}]


def test_what_is_read_is_what_was_written(tmp_path):
    path = tmp_path / "new" / "codes.csv"
    results.write(path, "codes", ROWS)
    assert results.read(path, "codes").to_dict("records") == ROWS
    assert [p.name for p in path.parent.iterdir()] == ["codes.csv"]


@pytest.mark.parametrize("kind", MAY_BE_EMPTY)
def test_a_file_without_rows_has_its_columns(tmp_path, kind):
    results.write(tmp_path / "empty.csv", kind, [])
    frame = results.read(tmp_path / "empty.csv", kind)
    assert list(frame.columns) == list(COLUMNS[kind])
    assert frame.empty


@pytest.mark.parametrize("kind", COLUMNS)
def test_every_column_is_described(kind):
    assert all(description.strip() for description in COLUMNS[kind].values())


def without(key, row):
    return {name: value for name, value in row.items() if name != key}


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([without("count", row) for row in ROWS], "count"),
        ([row | {"colour": "red"} for row in ROWS], "colour"),
        ([without("bin_low", row) | {"low": 0} for row in ROWS], "bin_low, low"),
        ([ROWS[0], ROWS[1] | {"colour": "red"}], "colour"),
        ([ROWS[0], without("count", ROWS[1])], "count"),
    ],
)
def test_wrong_columns_are_refused_and_the_old_file_stays(tmp_path, rows, named):
    path = tmp_path / "codes.csv"
    results.write(path, "codes", ROWS)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=rf"codes\.csv is no codes file: missing or unknown columns {named};"):
        results.write(path, "codes", rows)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["codes.csv"]


def test_a_file_of_another_kind_is_refused(tmp_path):
    results.write(tmp_path / "codes.csv", "codes", ROWS)
    with pytest.raises(ValueError, match=r"codes\.csv is no dictionary file: .*atom.* it must have dataset, .*value"):
        results.read(tmp_path / "codes.csv", "dictionary")


def test_a_history_may_have_what_a_solver_reports(tmp_path):
    row = dict.fromkeys(COLUMNS["history"], 1) | {"solver_residual": 0.5}
    results.write(tmp_path / "history.csv", "history", [row])
    assert results.read(tmp_path / "history.csv", "history").solver_residual.tolist() == [0.5]
    with pytest.raises(ValueError, match="solver_residual"):
        results.write(tmp_path / "codes.csv", "codes", [ROWS[0] | {"solver_residual": 0.5}])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_on_a_full_disk_the_old_file_stays_and_nothing_else(tmp_path):
    path = tmp_path / "codes.csv"
    results.write(path, "codes", ROWS)
    before = path.read_bytes()
    (tmp_path / f".codes.csv.{os.getpid()}").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: .*codes\.csv"):
        results.write(path, "codes", ROWS[:1])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["codes.csv"]


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("results/quick/runs/digits/scn/seed0/accuracy.csv", "snakemake --cores all {path}"),
        ("results/project/results/quick/table1.csv", "snakemake --cores all results/quick/table1.csv"),
        (
            "results/project/trial/sweep-shot.csv",
            "python -m sdnet sweep {folder}/results/project/trial --noise shot ...",
        ),
        ("trial/accuracy.csv", "python -m sdnet evaluate {folder}/trial"),
        ("trial/lines-shot.csv", "python -m sdnet calibrate {folder}/trial --noise shot ..."),
        ("trial/attack-paper.csv", "python -m sdnet attack {folder}/trial"),
        ("trial/claims.csv", "python -m sdnet claims {folder}/trial"),
        ("docs/results/brief/claims.csv", "python -m sdnet claims {folder}/docs/results/brief"),
        ("results/quick/effects.csv", "python -m sdnet claims {folder}/results/quick"),
        ("trial/table1.csv", "snakemake, in the project's folder"),
    ],
)
def test_a_missing_file_is_named_with_the_command_that_makes_it(tmp_path, path, command):
    for project in (tmp_path, tmp_path / "results/project"):
        (project / "config" / "presets").mkdir(parents=True)
    if path.startswith("results/project/trial"):
        (tmp_path / "config" / "presets").rmdir()
    with pytest.raises(FileNotFoundError) as error:
        results.read(tmp_path / path, "accuracy")
    remedy = command.format(path=path, folder=tmp_path)
    assert str(error.value) == f"{tmp_path / path} is not there; make it with: {remedy}"


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b'dataset,system\n"digits,', b"dataset,system\ndigits,sdn"])
def test_a_file_that_is_no_csv_is_named(tmp_path, content):
    path = tmp_path / "codes.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))} is no CSV file \(.*\); remove it and make it anew"):
        results.read(path, "codes")


def test_a_file_without_rows_is_named_where_there_must_be_some(tmp_path):
    results.write(tmp_path / "accuracy.csv", "accuracy", [])
    with pytest.raises(
        ValueError, match=r"accuracy\.csv is no CSV file \(it holds no rows\); remove it and make it anew"
    ):
        results.read(tmp_path / "accuracy.csv", "accuracy")


def test_counts_stay_whole_numbers_and_numbers_keep_every_digit(tmp_path):
    """0.1 + 0.2 is 0.30000000000000004, and stays so."""
    results.write(tmp_path / "codes.csv", "codes", ROWS)
    frame = results.read(tmp_path / "codes.csv", "codes")
    assert pd.api.types.is_integer_dtype(frame["count"])
    assert frame.bin_high[0] == 0.1 + 0.2
    assert "0.30000000000000004" in (tmp_path / "codes.csv").read_text()


def test_the_bookkeeping_needs_no_torch():
    """`plan` and `status` answer at once: no module of the bookkeeping wing loads torch, nor the science wing."""
    code = (
        "import importlib, pkgutil, sys, sdnet.experiments, sdnet.plots\n"
        "names = [m.name for m in pkgutil.iter_modules(sdnet.experiments.__path__)]\n"
        "for name in names: importlib.import_module('sdnet.experiments.' + name)\n"
        "science = ('torch', 'sdnet.csc', 'sdnet.models', 'sdnet.data', 'sdnet.training', 'sdnet.robustness')\n"
        "print(len(names), [name for name in sys.modules if name.startswith(science)], 'mlflow' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, loaded = re.fullmatch(r"(\d+) (.*)", done.stdout.strip()).groups()
    assert int(count) >= 8
    assert loaded == "[] False"
