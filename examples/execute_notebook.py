"""Run a notebook from top to bottom and save its outputs in it: python examples/execute_notebook.py NOTEBOOK.ipynb."""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

LIMIT_SECONDS = 600  # a cell may take; the longest needs one minute of a core that it has to itself


def execute(notebook: NotebookNode, folder: Path) -> None:
    """Run every cell in a fresh kernel and put the outputs into the notebook.

    Args:
        notebook: what to run; changed in place.
        folder: where all is written: the notebook runs in `work` in there, its kernel has `home` for its own files.

    Raises:
        CellExecutionError: a cell raised.
        CellTimeoutError: a cell took too long.
    """
    work, home = folder / "work", folder / "home"
    for place in (work, home):
        place.mkdir(parents=True)
    places = ("HOME", "TMPDIR", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR", "XDG_CACHE_HOME")
    environment = os.environ | dict.fromkeys(places, str(home)) | {"PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("TORCHINDUCTOR_CACHE_DIR", None)  # torch sets it in whoever imports its compiler
    client = NotebookClient(
        notebook,
        timeout=LIMIT_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(work)}},
        record_timing=False,  # the clock would differ in every run
        coalesce_streams=True,
    )
    client.create_kernel_manager()
    client.km.connection_file = str(home / "kernel.json")
    client.execute(env=environment)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    page = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as temporary:
        execute(page, Path(temporary))
    nbformat.write(page, path)
