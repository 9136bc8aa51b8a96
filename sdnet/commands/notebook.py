"""Execute one notebook with papermill: strict about its parameters, over Unix sockets."""

import tempfile
from html import escape
from pathlib import Path
from string import Template

import papermill
from nbconvert import HTMLExporter
from nbformat import NotebookNode, ValidationError
from traitlets.config import Config

from sdnet.files import write_text

PAGE = Path(__file__).with_name("page.html")


def notebook(source: Path, parameters: dict[str, str], executed: Path, html: Path) -> None:
    """Run a notebook; keep the executed copy, see `execute`, and an HTML page of it."""
    done = execute(source, parameters, executed)
    write_page(done, html, title=f"{source.stem}, {parameters['results']}")


def write_page(done: NotebookNode, html: Path, title: str, exclude_input: bool = False) -> None:
    """Write an executed notebook as one HTML page that loads nothing."""
    for output in (output for cell in done.cells for output in cell.get("outputs", ())):
        if "image/png" in output.get("data", ()):
            output.metadata.setdefault("image/png", {}).setdefault("alt", title)
    shown = {"exclude_input": exclude_input, "exclude_input_prompt": True, "exclude_output_prompt": True}
    exporter = HTMLExporter(template_name="basic", anchor_link_text="", **shown)
    body, _ = exporter.from_notebook_node(done)
    write_text(html, Template(PAGE.read_text(encoding="utf-8")).substitute(title=escape(title), body=body))


def execute(source: Path, parameters: dict[str, str], executed: Path) -> NotebookNode:
    """Run a notebook; keep the executed copy, up to the cell that failed if one does.

    Raises:
        ValueError: if a parameter is not one that the notebook declares, or a cell fails.
    """
    try:
        declared = papermill.inspect_notebook(source)
    except (ValueError, ValidationError, AttributeError, KeyError) as error:  # nbformat's, of JSON of another kind
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{source} is no notebook ({reason}); give one of notebooks/*.ipynb") from None
    if unknown := set(parameters) - set(declared):
        raise ValueError(
            f"{source}: unknown parameters {', '.join(sorted(unknown))}; it declares {', '.join(declared) or 'none'}"
        )
    executed.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="sdnet-") as folder:
            # Sockets are files: parallel notebooks cannot clash on a TCP port, and nobody can listen.
            sockets = {"transport": "ipc", "ip": f"{folder}/kernel"}
            return papermill.execute_notebook(
                source,
                executed,
                parameters,
                kernel_name="python3",
                progress_bar=False,
                # Of a kernel's start and of its messages: by default too short for a slow disk or a loaded machine.
                start_timeout=600,
                iopub_timeout=120,
                config=Config({"KernelManager": sockets}),
            )
    except papermill.PapermillExecutionError as error:
        raise ValueError(
            f"{source} failed in cell [{error.exec_count}]: {error.ename}: {error.evalue}; executed copy: {executed}"
        ) from None
