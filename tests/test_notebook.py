"""docs/notebook.ipynb, executed from its first cell to its last; only the installation is what .ci/run does."""

from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"
INSTALL = '%pip install -q "..[cpu]"'


def read():
    import nbformat

    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_kept_without_outputs():
    cells = [cell for cell in read().cells if cell.cell_type == "code"]
    assert cells and not [cell for cell in cells if cell.outputs or cell.execution_count]
    assert cells[0].source.startswith(INSTALL)


@pytest.mark.slow
def test_every_cell_runs(tmp_path):
    from nbclient import NotebookClient

    notebook = read()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    cells[0].source = cells[0].source.replace(INSTALL, "%pip --version")
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    kinds = [{kind for output in cell.outputs for kind in output.get("data", {})} for cell in cells]
    assert sum("image/png" in kind for kind in kinds) >= 4, kinds  # pictures, and what is named without a list
    assert (tmp_path / "notebook-run" / "report.html").is_file()
    assert "brick" in str(cells[4].outputs)
