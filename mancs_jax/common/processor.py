"""XLA's options on a CPU (docs/benchmarks.md): how much LLVM optimises, and whether YNNPACK or Eigen convolves."""

import importlib.util
import os
import platform
from pathlib import Path

from mancs_jax.common.xla_flags import is_known

# XLA's own value, 3, gives programs that are no faster, and takes up to twice as long to make them.
LEVEL = "--xla_backend_optimization_level=2"
OPTION = "--xla_cpu_experimental_ynn_fusion_type"
CONVOLUTION = "LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
# XLA's own value has CONVOLUTION, too.
EIGEN = f"{OPTION}=LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
ACCELERATORS = ("jax_plugins", "libtpu")  # packages with a compiler that reads XLA_FLAGS, too
CPUINFO = Path("/proc/cpuinfo")


def set_cpu_flags() -> None:
    """Adds to XLA_FLAGS what suits a CPU: LLVM's second level, and Eigen with AVX2 and without AVX-512 (x86).

    Call it before `mancs_jax.models` is imported and JAX computes anything. Processes that are started later inherit
    it. An option that XLA_FLAGS has already stays. Without effect where XLA_FLAGS names a file, and where the compiler
    of an accelerator is installed. An option that the installed XLA does not know is left out.
    """
    flags = os.environ.get("XLA_FLAGS", "").strip()
    if any(map(importlib.util.find_spec, ACCELERATORS)) or (flags and not flags.startswith("-")):
        return
    wanted = [LEVEL] + ([EIGEN] if _eigen_is_faster() else [])
    added = [flag for flag in wanted if flag.partition("=")[0] not in flags and is_known(flag)]
    os.environ["XLA_FLAGS"] = " ".join([flags, *added]).strip()


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
