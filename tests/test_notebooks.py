"""The notebooks of the families: committed without outputs, and they run. A notebook raises where
its data are not what theory says."""

from copy import deepcopy
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent.parent / "analysis" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SECONDS = 120  # for a cell
of_each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_every_family_has_one(root):
    families = {folder.name for folder in (root / "conf").iterdir() if folder.is_dir()} - {"hydra"}
    assert {path.stem for path in NOTEBOOKS} == families


@of_each
def test_committed_without_outputs(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    assert book.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert book.cells[0].source.startswith("# ")
    for cell in book.cells:
        assert not cell.metadata
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)


@pytest.mark.slow
@of_each
def test_runs_and_computes_nothing_twice(path, tmp_path):
    """As a user executes it, in a folder of its own; then its sweeps again, in the same kernel."""
    book = nbformat.read(path, as_version=4)
    sweeps = [cell for cell in book.cells if "api.sweep(" in cell.source]
    book.cells += deepcopy(sweeps)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(book, timeout=SECONDS, kernel_name="python3", resources=resources).execute()
    outputs = [out for cell in book.cells for out in cell.get("outputs", ()) if "data" in out]
    assert sum("image/png" in out.data for out in outputs) >= 3
    reports = [out.data["text/plain"] for out in outputs]
    reports = [text for text in reports if text.startswith("SweepReport(")]
    first, second = reports[: len(sweeps)], reports[len(sweeps) :]
    assert len(second) == len(sweeps) > 0
    assert all("done_before=0" in r and "failed=0, missing=0" in r for r in first)
    assert all("ok=0, diverged=0, failed=0, missing=0" in r for r in second)
