"""Which library convolves on a CPU. XLA has YNNPACK, its choice, and Eigen (docs/performance.md)."""

import importlib.util
import os
import platform
from importlib import metadata
from pathlib import Path

OPTION = "--xla_cpu_experimental_ynn_fusion_type"
CONVOLUTION = "LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
# XLA's own value has CONVOLUTION, too.
EIGEN = f"{OPTION}=LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
# The option is experimental, and XLA aborts on one that it does not know.
KNOWN_TO = ("0.10.2",)
ACCELERATORS = ("jax_plugins", "libtpu")  # packages with a compiler that reads XLA_FLAGS, too
CPUINFO = Path("/proc/cpuinfo")


def prefer_eigen() -> None:
    """Adds to XLA_FLAGS that Eigen convolves, on an x86 processor with AVX2 and without AVX-512.

    Call it before `mancs_jax.models` is imported and JAX computes anything. Processes that are started later inherit
    it. Without effect elsewhere, where XLA_FLAGS has the option already or names a file, and where a jaxlib or the
    compiler of an accelerator may not know the option.
    """
    flags = os.environ.get("XLA_FLAGS", "").strip()
    is_known = metadata.version("jaxlib") in KNOWN_TO and not any(map(importlib.util.find_spec, ACCELERATORS))
    is_free = OPTION not in flags and (not flags or flags.startswith("-"))
    if is_free and is_known and _eigen_is_faster():
        os.environ["XLA_FLAGS"] = f"{flags} {EIGEN}".strip()


def ynnpack_convolves() -> bool:
    """Tells by XLA_FLAGS whether XLA hands convolutions on CPU to YNNPACK; else they are Eigen's."""
    values = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if flag.startswith(f"{OPTION}=")]
    if not values:
        return True
    kinds = values[-1].partition("=")[2].split(",")
    if all(kind[:1] in ("+", "-") for kind in kinds):  # changes to XLA's own value
        return f"-{CONVOLUTION}" not in kinds
    return CONVOLUTION in kinds


def has(instructions: str) -> bool:
    """Tells whether /proc/cpuinfo names a set of instructions, as "avx2"; False where there is no such file."""
    return CPUINFO.exists() and instructions in CPUINFO.read_text().split()


def _eigen_is_faster() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64") and has("avx2") and not has("avx512f")
