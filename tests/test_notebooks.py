"""The notebooks run from top to bottom, at a tiny size, and install the package wherever they are opened.

`.ci/colab` runs their install cell in an environment like Colab's.
"""

import csv
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
from importlib import metadata
from pathlib import Path

import pytest
import tiny

from mancs_jax.common import accelerators
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


@pytest.mark.filterwarnings("ignore")
def test_market1501_with_own_images(monkeypatch, tmp_path):
    """A CSV selects fine-tuning; the pretrained model is evaluated on the same people."""
    source = tiny.write_folder(tmp_path / "source", people=6)
    splits = {"bounding_box_train": "train", "query": "query", "bounding_box_test": "gallery"}
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "pid", "camid", "split"))
        for path in sorted(source.glob("*/*.jpg")):
            if split := splits.get(path.parent.name):
                person, camera = re.match(r"(-?\d+)_c(\d)", path.name).groups()
                rows.writerow((path.relative_to(source), int(person), camera, split))
    places = {"SOURCE": source, "CSV": tmp_path / "labels.csv", "ROOT": tmp_path / "data", "WORKDIR": tmp_path / "run"}
    text = run_notebook("market1501", monkeypatch, **places, MAX_STEPS=1, K1=5, K2=2)
    assert "| Mancs, re-ranked" in text and "| pretrained: Mancs, re-ranked" in text and "multi-query" not in text
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["recipe"] == "finetune" and config["pretrained"] == "market1501" and config["batch_norm_frozen"]
    assert (config["data"]["validation_ids"], config["data"]["p"]) == (2, 4)


def cells(name):
    return nbformat.read(REPOSITORY / "notebooks" / f"{name}.ipynb", as_version=4).cells


def install_cell(name):
    return next(cell.source for cell in cells(name) if cell.cell_type == "code")


@pytest.fixture
def install(monkeypatch, tmp_path):
    """Runs the install cell in an empty folder, with made-up programs, versions and modules, and without the constant.

    Its function returns the names that the cell defines and the arguments that pip got, or None if pip was not called.
    """
    for variable in os.environ:
        if variable.startswith(("REPOSITORY", "COLAB_", "KMP_TARGET_PORT", "TPU_")):
            monkeypatch.delenv(variable)
    programs, folder = tmp_path / "bin", tmp_path / "folder"
    programs.mkdir()
    folder.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.chdir(folder)

    def run(gpu: str = "", pip_status: int = 0, loaded: tuple[str, ...] = (), **versions: str):
        if gpu:
            (programs / "nvidia-smi").write_text(f"#!/bin/sh\n{gpu}\n")
            (programs / "nvidia-smi").chmod(0o755)
        calls = []

        def version(package):
            if package not in versions:
                raise metadata.PackageNotFoundError(package)
            before, _, after = versions[package].partition(" -> ")
            return after if after and calls else before

        def pip(command, **options):
            if command[0] == "nvidia-smi":
                return real_run(command, **options)
            assert command[:5] == [sys.executable, "-m", "pip", "install", "--quiet"]
            calls.append(command[5:])
            return subprocess.CompletedProcess(command, pip_status)

        real_run = subprocess.run
        with monkeypatch.context() as patched:
            patched.setattr(subprocess, "run", pip)
            patched.setattr(metadata, "version", version)
            patched.setattr(
                sys, "modules", {k: v for k, v in sys.modules.items() if k != "jax"} | dict.fromkeys(loaded)
            )
            names: dict = {}
            try:
                exec(re.sub('^REPOSITORY = ".*?"', 'REPOSITORY = ""', install_cell("walkers"), flags=re.M), names)
            except SystemExit as stop:
                names["stop"] = str(stop)
        return names, calls[0] if calls else None

    return run


GITHUB = "https://github.com/some-body/mancs.jax"
TESLA = "echo 'GPU 0: Tesla T4 (UUID: GPU-0)'"


def test_both_notebooks_install_the_package_in_the_same_way():
    assert install_cell("walkers") == install_cell("market1501")


def test_nothing_is_installed_where_the_package_is(install):
    names, arguments = install(mancs_jax="0.2.0")
    assert arguments is None and "stop" not in names and names["WORKDIRS"] == Path("workdirs")


def test_the_checkout_around_a_notebook_is_installed(install, monkeypatch):
    monkeypatch.chdir(REPOSITORY / "notebooks")
    assert install()[1] == ["-e", str(REPOSITORY)]
    assert install(gpu=TESLA)[1] == ["-e", f"{REPOSITORY}[cuda12]"]


@pytest.mark.parametrize("address", [GITHUB, f"{GITHUB}.git"])
def test_the_repository_of_the_variable_is_installed(install, monkeypatch, address):
    monkeypatch.setenv("REPOSITORY", address)
    assert install()[1] == [f"mancs_jax @ git+{GITHUB}"]


