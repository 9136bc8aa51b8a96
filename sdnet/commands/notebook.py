"""Execute one notebook with papermill: strict about its parameters, over Unix sockets."""

import tempfile
from pathlib import Path

import nbformat
import papermill
from jupyter_client.manager import AsyncKernelManager
from nbconvert import HTMLExporter

from sdnet.experiments.results import write_text


class _SocketKernelManager(AsyncKernelManager):
    """Talks to its kernel over Unix sockets: parallel notebooks cannot clash on a TCP port, and nobody can listen."""

    def __init__(self, **options):
        super().__init__(**options)
        self.transport = "ipc"
        self._folder = tempfile.TemporaryDirectory(prefix="sdnet-")  # removed with this object
        self.ip = str(Path(self._folder.name) / "kernel")  # prefix of the sockets' names


def notebook(source: Path, parameters: dict[str, str], executed: Path, html: Path) -> None:
    """Run a notebook; keep the executed copy, up to the cell that failed if one does, and an HTML page of it.

    Raises:
        ValueError: if a parameter is not one that the notebook declares, or a cell fails.
    """
    declared = papermill.inspect_notebook(source)
    if unknown := set(parameters) - set(declared):
        raise ValueError(
            f"{source}: unknown parameters {', '.join(sorted(unknown))}; it declares {', '.join(declared) or 'none'}"
        )
    executed.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            source,
            executed,
            parameters,
            kernel_name="python3",
            progress_bar=False,
            kernel_manager_class=_SocketKernelManager,
        )
    except papermill.PapermillExecutionError as error:
        raise ValueError(
            f"{source} failed in cell [{error.exec_count}]: {error.ename}: {error.evalue}; executed copy: {executed}"
        ) from None
    page, _ = HTMLExporter(exclude_input_prompt=True).from_notebook_node(nbformat.read(executed, as_version=4))
    write_text(html, page)
