"""What every table has: means and intervals, the paper's numbers beside ours, its layout, its files."""

import re
from pathlib import Path

import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from sdnet.experiments.project import project_folder
from sdnet.files import write_text

SEVERITY_COUNT = 5  # of each noise
BESIDE = "Ours, the paper's value in brackets where it has one. Scale of ours:"


def accuracy(runs: pd.DataFrame) -> dict:
    """Mean, spread and interval of an accuracy, from counts `correct` of `total`, one row per seed.

    The interval is over test images: seeds share them, and so do the severities of a mean, so that each image counts
    once. The variance of training is in the spread.
    """
    shares = 100 * runs.correct / runs.total
    images = runs.total.mean() / (SEVERITY_COUNT if "severity" in runs and runs.severity.iloc[0] == "mean" else 1)
    low, high = proportion_confint(shares.mean() / 100 * images, images, method="wilson")
    return {
        "quantity": "accuracy",
        "unit": "percent",
        "ours": shares.mean(),
        "ours_std": shares.std(),
        "n_seeds": len(runs),
        "images": images,
        "ours_low": 100 * low,
        "ours_high": 100 * high,
    }


def paper_values(table: str | None = None) -> pd.DataFrame:
    """What the paper prints in a table, or in all of them, one number a row.

    Raises:
        ValueError: if the file is damaged.
    """
    path = project_folder() / "config" / "paper_values.csv"
    try:
        values = pd.read_csv(path)
        if lacking := {f"table{number}" for number in range(1, 7)}.difference(values.get("table", ())):
            raise ValueError(f"it has no number of {', '.join(sorted(lacking))}")
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({str(error).strip()}); mend it, or put the published one back") from None
    return values if table is None else values[values.table == table]


def beside(rows: list[dict], printed: pd.DataFrame, keys: list[str], columns: list[str]) -> pd.DataFrame:
    """Rows of a table with what the paper prints there, as from `paper_values`, and the difference."""
    printed = printed.rename(columns={"value": "paper"})[[*keys, "paper", "released"]]
    joined = pd.DataFrame(rows).merge(printed, on=keys, how="left")
    return joined.assign(difference=joined.ours - joined.paper).reindex(columns=columns)


def cell(row, fmt: str) -> str:
    """Ours, with its spread over seeds, and the paper's value in brackets where it has one."""
    ours = f"{row.ours:{fmt}}"
    if row.n_seeds > 1:
        ours += f" ± {row.ours_std:{fmt}}"
    return ours if pd.isna(row.paper) else f"{ours} ({row.paper:{fmt}})"


def laid_out(
    cells: pd.DataFrame, rows: dict[str, str], column: str, titles: dict[str, str], blank: str = ""
) -> pd.DataFrame:
    """The column `text` of some cells as a table, in rows of their first appearance.

    Args:
        cells: one a row.
        rows: columns of `cells` that a row of the table begins with, and what they are called there.
        column: the column of `cells` for whose values the table has a column each.
        titles: these values in order, and what they are called; those that no cell has are passed over.
        blank: where there is no cell.
    """
    order = pd.MultiIndex.from_frame(cells[list(rows)].drop_duplicates())
    found = cells.pivot(index=list(rows), columns=column, values="text").reindex(order)
    found = found[[value for value in titles if value in found]].fillna(blank).reset_index()
    return found.rename(columns=rows | titles).rename_axis(columns=None)


def write(table: pd.DataFrame, layout: pd.DataFrame, path: Path, caption: str) -> None:
    """Write a table as tidy .csv and, in the paper's layout, as .md and .tex."""
    write_text(path.with_suffix(".csv"), table.to_csv(index=False))
    write_text(path.with_suffix(".md"), f"{caption}\n\n{layout.to_markdown(index=False, disable_numparse=True)}\n")
    latex = layout.to_latex(index=False, escape=True, caption=re.sub(r"([%&_#$])", r"\\\1", caption))
    write_text(path.with_suffix(".tex"), latex)
