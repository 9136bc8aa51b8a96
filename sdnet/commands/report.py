"""The report: a notebook, executed, as one page without its code."""

from pathlib import Path

from sdnet.commands.notebook import execute, write_page
from sdnet.experiments.project import project_folder, typed_folder


def report(given: Path) -> None:
    """Write report.html into a results folder, whose claims have been judged.

    Raises:
        ValueError: if it is no results folder or a cell fails; that claims.csv is missing is said with the command
            that makes it.
    """
    folder, root = typed_folder(given)
    source = project_folder() / "notebooks" / "report.ipynb"
    done = execute(source, {"results": root}, folder / "notebooks" / source.name)
    write_page(done, folder / "report.html", title=f"SDNet, replicated: {root}", exclude_input=True)
    print(f"{given}/report.html")
