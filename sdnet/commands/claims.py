"""Judge the paper's claims by the result files of a folder."""

import os
from pathlib import Path

from sdnet.commands import evidence
from sdnet.experiments import results, verdicts
from sdnet.experiments.claims import load_claims
from sdnet.experiments.shown import preset_of, project_folder


def judge(given: Path) -> None:
    """Write effects.csv, what was measured, and claims.csv and .md, the verdicts, into a results folder."""
    project = project_folder()
    folder = Path(os.path.abspath(given))  # a link stays one
    preset = preset_of(folder)
    effects = evidence.effects(folder)
    loaded = load_claims(project / "config" / "claims.yaml")
    judged = verdicts.judge_all(loaded, effects, preset, str(folder.relative_to(project)))
    results.write(folder / "effects.csv", "effects", effects.to_dict("records"))
    results.write(folder / "claims.csv", "claims", judged.to_dict("records"))
    results.write_text(folder / "claims.md", verdicts.in_markdown(judged))
    print(verdicts.tally(judged))
