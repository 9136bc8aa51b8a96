"""Judge the paper's claims by the result files of a folder."""

from pathlib import Path

from sdnet.commands import evidence
from sdnet.experiments import results
from sdnet.experiments.claims import words
from sdnet.experiments.claims.claim import load_claims
from sdnet.experiments.claims.verdicts import judge_all
from sdnet.experiments.project import preset_of, project_folder, typed_folder
from sdnet.files import write_text


def judge(given: Path) -> None:
    """Write effects.csv, what was measured, and claims.csv and .md, the verdicts, into a results folder."""
    folder, root = typed_folder(given)
    effects = evidence.effects(folder)
    loaded = load_claims(project_folder() / "config" / "claims.yaml")
    judged = judge_all(loaded, effects, preset_of(folder), root)
    results.write(folder / "effects.csv", "effects", effects.to_dict("records"))
    results.write(folder / "claims.csv", "claims", judged.to_dict("records"))
    write_text(folder / "claims.md", words.in_markdown(judged))
    print(f"{given}/claims.md: {words.tally(judged)}")
