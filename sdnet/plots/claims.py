"""Which of the paper's claims hold, at a glance."""

from textwrap import fill

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

MARKS = {  # the mark of each: shapes, too, for those who cannot tell the colours apart
    "replicated": {"color": "C2", "marker": "s"},
    "direction": {"color": "C2", "marker": "^"},
    "against": {"color": "C3", "marker": "v"},
    "contradicted": {"color": "C3", "marker": "X"},
    "undecided": {"color": "0.6", "marker": "o", "fillstyle": "none"},
}
LARGE, SMALL = 7, 4  # points, by the layer of the paper's text, where there are two, and by that of its authors' code
BESIDE = 0.28  # from a large mark to a small one, where columns are 1 apart
ROW, COLUMN, STATEMENTS = 0.22, 0.65, 5.2  # inches
LONGEST = 90  # characters of a line


def scoreboard(judged: pd.DataFrame) -> Figure:
    """A row for each claim that was judged somewhere, a column for each run, a mark for each verdict.

    Args:
        judged: rows of claims.csv, of the runs in `folder`.
    """
    order = {claim: place for place, claim in enumerate(judged.claim.unique())}
    judged = judged[judged.verdict != "not run"]
    runs = judged[["folder", "data"]].drop_duplicates().itertuples(index=False, name=None)
    columns = {run: place for place, run in enumerate(runs)}
    judged = judged.sort_values("claim", key=lambda ids: ids.map(order), kind="stable")
    lines = [line for _, of_topic in judged.groupby("topic", sort=False) for line in _lines(of_topic)]
    size = (STATEMENTS + COLUMN * len(columns), ROW * (len(lines) + 6))
    figure, axis = plt.subplots(figsize=size, layout="constrained")
    for place, (claim, statement, style) in enumerate(lines):
        axis.text(-0.6, place, statement, ha="right", va="center", fontsize="x-small", linespacing=1.2, **style)
        axis.axhline(place + 0.5, color="0.9", linewidth=0.5)
        for row in judged[judged.claim == claim].itertuples():
            released = row.reading == "released"
            look = MARKS[row.verdict] | {"markersize": SMALL if released else LARGE, "linestyle": ""}
            axis.plot(columns[row.folder, row.data] + released * BESIDE, place, **look)
    headings = ["\n".join((*run, *_scale(judged, *run))) for run in columns]
    axis.set(xlim=(-0.5, len(columns) - 0.4), ylim=(len(lines) - 0.5, -0.5), yticks=[], xticks=list(columns.values()))
    axis.xaxis.tick_top()
    axis.set_xticklabels(headings, fontsize="xx-small")
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    marks = [Line2D([], [], label=name, linestyle="", markersize=LARGE, **look) for name, look in MARKS.items()]
    note = "smaller: by the layer as in the authors' code; italics: implied by the paper, not said; no mark: not run"
    look = {"frameon": False, "fontsize": "x-small", "title_fontsize": "xx-small"}
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), title=note, **look)
    return figure


def _lines(of_topic: pd.DataFrame) -> list[tuple[str, str, dict]]:
    """A topic and its claims: id, words and their style, slanted where the paper does not say so itself."""
    claims = of_topic.drop_duplicates("claim")[["claim", "statement", "implied"]].itertuples(index=False)
    return [
        ("", of_topic.topic.iloc[0], {"fontweight": "bold"}),
        *((one.claim, _wrapped(f"{one.claim}  {one.statement}"), _style(one.implied)) for one in claims),
    ]


def _wrapped(words: str) -> str:
    """One line or, where that would be too long, two of about the same length."""
    return words if len(words) <= LONGEST else fill(words, round(0.55 * len(words)))


def _style(implied: bool) -> dict:
    return {"fontstyle": "italic" if implied else "normal"}


def _scale(judged: pd.DataFrame, folder: str, data: str) -> list[str]:
    """Width and epochs of most claims of a run."""
    scales = judged[(judged.folder == folder) & (judged["data"] == data)].scale
    return scales.mode().iloc[0].split(", ")[:2]
