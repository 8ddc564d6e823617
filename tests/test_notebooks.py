"""The notebooks run from top to bottom, at a tiny size."""

from pathlib import Path

import nbformat
import pytest
import tiny
from nbclient import NotebookClient

from mancs_jax.data import build
from mancs_jax.data.sources.market1501 import open_source

REPOSITORY = Path(__file__).parents[1]


def run_notebook(name, monkeypatch, **environment):
    for variable, value in environment.items():
        monkeypatch.setenv(variable, str(value))
    # The kernel's own startup has warnings that are not ours.
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    notebook = nbformat.read(REPOSITORY / "notebooks" / f"{name}.ipynb", as_version=4)
    NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(REPOSITORY)}}).execute()
    return "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))


@pytest.mark.filterwarnings("ignore")
def test_walkers(monkeypatch, tmp_path):
    # Prepared before, so that nothing is rendered: a few people in the same layout.
    source = tiny.write_folder(tmp_path / "source", people=40)
    with open_source(source) as contents:
        build.build(contents._replace(name="walkers"), tmp_path / "data")
    places = {"ROOT": tmp_path / "data", "WORKDIR": tmp_path / "run"}
    text = run_notebook("walkers", monkeypatch, **places, MAX_STEPS=1, ARCH="resnet10")
    assert "colour histogram" in text and "(5, 512) float32" in text
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.filterwarnings("ignore")
def test_market1501(monkeypatch, tmp_path):
    source = tiny.write_folder(tmp_path / "source", people=40)
    text = run_notebook(
        "market1501",
        monkeypatch,
        SOURCE=source,
        ROOT=tmp_path / "data",
        WORKDIR=tmp_path / "run",
        VARIANT="small",
        MAX_STEPS=1,
        ARCH="resnet10",
        ALLOW_DIFFERENCES="1",
        K1=5,
        K2=2,
    )
    assert "Mancs, multi-query (mean), re-ranked" in text and "for research only" in text
    assert any((tmp_path / "run" / "checkpoints").iterdir())