def test_the_constant_has_precedence_over_the_variable(install, monkeypatch):
    monkeypatch.setenv("REPOSITORY", "https://github.com/another/one")
    names, _ = install(mancs_jax="0.2.0")
    assert names["repository"]() == "https://github.com/another/one"
    names["REPOSITORY"] = f"{GITHUB}.git"
    assert names["repository"]() == GITHUB


def test_the_repository_that_colab_opened_is_installed(install, monkeypatch):
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
        monkeypatch.setenv("COLAB_JUPYTER_IP", "127.0.0.1")
        monkeypatch.setenv("KMP_TARGET_PORT", str(server.server_port))
        assert install()[1] == [f"mancs_jax @ git+{GITHUB}"]
        server.shutdown()


@pytest.mark.parametrize("is_colab", [False, True])
def test_without_an_address_there_is_one_line(install, monkeypatch, is_colab):
    if is_colab:  # whose server does not answer
        monkeypatch.setenv("COLAB_JUPYTER_IP", "127.0.0.1")
        monkeypatch.setenv("KMP_TARGET_PORT", "1")
    names, arguments = install()
    assert arguments is None
    assert names["stop"].startswith("mancs_jax is not installed: ") and "REPOSITORY" in names["stop"]


def test_notebooks_and_package_know_a_tpu_by_the_same_signs():
    source = install_cell("walkers")
    assert all(f'"{sign}"' in source for sign in (*accelerators.TPU_FILES, *accelerators.TPU_NAMES))


@pytest.mark.parametrize(
    ("gpu", "variable", "extra"),
    [
        (TESLA, "", "[cuda12]"),
        ("echo NVIDIA-SMI has failed because it could not communicate with the driver; exit 9", "", ""),
        ("echo No devices found.", "", ""),
        ("", "TPU_ACCELERATOR_TYPE", "[tpu]"),
        ("", "COLAB_TPU_ADDR", "[tpu]"),
        ("", "", ""),
    ],
)
def test_the_extra_is_that_of_the_accelerator(install, monkeypatch, gpu, variable, extra):
    monkeypatch.setenv("REPOSITORY", GITHUB)
    if variable:
        monkeypatch.setenv(variable, "v5e-1")
    assert install(gpu=gpu)[1] == [f"mancs_jax{extra} @ git+{GITHUB}"]


@pytest.mark.parametrize(
    ("loaded", "numpy", "stops"),
    [((), "2.0.2", False), (("jax",), "2.0.2", True), ((), "2.0.2 -> 2.5.5", True), (("jax",), "2.0.2 -> 2.5.5", True)],
)
def test_a_restart_where_this_process_has_old_versions(install, monkeypatch, loaded, numpy, stops):
    monkeypatch.setenv("REPOSITORY", GITHUB)
    names, _ = install(loaded=loaded, numpy=numpy)
    assert names.get("stop") == (
        "mancs_jax is installed: restart the kernel, then run all cells again" if stops else None
    )


def test_colab_is_restarted_by_a_signal(install, monkeypatch, capsys):
    signals = []
    monkeypatch.setattr(os, "kill", lambda *arguments: signals.append(arguments))
    monkeypatch.setenv("COLAB_JUPYTER_IP", "127.0.0.1")
    monkeypatch.setenv("REPOSITORY", GITHUB)
    install(loaded=("jax",))
    assert signals == [(os.getpid(), signal.SIGKILL)]
    assert "the runtime restarts: run all cells again" in capsys.readouterr().out


def test_a_failure_of_pip_stops_the_notebook(install, monkeypatch):
    monkeypatch.setenv("REPOSITORY", GITHUB)
    assert install(pip_status=1)[0]["stop"] == "pip could not install mancs_jax; its message is above"


@pytest.mark.parametrize("name", ["walkers", "market1501"])
def test_an_unused_accelerator_stops_the_notebook(name, monkeypatch):
    """The cell after the installation, where JAX computes on the CPU of a machine that has a GPU."""
    second = [cell.source for cell in cells(name) if cell.cell_type == "code"][1]
    monkeypatch.setattr(accelerators, "_is_cpu_wanted", lambda: False)
    monkeypatch.setattr(accelerators, "_nvidia_gpu", lambda: "Tesla T4")
    with pytest.raises(SystemExit, match=r"^this machine has a GPU \(Tesla T4\), but JAX computes on the CPU"):
        exec(second, {"os": os, "Path": Path, "WORKDIRS": Path("workdirs")})


def test_the_tutorial_was_run_from_top_to_bottom():
    """The outputs in it are of one run, and it was not changed after it."""
    code = [cell for cell in cells("walkers") if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not any(output.get("name") == "stderr" or output.output_type == "error" for output in outputs)
    pictures = [output for output in outputs if {"image/jpeg", "image/svg+xml"} & set(output.get("data", {}))]
    assert len(pictures) == 5
