"""The line about an accelerator that JAX does not use, with a made-up nvidia-smi and made-up versions."""

import os

import pytest

from mancs_jax.common import accelerators
from mancs_jax.common.accelerators import unused_accelerator

pytestmark = pytest.mark.quick


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Makes a machine: names that nvidia-smi prints (None: no such program), files in /dev, versions of packages."""

    def make(gpu: str | None = None, dev: tuple[str, ...] = (), status: int = 0, **versions: str):
        programs, devices = tmp_path / "bin", tmp_path / "dev"
        programs.mkdir()
        devices.mkdir()
        for name in dev:
            (devices / name).parent.mkdir(exist_ok=True)
            (devices / name).touch()
        for name in [name for name in os.environ if name.startswith(accelerators.TPU_NAMES)]:
            monkeypatch.delenv(name)
        if gpu is not None:
            program = programs / "nvidia-smi"
            program.write_text(f"#!/bin/sh\nprintf '{gpu}'\nexit {status}\n")
            program.chmod(0o755)
        monkeypatch.setenv("PATH", str(programs))
        monkeypatch.setattr(accelerators, "DEV", devices)
        monkeypatch.setattr(accelerators, "_is_cpu_wanted", lambda: False)
        known = {name.replace("_", "-"): version for name, version in versions.items()}
        monkeypatch.setattr(accelerators, "version_of", lambda name: known.get(name, ""))

    return make


def test_a_plugin_of_another_version(machine):
    machine("Tesla T4\\nTesla T4\\n", jaxlib="0.12.0.1", jax_cuda12_plugin="0.7.2")
    assert unused_accelerator() == (
        "this machine has a GPU (Tesla T4), but JAX computes on the CPU: jax-cuda12-plugin 0.7.2 does not fit jaxlib "
        '0.12.0.1; pip install -U "mancs_jax[cuda12]", and restart Python'
    )


def test_no_plugin(machine):
    machine("NVIDIA H100 80GB HBM3", jaxlib="0.10.2")
    assert "(NVIDIA H100 80GB HBM3)" in unused_accelerator() and "CUDA plugin is not installed" in unused_accelerator()


def test_a_plugin_that_fits_but_does_not_start(machine):
    machine("Tesla T4", jaxlib="0.10.2", jax_cuda13_plugin="0.10.2")
    assert "could not start its CUDA plugin" in unused_accelerator()


@pytest.mark.parametrize(("libtpu", "words"), [("", 'pip install -U "mancs_jax[tpu]"'), ("0.0.42", "may hold the TPU")])
def test_a_tpu(machine, libtpu, words):
    machine(dev=("accel0",), libtpu=libtpu)
    assert unused_accelerator().startswith("this machine has a TPU") and words in unused_accelerator()


@pytest.mark.parametrize("dev", ["vfio/0", ""])
@pytest.mark.parametrize("variable", ["TPU_WORKER_ID", "COLAB_TPU_ADDR", "TPU_ML_PLATFORM"])
def test_other_signs_of_a_tpu(machine, monkeypatch, dev, variable):
    """The last variable is JAX's own, on any machine with libtpu; /dev/vfio/vfio is on any machine with that driver."""
    machine(dev=("vfio/vfio", dev) if dev else ("vfio/vfio",))
    monkeypatch.setenv(variable, "0")
    assert bool(unused_accelerator()) == (bool(dev) or variable != "TPU_ML_PLATFORM")


@pytest.mark.parametrize(
    "options", [{}, {"gpu": ""}, {"gpu": "No devices were found", "status": 6}, {"dev": ("accel",)}]
)
def test_a_machine_without(machine, options):
    machine(**options)
    assert unused_accelerator() == ""


def test_who_asks_for_the_cpu_gets_no_line(machine, monkeypatch):
    machine("Tesla T4", jaxlib="0.10.2")
    monkeypatch.setattr(accelerators, "_is_cpu_wanted", lambda: True)
    assert unused_accelerator() == ""
