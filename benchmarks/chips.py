"""Accelerators by their data sheets, and as devices that a compiler knows without the machine."""

import os
from typing import Any, NamedTuple


class Chip(NamedTuple):
    """Facts of the maker's data sheet. A GPU has the fields of its target as well, a TPU its topology."""

    name: str
    memory: float  # bytes
    bandwidth: float  # bytes/s
    flops: dict[str, float]  # dtype -> dense FLOP/s
    target: dict[str, Any] = {}
    topology: str = ""


def _gpu(cores: int, fpus: int, shared: int, optin: int, threads: int, cache: int, clock: float, capability: tuple):
    return {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "shared_memory_per_block": 49152,
        "shared_memory_per_core": shared,
        "threads_per_core_limit": threads,
        "core_count": cores,
        "fpus_per_core": fpus,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 65535,
        "block_dim_limit_z": 65535,
        "l2_cache_size": cache,
        "clock_rate_ghz": clock,
        "shared_memory_per_block_optin": optin,
        "registers_per_core_limit": 65536,
        "registers_per_block_limit": 65536,
        "cuda_compute_capability": capability,
    }


CHIPS = {
    "h100": Chip(
        "NVIDIA H100 80GB HBM3",
        84942979072,
        3352320000000,
        {"bfloat16": 989e12, "float32": 67e12},
        _gpu(132, 128, 233472, 232448, 2048, 52428800, 1.98, (9, 0)),
    ),
    "a100": Chip(
        "NVIDIA A100-SXM4-80GB",
        85095874560,
        2039000000000,
        {"bfloat16": 312e12, "float32": 19.5e12},
        _gpu(108, 64, 167936, 166912, 2048, 41943040, 1.41, (8, 0)),
    ),
    "t4": Chip(  # it has no bfloat16
        "Tesla T4",
        15843721216,
        320000000000,
        {"float32": 8.1e12},
        _gpu(40, 64, 65536, 65536, 1024, 4194304, 1.59, (7, 5)),
    ),
    "v5e": Chip("TPU v5e", 16 * 2**30, 819e9, {"bfloat16": 197e12, "float32": 197e12 / 6}, topology="v5e:2x{half}"),
    "v6e": Chip("TPU v6e", 32 * 2**30, 1640e9, {"bfloat16": 918e12, "float32": 918e12 / 6}, topology="v6e:2x{half}"),
}


def devices_of(chip: Chip, number: int) -> list:
    """The devices of a topology that is not there."""
    from jax.experimental import topologies

    if not chip.target:
        os.environ["TPU_SKIP_MDS_QUERY"] = "1"
        name = chip.topology.format(half=max(number // 2, 2))
        return list(topologies.get_topology_desc(platform="tpu", topology_name=name).devices)[:number]
    topology = topologies.get_topology_desc(
        platform="cuda", topology_name=chip.name, target_config=target_text(chip), topology=f"1x1x{number}"
    )
    return list(topology.devices)


def target_text(chip: Chip) -> str:
    """The facts of a GPU as XLA reads them: a protocol buffer as text."""
    fields = dict(chip.target)
    major, minor = fields.pop("cuda_compute_capability")
    fields |= {"memory_bandwidth": int(chip.bandwidth), "device_memory_size": int(chip.memory)}
    lines = [f"  {name}: {value}" for name, value in fields.items()]
    capability = f"  cuda_compute_capability {{ major: {major} minor: {minor} }}"
    return "\n".join(
        [
            "gpu_device_info {",
            *lines,
            capability,
            "}",
            'platform_name: "CUDA"',
            "dnn_version_info { major: 9 minor: 10 }",
            f'device_description_str: "{chip.name}"',
        ]
    )
