"""The programs for accelerators, which no test has: as they are lowered, and how the benchmark counts them."""

import re
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
import tiny

from mancs_jax.kernels import convolution
from mancs_jax.training.state import create_optimizer, create_train_state, learning_rate_schedule
from mancs_jax.training.step import donated_arguments, make_train_step

LAYERS = 12  # convolutions of a ResNet-10: the stem, two in each of four blocks, three shortcuts
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def traced_step() -> jax.stages.Traced:
    """The step of the tiny recipe in bfloat16."""
    config = tiny.get_config().unlock()
    config.dtype = "bfloat16"
    schedule = learning_rate_schedule(config, 3, 3)
    optimizer = create_optimizer(config, schedule)
    state = jax.eval_shape(partial(create_train_state, config, 12, optimizer))
    step = make_train_step(config, 12, optimizer, schedule, 3, jax.devices()[:1])
    image = jax.ShapeDtypeStruct((1, 16, *config.data.image_size, 3), jnp.uint8)
    return jax.jit(step).trace(state, image, jax.ShapeDtypeStruct((1, 16), jnp.int32))


@pytest.fixture(scope="module")
def traced() -> jax.stages.Traced:
    return traced_step()


def lowered(traced: jax.stages.Traced, platform: str) -> str:
    """The step for another platform, as text."""
    return traced.lower(lowering_platforms=(platform,)).as_text()


def cpu_paths(text: str, platform: str = "cuda") -> list[str]:
    """Names what a program has of the paths that only a CPU should take."""
    convolutions = re.findall(r"stablehlo\.convolution\(.*?\) dim_numbers = \[(.*?)\]x.*? : \((.*?)\) -> (\S+)", text)
    # Pixels have no gradient.
    found = [] if len(convolutions) == 3 * LAYERS - 1 else [f"{len(convolutions)} convolutions"]
    found += ["a convolution in float32" for _, operands, result in convolutions if "f32" in operands + result]
    found += ["a loop over chunks"] if "stablehlo.while" in text else []
    scatters = text.count('"stablehlo.select_and_scatter"')  # a GPU keeps the place of each maximum instead
    found += [f"{scatters} scatters of pooling"] if scatters != (platform == "tpu") else []
    return found


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_no_path_of_the_cpu_is_taken_elsewhere(traced, platform):
    assert cpu_paths(lowered(traced, platform), platform) == []


def test_a_path_of_the_cpu_would_be_seen(monkeypatch):
    forced = lambda *operands, cpu, **others: cpu(*operands)  # noqa: E731
    monkeypatch.setattr(convolution.lax, "platform_dependent", forced)
    jax.clear_caches()
    assert cpu_paths(lowered(traced_step(), "cuda")) != []
    jax.clear_caches()


def test_the_state_is_donated_where_no_one_reads_it_any_more():
    class Device:
        def __init__(self, platform):
            self.platform = platform

    assert donated_arguments([Device("gpu")] * 2) == donated_arguments([Device("tpu")]) == (0,)
    assert donated_arguments(jax.devices()) == ()


CONVOLUTION = 'dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convForward"'
HLO = f"""HloModule step

%fused (a: f32[4], b: f32[4]) -> f32[4] {{
  %a = f32[4]{{0}} parameter(0)
  %b = f32[4]{{0}} parameter(1)
  ROOT %sum = f32[4]{{0}} add(%a, %b)
}}

ENTRY %main (x: bf16[2,8,8,3], k: bf16[3,3,3,4]) -> f32[4] {{
  %x = bf16[2,8,8,3]{{3,2,1,0}} parameter(0)
  %k = bf16[3,3,3,4]{{3,2,1,0}} parameter(1)
  %conv = (bf16[2,8,8,4]{{3,2,1,0}}, u8[16]{{0}}) custom-call(%x, %k), {CONVOLUTION}
  %y = bf16[2,8,8,4]{{3,2,1,0}} get-tuple-element(%conv), index=0
  %part = bf16[1,8,8,4]{{3,2,1,0}} slice(%y), slice={{[0:1], [0:8], [0:8], [0:4]}}
  %z = f32[4]{{0}} reduce(%y), dimensions={{0,1,2}}
  ROOT %out = f32[4]{{0}} fusion(%z, %z), kind=kLoop, calls=%fused
}}
"""


def test_bytes_of_a_program_are_counted(load_benchmark):
    moved, convolutions, loops = load_benchmark("accelerators").count_text(HLO)
    x, k, y, workspace, z = 2 * 8 * 8 * 3 * 2, 3 * 3 * 3 * 4 * 2, 2 * 8 * 8 * 4 * 2, 16, 4 * 4
    # The convolution reads x and k, the slice half of y, the reduction y, the fusion z twice; what is in the fusion
    # moves nothing.
    assert moved == (x + k + y + workspace) + (y / 2 + y / 2) + (y + z) + (z + z + z)
    assert convolutions == {"bf16 b01f_o01i->b01f": 1} and loops == 0


def test_facts_of_a_gpu_are_text_that_xla_reads(load_benchmark):
    chips = load_benchmark("chips")
    text = chips.target_text(chips.CHIPS["h100"])
    assert "  core_count: 132\n" in text and "cuda_compute_capability { major: 9 minor: 0 }" in text
    assert "  memory_bandwidth: 3352320000000\n" in text and "  device_memory_size: 84942979072\n" in text


def test_lines_say_what_binds_and_what_does_not_fit(load_benchmark):
    accelerators, chips = load_benchmark("accelerators"), load_benchmark("chips")
    chip = chips.Chip("one", memory=1000.0, bandwidth=100.0, flops={"float32": 10.0})
    program = accelerators.Program(1.0, 500, 400, 700, 400, 50.0, 200, {}, 0)  # 500 + 400 - 400 + 700 bytes
    lines = accelerators.lines_of("step", 10, chip, "float32", program)
    assert lines[1].endswith("DOES NOT FIT") and "bound by arithmetic: 5000.0 ms, 2 images/s" in lines[2]
    smaller = program._replace(temporaries=100, flops=1.0)
    lines = accelerators.lines_of("step", 10, chip, "float32", smaller)
    assert lines[1].endswith("; fits") and "bound by memory: 2000.0 ms" in lines[2]
