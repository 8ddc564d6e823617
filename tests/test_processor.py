"""On a processor with AVX2 and without AVX-512, Eigen convolves; elsewhere, XLA's own choice stays."""

import os
import subprocess
import sys

import pytest

from mancs_jax.common import processor

AVX2 = "model name : AMD EPYC\nflags : fpu sse4_2 avx avx2 fma\n"
AVX512 = "model name : AMD EPYC\nflags : fpu sse4_2 avx avx2 fma avx512f avx512dq\n"
OLDER = "model name : Xeon\nflags : fpu sse4_2 avx\n"


@pytest.fixture
def flags_after(monkeypatch, tmp_path):
    """XLA_FLAGS after `prefer_eigen` on a machine with that /proc/cpuinfo."""

    def flags_after(cpuinfo, machine="x86_64", flags="", jaxlib=processor.KNOWN_TO[-1]):
        path = tmp_path / "cpuinfo"
        path.write_text(cpuinfo)
        monkeypatch.setattr(processor, "CPUINFO", path)
        monkeypatch.setattr(processor, "ACCELERATORS", ("compiler_of_an_accelerator",))
        monkeypatch.setattr(processor.platform, "machine", lambda: machine)
        monkeypatch.setattr(processor.metadata, "version", lambda _: jaxlib)
        monkeypatch.setenv("XLA_FLAGS", flags)
        processor.prefer_eigen()
        return os.environ["XLA_FLAGS"]

    return flags_after


def test_eigen_convolves_with_avx2_alone(flags_after):
    assert processor.EIGEN in flags_after(AVX2)
    assert not processor.ynnpack_convolves()
    for others in (AVX512, OLDER, ""):
        assert flags_after(others) == ""
        assert processor.ynnpack_convolves()
    assert flags_after(AVX2, machine="aarch64") == ""


def test_other_flags_stay_and_a_users_own_choice_counts(flags_after):
    assert flags_after(AVX2, flags="--xla_dump_to=d") == f"--xla_dump_to=d {processor.EIGEN}"
    own = f"{processor.OPTION}=LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
    assert flags_after(AVX2, flags=own) == own
    assert processor.ynnpack_convolves()


def test_an_option_that_may_stop_the_process_is_not_given(flags_after, monkeypatch, tmp_path):
    assert flags_after(AVX2, jaxlib="0.99.0") == ""
    (tmp_path / "compiler_of_an_accelerator").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert flags_after(AVX2) == ""


@pytest.mark.parametrize("eigen", [False, True])
def test_xla_hands_its_convolutions_to_the_library_that_the_flags_name(eigen):
    """In a process of its own: XLA reads its flags once."""
    program = """
import jax, jax.numpy as jnp
from functools import partial
from mancs_jax.models.convolution import convolve
arrays = jnp.zeros((8, 8, 8, 64)), jnp.zeros((3, 3, 64, 64))
# Without padding, the output has no more rows than the input: nothing keeps YNNPACK away.
print("__ynn_fusion" in jax.jit(partial(convolve, padding=0)).lower(*arrays).compile().as_text())
print("tensor<8x9x8x64xf32>" in jax.jit(partial(convolve, padding=1)).lower(*arrays).as_text())
"""
    if processor.metadata.version("jaxlib") not in processor.KNOWN_TO:
        pytest.skip("this jaxlib may not know the option")
    environment = os.environ | {"XLA_FLAGS": processor.EIGEN if eigen else "", "JAX_PLATFORMS": "cpu"}
    out = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert out.stdout.split() == [str(not eigen)] * 2
