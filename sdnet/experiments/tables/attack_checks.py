"""Are the attacks of Table 4 good ones? Weaker ones beside them, AutoAttack's warnings and the diagnostics."""

from pathlib import Path

import numpy as np
import pandas as pd

from sdnet.experiments.columns import TOGETHER
from sdnet.experiments.labels import NORMS, dataset_label, system_label
from sdnet.experiments.shown import read_runs
from sdnet.experiments.tables.attacks import STEP
from sdnet.experiments.tables.layout import laid_out


def weaker_layout(folder: Path) -> pd.DataFrame:
    """Step a' beside step a: robust accuracy (%) at the lambda of training, by data set and setting of the attack."""
    rows = read_runs(folder, "table4", "attack-adaptive")
    rows = rows[rows.step.isin(["a", "a'"]) & (rows.attack != TOGETHER) & (rows.choice == "given")]
    rows = rows[rows["lambda"].isna() | np.isclose(rows["lambda"], rows.lambda_attack)]
    rows = rows.assign(percent=100 * rows.correct / rows.total, Network=rows.system.map(system_label))
    rows["data"] = list(map(dataset_label, rows.dataset, rows.data_source))
    keys = ["data", "norm", "attack"]
    wide = rows.pivot_table(index=keys, columns="Network", values="percent", sort=False).round(2)
    wide = wide.reset_index().assign(norm=lambda frame: frame.norm.map(NORMS)).rename_axis(columns=None)
    return wide.rename(columns={"data": "Data set", "norm": "Norm", "attack": "Attack"})


def autoattack_note(folder: Path) -> str:
    """A sentence for the caption of the checks: AutoAttack's own warnings; nothing if it was not tried."""
    rows = read_runs(folder, "table4", "attack-adaptive")
    rows = rows[(rows.step == STEP["autoattack"]) & (rows.attack != TOGETHER)]
    if rows.empty:
        return ""
    warned = rows[rows.warnings.notna()].groupby(["warnings", "system", "norm"], sort=False).seed.nunique()
    said = [
        f"{warning} ({system_label(system)}, {NORMS[norm]}, {seeds} {'seed' if seeds == 1 else 'seeds'})"
        for (warning, system, norm), seeds in warned.items()
    ]
    return f" AutoAttack's own warnings: {'; '.join(said) or 'none'}."


def diagnostics_layout(checks: pd.DataFrame) -> pd.DataFrame:
    """A row per check and norm, a column per network and lambda; only what has something to accept.

    Args:
        checks: rows of diagnostics.csv.
    """
    judged = checks[checks.threshold.notna()].copy()
    judged["Network"] = [
        system_label(row.system) + ("" if np.isnan(row.lmbd) else f" at λ = {row.lmbd:g}")
        for row in judged.rename(columns={"lambda": "lmbd"}).itertuples()
    ]
    judged["text"] = [
        "–" if np.isnan(row.value) else f"{row.value:.3g} {'ok' if row.accepted else 'FAILS'}"
        for row in judged.itertuples()
    ]
    judged["norm"] = judged.norm.map(NORMS)
    judged["data"] = judged.dataset.map(dataset_label)
    networks = {name: name for name in judged.Network.unique()}
    judged = judged.sort_values("check", key=lambda names: names.str.removeprefix("D").astype(int), kind="stable")
    rows = {"data": "Data set", "check": "Check", "what": "Of", "threshold": "Accepted", "norm": "Norm"}
    return laid_out(judged, rows, "Network", networks, blank="–")
