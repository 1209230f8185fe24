"""Every notebook runs from its first cell to its last, and is stored with its outputs."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.filterwarnings("default")  # of the kernel's own libraries
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, monkeypatch, tmp_path):
    nbclient = pytest.importorskip("nbclient", reason="notebooks are run by nbclient, which is not installed")
    pytest.importorskip("ipykernel", reason="notebooks need ipykernel, which is not installed")
    nbformat = pytest.importorskip("nbformat")
    if "cvxpy" in path.stem:
        pytest.importorskip("cvxpy", reason="this notebook compares with CVXPY, which is not installed")
    if "learned" in path.stem:
        pytest.importorskip("torch", reason='this notebook trains with torch: pip install "bmsdp[learn]"')
        pytest.importorskip("sklearn", reason="this notebook reads scikit-learn's digits, and scikit-learn is not installed")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert outputs and not [output for output in outputs if output.output_type == "error"]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_with_outputs_and_without_paths(path):
    text = path.read_text()
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert len(text) < 500_000
    assert all(cell["execution_count"] == i for i, cell in enumerate(cells, 1))
    assert not [output for cell in cells for output in cell["outputs"] if output.get("name") == "stderr"]
    assert not [word for word in ("/home/", "/root/", "/tmp/", "/Users/", "C:\\\\") if word in text]
