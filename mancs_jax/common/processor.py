"""XLA's flags on a CPU (docs/benchmarks.md): LLVM's optimisation level, and YNNPACK or Eigen for convolutions."""

import importlib.util
import os
import platform
from pathlib import Path

from mancs_jax.common.xla_flags import is_known

# XLA's default, 3, takes up to twice as long to compile, for programs that are not faster.
LEVEL = "--xla_backend_optimization_level=2"
OPTION = "--xla_cpu_experimental_ynn_fusion_type"
CONVOLUTION = "LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
# XLA's default also contains CONVOLUTION.
EIGEN = f"{OPTION}=LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
ACCELERATORS = ("jax_plugins", "libtpu")  # packages with a compiler that also reads XLA_FLAGS
CPUINFO = Path("/proc/cpuinfo")


def set_cpu_flags() -> None:
    """Adds flags for a CPU to XLA_FLAGS: LLVM's level 2, and Eigen on x86 with AVX2 and without AVX-512.

    Call it before `mancs_jax.models` is imported and JAX computes anything; child processes inherit the flags. Flags
    that are set already are kept, and flags that the installed XLA does not know are not added. It has no effect where
    XLA_FLAGS names a file, or the compiler of an accelerator is installed.
    """
    flags = os.environ.get("XLA_FLAGS", "").strip()
    if any(map(importlib.util.find_spec, ACCELERATORS)) or (flags and not flags.startswith("-")):
        return
    wanted = [LEVEL] + ([EIGEN] if _eigen_is_faster() else [])
    added = [flag for flag in wanted if flag.partition("=")[0] not in flags and is_known(flag)]
    os.environ["XLA_FLAGS"] = " ".join([flags, *added]).strip()


def ynnpack_convolves() -> bool:
    """Returns whether XLA_FLAGS make YNNPACK, instead of Eigen, compute convolutions on CPU."""
    values = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if flag.startswith(f"{OPTION}=")]
    if not values:
        return True
    kinds = values[-1].partition("=")[2].split(",")
    if all(kind[:1] in ("+", "-") for kind in kinds):  # changes to XLA's default
        return f"-{CONVOLUTION}" not in kinds
    return CONVOLUTION in kinds


def has(instructions: str) -> bool:
    """Returns whether /proc/cpuinfo lists an instruction set, as "avx2"; False without that file."""
    return CPUINFO.exists() and instructions in CPUINFO.read_text().split()


def _eigen_is_faster() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64") and has("avx2") and not has("avx512f")
