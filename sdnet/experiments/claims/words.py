"""Verdicts on the paper's claims, in words: their number, their table, an effect with its interval."""

import numpy as np
import pandas as pd

from sdnet.experiments.labels import VERDICTS


def tally(judged: pd.DataFrame) -> str:
    """How many claims came out how, in a sentence; apart, what the paper does not say itself."""
    implied = judged.implied.astype(bool)
    parts = [
        ", ".join(f"{count} {verdict}" for verdict in VERDICTS if (count := (part.verdict == verdict).sum()))
        for part in (judged[~implied], judged[implied])
    ]
    return "; of what it does not say but implies: ".join(filter(None, parts))


def in_markdown(judged: pd.DataFrame) -> str:
    """The verdicts as a table for each topic."""
    parts = [f"The paper's claims, judged: {tally(judged)}."]
    for topic, rows in judged.groupby("topic", sort=False):
        table = pd.DataFrame(
            {
                "": rows.claim,
                "The paper's claim": rows.statement + " (" + rows.place + ")",
                "Layer": rows.reading,
                "Images": rows["data"] + np.where(rows.stand_in & (rows.verdict != "not run"), ", as a stand-in", ""),
                "Verdict": rows.verdict,
                "Ours": [effect_in_words(row) for row in rows.itertuples()],
                "Paper": rows.paper.astype(object).fillna(""),
                "Why": rows.reason,
            }
        )
        parts += [f"## {topic}", table.to_markdown(index=False, disable_numparse=True)]
    return "\n\n".join(parts) + "\n"


def effect_in_words(row) -> str:
    """The effect of a row of claims.csv, with its interval."""
    if pd.isna(row.effect):
        return ""
    return number(row.effect, *((row.effect, row.effect) if pd.isna(row.low) else (row.low, row.high)))


def number(estimate: float, low: float, high: float) -> str:
    """An estimate and, in brackets, the ends of its interval, where it has one."""
    if np.isnan(estimate):
        return "no number"  # as R² of points that all have the same λ
    estimate, low, high = (round(value, 9) + 0.0 for value in (estimate, low, high))  # 0, where rounding left 1e-17
    return f"{estimate:.3g}" + ("" if low == high else f" ({low:.3g} to {high:.3g})")
