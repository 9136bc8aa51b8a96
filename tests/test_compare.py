"""Verdicts side by side, and that the published page is what the published files say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sdnet.commands.compare import draw, read_verdicts, side_by_side
from sdnet.experiments import results
from sdnet.experiments.columns import COLUMNS
from sdnet.plots.claims import BESIDE, scoreboard

PROJECT = Path(__file__).parents[1]
PUBLISHED = PROJECT / "docs" / "results"
ROW = {
    "topic": "Noise",
    "statement": "It holds.",
    "place": "section 1",
    "quantity": "a difference",
    "n_seeds": 1,
    "data": "CIFAR-10",
    "implied": False,
    "stand_in": False,
    "scale": "width 8",
    "reason": "",
    "paper": "",
}


def folder(home: Path, *rows: dict) -> Path:
    home.mkdir()
    results.write(home / "claims.csv", "claims", [dict.fromkeys(COLUMNS["claims"]) | ROW | row for row in rows])
    return home


def page_of(folders: list[Path]) -> str:
    return side_by_side(read_verdicts(folders))


def cells(page: str, start: str) -> list[list[str]]:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:1] == "|"]
    return [line[2:] for line in lines if line[0] == start]


def test_a_folder_of_which_nothing_was_judged_has_a_column_all_the_same(tmp_path):
    nothing = folder(tmp_path / "nothing", {"claim": "C1", "verdict": "not run"})
    assert "* nothing: 1 not run\n" in page_of([nothing])


def test_what_the_paper_prints_is_read_as_it_was_written(tmp_path):
    one = folder(tmp_path / "one", {"claim": "C1", "verdict": "direction", "effect": 1.0, "paper": "10.0"})
    assert read_verdicts([one])[["paper", "reading"]].to_numpy().tolist() == [["10.0", ""]]


def test_each_folder_has_a_column_and_each_reading_a_row(tmp_path):
    held = {"verdict": "direction", "effect": 2.0, "low": 1.0, "high": 3.0, "paper": "4 of 4"}
    lost = {"verdict": "contradicted", "effect": -1.0}
    one = folder(
        tmp_path / "one",
        {"claim": "C1", "reading": "text"} | held,
        {"claim": "C2", "reading": "", "verdict": "not run"},
        {"claim": "C3", "reading": "", "verdict": "not run"},
    )
    two = folder(
        tmp_path / "two",
        {"claim": "C1", "reading": "text", "verdict": "not run"},
        {"claim": "C1", "reading": "released"} | lost,
        {"claim": "C2", "reading": "", "data": "digits", "stand_in": True} | held,
        {"claim": "C3", "reading": "", "verdict": "not run"},
    )
    page = page_of([one, two])
    assert cells(page, "C1") == [["4 of 4", "🟢 direction<br>2 (1 to 3)", ""], ["", "", "🟥 contradicted<br>-1"]]
    assert cells(page, "C2") == [["4 of 4", "", "🟢 direction<br>2 (1 to 3)<br><sub>on digits, a stand-in</sub>"]]
    assert "* one: CIFAR-10, width 8: 1 direction, 2 not run" in page
    assert "* judged in none of them: C3\n" in page


def test_a_claim_that_one_folder_alone_has_run_stands_in_its_place(tmp_path):
    ran, lacks = {"reading": "", "verdict": "undecided"}, {"reading": "", "verdict": "not run"}
    one = folder(tmp_path / "one", {"claim": "A"} | ran, {"claim": "B"} | lacks, {"claim": "C"} | ran)
    two = folder(tmp_path / "two", {"claim": "A"} | lacks, {"claim": "B"} | ran, {"claim": "C"} | lacks)
    page = page_of([one, two])
    assert page.index("| A ") < page.index("| B ") < page.index("| C ")


def test_a_claim_judged_in_the_released_reading_alone_is_stated(tmp_path):
    page = page_of([folder(tmp_path / "one", {"claim": "C1", "reading": "released", "verdict": "undecided"})])
    assert "| It holds.<br><sub>a difference</sub><br>by the layer as in the authors' code |" in page


def test_several_data_sets_are_named_with_what_the_paper_has_of_each(tmp_path):
    held = {"claim": "C1", "reading": "", "verdict": "direction", "effect": 2.0}
    one = folder(
        tmp_path / "one", held | {"paper": "4"}, held | {"data": "ImageNet", "paper": "5", "verdict": "contradicted"}
    )
    two = folder(tmp_path / "two", held | {"paper": "4"})
    on = "<br><sub>on CIFAR-10</sub>"
    assert cells(page_of([one, two]), "C1") == [
        [
            "4, CIFAR-10<br>5, ImageNet",
            f"🟢 direction<br>2{on}<br>🟥 contradicted<br>2<br><sub>on ImageNet</sub>",
            f"🟢 direction<br>2{on}",
        ]
    ]


def test_what_sets_one_folder_apart_stands_in_its_cell(tmp_path):
    held = {"claim": "C1", "reading": "", "verdict": "direction", "effect": 2.0, "paper": "4", "reason": "yes"}
    one = folder(tmp_path / "one", held)
    two = folder(tmp_path / "two", held | {"quantity": "another", "paper": "5", "without": "MDEQ, SCN"})
    assert cells(page_of([one, two]), "C1") == [
        [
            "4",
            "🟢 direction<br>2",
            "🟢 direction<br>2<br><sub>measured: another</sub><br><sub>without MDEQ, SCN</sub><br><sub>paper: 5</sub>",
        ]
    ]


def test_folders_of_one_name_are_told_apart_and_one_given_twice_is_one(tmp_path):
    ran = {"claim": "C1", "reading": "", "verdict": "undecided"}
    for name in ("mine", "theirs"):
        (tmp_path / name).mkdir()
    mine, theirs = (folder(tmp_path / name / "small", ran) for name in ("mine", "theirs"))
    page = page_of([mine, theirs])
    assert f"* {mine}: CIFAR-10" in page
    assert f"* {theirs}: CIFAR-10" in page
    assert page_of([mine, mine]) == page_of([mine])
    assert "1 undecided" in page_of([mine, mine])


def test_a_folder_without_verdicts_is_named(tmp_path):
    command = [sys.executable, "-m", "sdnet", "compare", str(tmp_path)]

    def error():
        done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT)
        assert done.returncode == 1
        return done.stderr.strip()

    remedy = "give folders such as docs/results/small"
    assert error() == f"error: {tmp_path} has no claims.csv and no runs to judge; {remedy}"
    (tmp_path / "runs").mkdir()
    assert error() == f"error: {tmp_path}/claims.csv is not there; make it with: python -m sdnet claims {tmp_path}"


def test_the_published_page_is_what_its_command_prints():
    page = (PUBLISHED / "claims.md").read_text()
    (command,) = re.findall(r"python -m sdnet compare (.+)", page)
    named = command.split()
    assert sorted(named) == sorted(path.parent.name for path in PUBLISHED.glob("*/claims.csv"))
    assert page.endswith("\n" + page_of([PUBLISHED / name for name in named]) + "\n")


def test_the_picture_has_a_mark_for_each_verdict_in_the_row_of_its_claim_and_the_column_of_its_folder(tmp_path):
    one = folder(
        tmp_path / "one",
        {"claim": "C1", "reading": "text", "verdict": "replicated"},
        {"claim": "C1", "reading": "released", "verdict": "contradicted"},
        {"claim": "C2", "reading": "", "verdict": "not run"},
    )
    two = folder(
        tmp_path / "two",
        {"claim": "C1", "reading": "text", "verdict": "not run"},
        {"claim": "Z1", "reading": "", "topic": "Codes", "verdict": "undecided", "implied": True},
    )
    (axis,) = scoreboard(read_verdicts([one, two])).axes
    rows = [text.get_text() for text in sorted(axis.texts, key=lambda text: text.get_position()[1])]
    assert rows == ["Noise", "C1  It holds.", "Codes", "Z1  It holds."]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["one\nCIFAR-10\nwidth 8", "two\nCIFAR-10\nwidth 8"]
    marks = {(line.get_marker(), *line.get_xydata()[0]) for line in axis.lines if len(line.get_xdata()) == 1}
    assert marks == {("s", 0, 1), ("X", BESIDE, 1), ("o", 1, 3)}


def test_the_picture_has_its_rows_in_the_order_of_the_claims_whichever_folder_has_them(tmp_path):
    ran, lacks = {"reading": "", "verdict": "undecided"}, {"reading": "", "verdict": "not run"}
    one = folder(tmp_path / "one", {"claim": "A"} | lacks, {"claim": "B"} | ran)
    two = folder(tmp_path / "two", {"claim": "A"} | ran, {"claim": "B"} | lacks)
    (axis,) = scoreboard(read_verdicts([one, two])).axes
    rows = {text.get_text(): text.get_position()[1] for text in axis.texts}
    assert rows == {"Noise": 0, "A  It holds.": 1, "B  It holds.": 2}
    assert [text.get_text().split()[0] for text in axis.get_xticklabels()] == ["one", "two"]


def test_a_picture_is_of_something_that_was_judged(tmp_path):
    ran = folder(tmp_path / "ran", {"claim": "C1", "reading": "", "verdict": "direction"})
    draw(read_verdicts([ran]), tmp_path / "claims.png")
    assert (tmp_path / "claims.png").read_bytes().startswith(b"\x89PNG")
    lacks = folder(tmp_path / "lacks", {"claim": "C1", "reading": "", "verdict": "not run"})
    with pytest.raises(ValueError, match="no claim was judged in lacks"):
        draw(read_verdicts([lacks]), tmp_path / "none.png")
