"""The verdicts on the paper's claims in several results folders, side by side."""

from pathlib import Path

import pandas as pd

from sdnet.experiments import results
from sdnet.experiments.claims.words import effect_in_words, tally
from sdnet.files import whole

SIGNS = {"replicated": "🟩", "direction": "🟢", "against": "🔴", "contradicted": "🟥", "undecided": "⬜"}
THE_SAME = "the same, by the layer as in the authors' code"
PICTURE_DPI = 140


def read_verdicts(folders: list[Path]) -> pd.DataFrame:
    """All verdicts in some folders: rows of claims.csv, with the folder's name in `folder`.

    Args:
        folders: results folders with a claims.csv.

    Raises:
        FileNotFoundError, ValueError: if one has no claims.csv or a damaged one; the message says how to make it.
    """
    for folder in folders:
        if not (folder / "claims.csv").exists() and not (folder / "runs").is_dir():
            remedy = "give folders such as docs/results/small"
            raise ValueError(f"{folder} has no claims.csv and no runs to judge; {remedy}")
    named = _named(folders).items()
    tables = [results.read(folder / "claims.csv", "claims").assign(folder=name) for name, folder in named]
    return pd.concat(tables)


def draw(judged: pd.DataFrame, path: Path) -> None:
    """Draw verdicts, as from `read_verdicts`, side by side, into a .png.

    Raises:
        ValueError: if no claim was judged.
    """
    from sdnet import plots  # here, since it takes a second to import

    if (judged.verdict == "not run").all():
        raise ValueError(f"--picture: no claim was judged in {', '.join(judged.folder.unique())}")
    plots.style()
    with whole(path) as file:
        plots.scoreboard(judged).savefig(file, format="png", dpi=PICTURE_DPI)


def side_by_side(judged: pd.DataFrame) -> str:
    """Verdicts, as from `read_verdicts`, with measured effects in Markdown: a row for each claim, a column a folder."""
    columns = list(judged.folder.unique())
    ran = judged.verdict != "not run"
    rows = []
    for topic, of_topic in judged[ran].groupby("topic", sort=False):
        rows.append(["", f"**{topic}**", "", *("" for _ in columns)])
        for claim in judged.claim[judged.topic == topic].unique():
            of_claim = of_topic[of_topic.claim == claim]
            for k, reading in enumerate(name for name in ("", "text", "released") if name in set(of_claim.reading)):
                found = of_claim[of_claim.reading == reading]
                if k == 0:
                    measured = found.quantity.iloc[0]
                statement = f"{found.statement.iloc[0]}<br><sub>{measured}</sub>"
                if reading == "released":
                    statement = THE_SAME if k else f"{statement}<br>by the layer as in the authors' code"
                cells = [
                    "<br>".join(_cell(row, found, measured) for row in found[found.folder == name].iloc)
                    for name in columns
                ]
                rows.append([claim, statement, _printed(found), *cells])
    table = pd.DataFrame(rows, columns=["", "The paper claims", "paper", *columns])
    scales = [_scale(name, judged[judged.folder == name]) for name in columns]
    nowhere = sorted(set(judged.claim) - set(judged.claim[ran]))
    if nowhere:
        scales.append(f"* judged in none of them: {', '.join(nowhere)}")
    return "\n".join([*scales, "", table.to_markdown(index=False, disable_numparse=True)])


def _named(folders: list[Path]) -> dict[str, Path]:
    """The folders by the names of their columns, each once: the last part of the path where that tells them apart."""
    once = list({folder.resolve(): folder for folder in folders}.values())
    short = {folder.name: folder for folder in once}
    return short if len(short) == len(once) and "" not in short else {str(folder): folder for folder in once}


def _printed(found: pd.DataFrame) -> str:
    """What the paper has of a claim, by the data set where it differs."""
    printed = found[found.paper != ""].drop_duplicates("data")
    if printed.paper.nunique() == 1:
        return printed.paper.iloc[0]
    return "<br>".join(f"{row.paper}, {row['data']}" for row in printed.iloc)


def _cell(row: pd.Series, found: pd.DataFrame, measured: str) -> str:
    """What came of one claim in one folder, with what sets it apart from the others that were found, or measured."""
    notes = []
    if row.stand_in or found["data"].nunique() > 1:
        notes.append(f"on {row['data']}" + (", a stand-in" if row.stand_in else ""))
    if row.quantity != measured:
        notes.append(f"measured: {row.quantity}")
    if row.without:
        notes.append(f"without {row.without}")
    if row.paper != found[found["data"] == row["data"]].paper.iloc[0]:
        notes.append(f"paper: {row.paper or 'no number'}")
    return f"{SIGNS[row.verdict]} {row.verdict}<br>{effect_in_words(row)}" + "".join(
        f"<br><sub>{note}</sub>" for note in notes
    )


def _scale(name: str, judged: pd.DataFrame) -> str:
    """What a column is of, and how many claims came out how there."""
    ran = judged[judged.verdict != "not run"]
    of_what = "; ".join((ran["data"] + ", " + ran.scale).unique())
    return "* " + ": ".join(filter(None, [name, of_what, tally(judged)]))
