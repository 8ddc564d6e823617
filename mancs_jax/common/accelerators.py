"""Detects an accelerator that JAX does not use: without a message, training would take days on the CPU."""

import os
import shutil
import subprocess
from pathlib import Path

import jax

from mancs_jax.common.environment import version_of

CUDA_PLUGINS = ("jax-cuda12-plugin", "jax-cuda13-plugin")
# The install cell of the notebooks has the same two. In /dev; the folder /dev/accel is for other devices.
TPU_FILES = ("accel[0-9]*", "vfio/[0-9]*")
TPU_NAMES = ("COLAB_TPU", "TPU_")  # variables of a TPU's machine begin so
SET_BY_JAX = ("TPU_LIBRARY_PATH", "TPU_ML_PLATFORM", "TPU_ML_PLATFORM_VERSION", "TPU_SKIP_MDS_QUERY")  # or for it
DEV = Path("/dev")


def unused_accelerator() -> str:
    """Returns a message where the machine has a GPU or TPU, but JAX computes on the CPU by default; otherwise "".

    Starts JAX's backend. `nvidia-smi` finds a GPU, files in /dev or variables a TPU.
    """
    if jax.default_backend() != "cpu" or _is_cpu_wanted():
        return ""
    if gpu := _nvidia_gpu():
        return f"this machine has a GPU ({gpu}), but JAX computes on the CPU: {_cuda_reason()}"
    if _has_tpu():
        return f"this machine has a TPU, but JAX computes on the CPU: {_tpu_reason()}"
    return ""


def _is_cpu_wanted() -> bool:
    return "cpu" in (jax.config.values["jax_platforms"] or "")


def _nvidia_gpu() -> str:
    """Returns the name of the first GPU; "" without one."""
    program = shutil.which("nvidia-smi")
    if not program:
        return ""
    try:
        command = [program, "--query-gpu=name", "--format=csv,noheader"]
        names = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return ""
    return names[0].strip() if names else ""


def _has_tpu() -> bool:
    is_named = any(name.startswith(TPU_NAMES) and name not in SET_BY_JAX for name in os.environ)
    return is_named or any(file for files in TPU_FILES for file in DEV.glob(files))


def _cuda_reason() -> str:
    install = 'pip install -U "mancs_jax[cuda12]"'
    plugins = {name: version for name in CUDA_PLUGINS if (version := version_of(name))}
    if not plugins:
        return f"its CUDA plugin is not installed; {install}"
    jaxlib = version_of("jaxlib")
    if jaxlib not in plugins.values():
        name, version = next(iter(plugins.items()))
        return f"{name} {version} does not fit jaxlib {jaxlib}; {install}, and restart Python"
    return "JAX could not start its CUDA plugin; see its warnings, and check the driver with nvidia-smi"


def _tpu_reason() -> str:
    install = 'pip install -U "mancs_jax[tpu]"'
    return f"libtpu is not installed; {install}" if not version_of("libtpu") else "another process may hold the TPU"
