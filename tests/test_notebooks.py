"""The notebooks run from top to bottom, at a tiny size, and find the package wherever they are opened."""

import http.server
import importlib.util
import json
import os
import re
import threading
from pathlib import Path

import pytest
import tiny

from mancs_jax.data import build
from mancs_jax.data.sources.market1501 import open_source

nbformat = pytest.importorskip("nbformat")
NotebookClient = pytest.importorskip("nbclient").NotebookClient
REPOSITORY = Path(__file__).parents[1]


def run_notebook(name, monkeypatch, **environment):
    for variable, value in environment.items():
        monkeypatch.setenv(variable, str(value))
    # One device: a checkpoint of a state on eight makes Orbax compile a hundred programs that cut it into slices.
    monkeypatch.setenv("XLA_FLAGS", re.sub(r"(device_count)=\d+", r"\1=1", os.environ["XLA_FLAGS"]))
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
    assert "colour histogram" in text and "(5, 384) float32" in text
    assert "epoch 1: mean rank 40, deviation 15.00" in text and "epoch 3: mean rank 0, deviation 15.00" in text
    assert "drawn ranks [0, 0, 0, 0, 0, 0, 0, 0]" in text  # epoch 6
    assert "| batch-hard |" in text
    assert (tmp_path / "run" / "report.html").exists() and (tmp_path / "run_batch_hard" / "report.html").exists()


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


NAMES = ("walkers", "market1501")


def cells(name):
    return nbformat.read(REPOSITORY / "notebooks" / f"{name}.ipynb", as_version=4).cells


def setup_of(name):
    return next(cell.source for cell in cells(name) if "def missing_package" in cell.source)


@pytest.fixture
def missing_package(monkeypatch):
    """The function of the notebooks, where the package is not installed and no variable says anything."""
    for variable in ("REPOSITORY", "COLAB_JUPYTER_IP", "KMP_TARGET_PORT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    names: dict = {}
    exec(setup_of("walkers").partition("\n\n\nif package")[0], names)
    return names["missing_package"]


def test_the_notebooks_find_the_package_in_one_way():
    assert setup_of("walkers") == setup_of("market1501")


def test_nothing_is_installed_where_the_package_is(missing_package, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert missing_package() == ""


def test_the_checkout_around_a_notebook_is_installed(missing_package, monkeypatch):
    monkeypatch.chdir(REPOSITORY / "notebooks")
    assert missing_package() == f"-e {REPOSITORY}"


@pytest.mark.parametrize(
    "address", ["https://github.com/some-body/mancs.jax", "https://github.com/some-body/mancs.jax.git"]
)
def test_an_address_that_is_given_is_installed(missing_package, monkeypatch, tmp_path, address):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REPOSITORY", address)
    assert missing_package() == "git+https://github.com/some-body/mancs.jax"


def test_colab_says_which_repository_it_opened(missing_package, monkeypatch, tmp_path):
    """Against a server that answers as Colab's: a list of sessions, the address quoted."""
    path = "fileId=https%3A//github.com/some-body/mancs.jax/blob/main/notebooks/walkers.ipynb"

    class Sessions(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(
                json.dumps([{"path": path, "name": "walkers.ipynb"}] if self.path == "/api/sessions" else []).encode()
            )

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Sessions) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("COLAB_JUPYTER_IP", "127.0.0.1")
        monkeypatch.setenv("KMP_TARGET_PORT", str(server.server_port))
        assert missing_package() == "git+https://github.com/some-body/mancs.jax"
        server.shutdown()


def test_without_an_address_there_is_one_line(missing_package, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="^no mancs_jax here: .* REPOSITORY"):
        missing_package()


def test_the_tutorial_was_run_from_top_to_bottom():
    """The outputs in it are of one run, and it was not changed after it."""
    code = [cell for cell in cells("walkers") if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not any(output.get("name") == "stderr" or output.output_type == "error" for output in outputs)
    pictures = [output for output in outputs if {"image/jpeg", "image/svg+xml"} & set(output.get("data", {}))]
    assert len(pictures) == 5
