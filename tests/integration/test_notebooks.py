"""The notebooks run from the first cell to the last, in a folder of their own, and are kept without output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

nbformat: Any = pytest.importorskip("nbformat", reason="needs jupyter (nbclient and ipykernel)")
nbclient: Any = pytest.importorskip("nbclient", reason="needs jupyter (nbclient and ipykernel)")
pytest.importorskip("ipykernel", reason="needs jupyter (nbclient and ipykernel)")

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks_and_each_is_listed() -> None:
    told = (NOTEBOOKS[0].parent / "README.md").read_text()
    assert len(NOTEBOOKS) >= 3
    assert all(f"({path.name})" in told for path in NOTEBOOKS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning", "ignore::ResourceWarning")
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
    nbclient.NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = [output for cell in cells for output in cell.outputs]
    assert [output for output in said if output.output_type == "error" or output.get("name") == "stderr"] == []
    assert len(said) >= 1
