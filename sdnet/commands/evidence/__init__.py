"""What the claims of the paper are judged by: effects, each a measured quantity or a difference, with its interval.

An effect says by how much one network (`subject`) exceeds another (`over`), or itself at another lambda, under one
condition; or, where `over` is empty, what was measured of it. The paper's printed numbers make rows of the same form
(`paper_effects`), so that both are judged by the same code. A network is written with its way to choose lambda behind
it: "sdnet18 adaptive".
"""

from pathlib import Path

import pandas as pd

from sdnet.commands.evidence.attacks import attacks
from sdnet.commands.evidence.clean import clean
from sdnet.commands.evidence.codes import codes, inversion
from sdnet.commands.evidence.lambdas import best_lambda_effects, lines
from sdnet.commands.evidence.noise import noisy
from sdnet.commands.evidence.paper import paper_effects
from sdnet.commands.evidence.runs import KEYS, Runs
from sdnet.commands.evidence.stability import stability
from sdnet.experiments.claims.claim import as_text
from sdnet.experiments.columns import COLUMNS
from sdnet.experiments.project import preset_of


def effects(folder: Path) -> pd.DataFrame:
    """Every effect that the result files of a folder allow, with the paper's beside it.

    What is not there yet has no row; of several seeds those that are there count.
    """
    preset = preset_of(folder)
    rows = [
        row
        for runs in [Runs(folder, dataset, preset) for dataset in preset.datasets]
        for measure in (clean, noisy, best_lambda_effects, lines, codes, inversion, attacks, stability)
        for row in measure(runs)
    ]
    ours = pd.DataFrame(rows, columns=[name for name in COLUMNS["effects"] if name != "paper"])
    ours[["estimate", "low", "high"]] = ours[["estimate", "low", "high"]].astype(float).round(9)
    # The paper does not say in which reading of the layer its numbers were made.
    keys = ours[KEYS].assign(subject=ours.subject.map(as_text), over=ours.over.map(as_text))
    papers = keys.merge(paper_effects(), how="left", on=KEYS, validate="many_to_one").paper
    return ours.assign(paper=papers)[list(COLUMNS["effects"])]
