"""Run the notebook of the manual and store the outputs of its cells.

    python -m tools.notebook

Needs nbclient and ipykernel (the extra `test`).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from vtg.files.whole import write_whole

__all__ = ["NOTEBOOK", "run_notebook"]

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "examples" / "first_search.ipynb"
MAX_CELL_SECONDS = 300
SHOWN_FOLDER = "/home/me"  # replaces the folder in which the notebook ran


def run_notebook(path: Path, folder: Path) -> Any:
    """Run a notebook in a folder.

    Returns:
        The notebook (nbformat 4) with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=MAX_CELL_SECONDS, kernel_name="python3", resources=resources).execute()
    return notebook


def _clean(notebook: Any, folder: Path) -> None:
    """Remove what depends on the machine: warnings, times of execution, the folder."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.outputs:
            data = output.get("data", {})
            if "text/plain" in data:
                data["text/plain"] = data["text/plain"].replace(str(folder), SHOWN_FOLDER)
    notebook.metadata["language_info"] = {"name": "python"}


def main() -> None:
    """Run the notebook and overwrite its file."""
    import nbformat

    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory(prefix="vtg-notebook-") as scratch:
        folder = Path(scratch).resolve()
        notebook = run_notebook(NOTEBOOK, folder)
        _clean(notebook, folder)
    with write_whole(NOTEBOOK) as beside:
        nbformat.write(notebook, str(beside))
    print(f"{NOTEBOOK}: {NOTEBOOK.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
