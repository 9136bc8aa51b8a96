"""The verdicts on the paper's claims in several results folders, side by side."""

from pathlib import Path

import pandas as pd

from sdnet.experiments import results
from sdnet.experiments.verdicts import effect_in_words, tally

SIGNS = {"replicated": "🟩", "direction": "🟢", "contradicted": "🟥", "undecided": "⬜"}
READINGS = {"": "{}", "text": "{}", "released": "the same, by the layer as in the authors' code"}


def side_by_side(folders: list[Path]) -> str:
    """Verdicts and measured effects in Markdown: a row for each claim, a column for each folder.

    Args:
        folders: results folders with a claims.csv.

    Raises:
        FileNotFoundError, ValueError: if one has no claims.csv or a damaged one; the message says how to make it.
    """
    columns = [results.read(folder / "claims.csv", "claims").assign(folder=str(folder)) for folder in folders]
    words = ["reading", "paper", "scale"]
    judged = pd.concat(columns).astype(dict.fromkeys(words, object)).fillna(dict.fromkeys(words, ""))
    ran = judged.verdict != "not run"
    rows = []
    for topic, of_topic in judged[ran].groupby("topic", sort=False):
        rows.append(["", f"**{topic}**", "", *("" for _ in folders)])
        for claim in judged.claim[judged.topic == topic].unique():
            for reading, title in READINGS.items():
                found = of_topic[(of_topic.claim == claim) & (of_topic.reading == reading)]
                if len(found):
                    first = found.iloc[0]
                    statement = title.format(f"{first.statement}<br><sub>{first.quantity}</sub>")
                    cells = ["<br>".join(map(_cell, found[found.folder == str(folder)].iloc)) for folder in folders]
                    rows.append([claim, statement, next(filter(None, found.paper), ""), *cells])
    titles = ["", "The paper claims", "paper", *(folder.name for folder in folders)]
    table = pd.DataFrame(rows, columns=titles).to_markdown(index=False, disable_numparse=True)
    scales = [_scale(folder.name, judged[judged.folder == str(folder)]) for folder in folders]
    nowhere = sorted(set(judged.claim) - set(judged.claim[ran]))
    return "\n".join([*scales, *([f"* judged in none of them: {', '.join(nowhere)}"] if nowhere else []), "", table])


def _cell(row: pd.Series) -> str:
    """What came of one claim in one folder."""
    return f"{SIGNS[row.verdict]} {row.verdict}<br>{effect_in_words(row)}" + (
        f"<br><sub>on {row['data']}, a stand-in</sub>" if row.stand_in else ""
    )


def _scale(name: str, judged: pd.DataFrame) -> str:
    """What a column is of, and how many claims came out how there."""
    ran = judged[judged.verdict != "not run"]
    return f"* {name}: {'; '.join((ran['data'] + ', ' + ran.scale).unique())}: {tally(judged)}"
