"""XLA's options on a CPU. Eigen convolves with AVX2 and without AVX-512; elsewhere, XLA's own choice stays."""

import os
import platform

import pytest
from programs import printed_by

from mancs_jax.common import processor

AVX2 = "model name : AMD EPYC\nflags : fpu sse4_2 avx avx2 fma\n"
AVX512 = "model name : AMD EPYC\nflags : fpu sse4_2 avx avx2 fma avx512f avx512dq\n"
BOTH = f"{processor.LEVEL} {processor.EIGEN}"
OLDER = "model name : Xeon\nflags : fpu sse4_2 avx\n"


@pytest.fixture
def flags_after(monkeypatch, tmp_path):
    """XLA_FLAGS after `set_cpu_flags` on a machine with that /proc/cpuinfo."""

    def flags_after(cpuinfo, machine="x86_64", flags="", is_known=lambda flag: True):
        path = tmp_path / "cpuinfo"
        path.write_text(cpuinfo)
        monkeypatch.setattr(processor, "CPUINFO", path)
        monkeypatch.setattr(processor, "ACCELERATORS", ("compiler_of_an_accelerator",))
        monkeypatch.setattr(processor.platform, "machine", lambda: machine)
        monkeypatch.setattr(processor, "is_known", is_known)
        monkeypatch.setenv("XLA_FLAGS", flags)
        processor.set_cpu_flags()
        return os.environ["XLA_FLAGS"]

    return flags_after


def test_eigen_convolves_with_avx2_alone(flags_after):
    assert flags_after(AVX2) == BOTH
    assert not processor.ynnpack_convolves()
    for others in (AVX512, OLDER, ""):
        assert flags_after(others) == processor.LEVEL
        assert processor.ynnpack_convolves()
    assert flags_after(AVX2, machine="aarch64") == processor.LEVEL


def test_other_flags_stay_and_a_users_own_choice_counts(flags_after):
    assert flags_after(AVX2, flags="--xla_dump_to=d") == f"--xla_dump_to=d {BOTH}"
    own = "--xla_backend_optimization_level=0"
    assert flags_after(AVX2, flags=own) == f"{own} {processor.EIGEN}"
    assert flags_after(AVX2, flags=BOTH) == BOTH  # as in a process that a command starts
    for kinds, is_ynnpack in (
        (processor.CONVOLUTION, True),
        ("LIBRARY_FUSION_TYPE_REDUCE", False),
        (f"-{processor.CONVOLUTION}", False),
        ("+LIBRARY_FUSION_TYPE_ELTWISE", True),
    ):
        own = f"{processor.OPTION}={kinds}"
        assert flags_after(AVX2, flags=own) == f"{own} {processor.LEVEL}"
        assert processor.ynnpack_convolves() == is_ynnpack
    assert flags_after(AVX2, flags="flags.txt") == "flags.txt"  # XLA reads them from a file


def test_an_option_that_may_stop_the_process_is_not_given(flags_after, monkeypatch, tmp_path):
    assert flags_after(AVX2, is_known=lambda flag: flag != processor.EIGEN) == processor.LEVEL
    assert flags_after(AVX2, is_known=lambda flag: flag != processor.LEVEL) == processor.EIGEN
    assert flags_after(AVX2, flags="--xla_dump_to=d", is_known=lambda flag: False) == "--xla_dump_to=d"
    (tmp_path / "compiler_of_an_accelerator").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert flags_after(AVX2) == ""


def test_every_command_sets_them_before_jax_is_there(tmp_path):
    (tmp_path / "cpuinfo").write_text(AVX2)
    program = """
import importlib, os, pathlib, pkgutil, sys, types
from mancs_jax import cli
from mancs_jax.cli import command_line
from mancs_jax.common import processor
processor.CPUINFO, processor.ACCELERATORS = pathlib.Path(sys.argv[1]), ()
processor.platform.machine = lambda: "x86_64"
processor.is_known = lambda flag: True
for module in pkgutil.iter_modules(cli.__path__):
    if module.name != "__main__":
        importlib.import_module(f"mancs_jax.cli.{module.name}")
command = types.ModuleType("command", "A command.")
command.define, command.ARGUMENTS = (lambda values, argv: None), ()
command.main = lambda values, arguments: print(os.environ["XLA_FLAGS"])
command_line.run(command, ["command"])
"""
    assert printed_by(program, tmp_path / "cpuinfo", without=["XLA_FLAGS"]).strip() == BOTH


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="only known of x86")
@pytest.mark.parametrize("eigen", [False, True])
def test_xla_hands_its_convolutions_to_the_library_that_the_flags_name(eigen):
    """In a process of its own: XLA reads its flags once."""
    program = """
import jax, jax.numpy as jnp
from functools import partial
from mancs_jax.kernels.convolution import convolve
arrays = jnp.zeros((8, 8, 8, 64)), jnp.zeros((3, 3, 64, 64))
# Without padding, the output has no more rows than the input: nothing keeps YNNPACK away.
print("__ynn_fusion" in jax.jit(partial(convolve, padding=0)).lower(*arrays).compile().as_text())
print("tensor<8x9x8x64xf32>" in jax.jit(partial(convolve, padding=1)).lower(*arrays).as_text())
"""
    printed = printed_by(program, XLA_FLAGS=processor.EIGEN if eigen else "", JAX_PLATFORMS="cpu")
    assert printed.split() == [str(not eigen)] * 2
