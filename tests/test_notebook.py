"""The tour runs as it stands, from a fresh kernel."""

import pytest

nbclient = pytest.importorskip("nbclient")


@pytest.mark.slow
def test_the_tour_runs():
    import nbformat

    from tests.commands import ROOT

    folder = ROOT / "notebooks"
    notebook = nbformat.read(folder / "fume_tour.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # they would be of another machine
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    assert "report.html" in outputs[-1]["text"]
