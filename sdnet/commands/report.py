"""The report: a notebook, executed, as one page without its code."""

import os
from pathlib import Path

from sdnet.commands.notebook import execute, write_page
from sdnet.experiments.shown import project_folder


def report(given: Path) -> None:
    """Write report.html into a results folder, whose claims have been judged.

    Raises:
        ValueError: if a cell fails; that claims.csv is missing is said with the command that makes it.
    """
    project = project_folder()
    folder = Path(os.path.abspath(given))  # a link stays one
    root = str(folder.relative_to(project))
    source = project / "notebooks" / "report.ipynb"
    done = execute(source, {"results": root}, folder / "notebooks" / source.name)
    write_page(done, folder / "report.html", title=f"SDNet, replicated: {root}", exclude_input=True)
