"""Training on many machines: each process has its devices, and what they do together goes through here.

With one process all of this does nothing.
"""

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, PartitionSpec

ASK_EVERY = 10  # steps


def start(coordinator: str = "", num_processes: int = 0, process_id: int = -1) -> None:
    """Joins the other processes, before anything else asks JAX for its devices.

    Args:
      coordinator: "host:port" of process 0; with the other two, for processes that are started by hand. Without them
        SLURM, Kubernetes, MPI or a TPU pod says who takes part.
      num_processes: of all machines.
      process_id: of this one, from 0.

    Raises:
      ValueError: some of the three are given and not the others, no cluster is found, or process 0 is out of reach.
    """
    given = (bool(coordinator), num_processes > 0, process_id >= 0)
    if any(given) and not all(given):
        raise ValueError("--coordinator=HOST:PORT, --num_processes and --process_id go together")
    # Of no effect elsewhere; without it, processes on CPU cannot talk to each other.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    arguments = (coordinator, num_processes, process_id) if all(given) else ()
    try:
        jax.distributed.initialize(*arguments)
    except (RuntimeError, ValueError) as error:
        hint = "give --coordinator=HOST:PORT, --num_processes and --process_id where no cluster says who takes part"
        raise ValueError(f"cannot join the other processes ({str(error).splitlines()[0]}); {hint}") from error


def is_writer() -> bool:
    """Tells if this process writes metrics, results and pictures; one process does."""
    return jax.process_index() == 0


def own_rows(devices: list[jax.Device]) -> np.ndarray:
    """Positions of this process's devices among all that share a batch, int [local devices]."""
    return np.array([i for i, device in enumerate(devices) if device.process_index == jax.process_index()])


def any_process(flag: bool, step: int) -> bool:
    """Tells if the flag is set in any process.

    Several processes ask each other every ASK_EVERY steps alone, and answer False between: the answer makes the host
    wait for the device.
    """
    if jax.process_count() == 1:
        return flag
    return step % ASK_EVERY == 0 and bool(multihost_utils.process_allgather(np.array(flag)).any())


def of_all(state: Any) -> Any:
    """Converts pmap's process-local replicas into the global arrays that Orbax needs."""
    if jax.process_count() == 1:
        return state
    mesh = Mesh(np.array(jax.devices()), "devices")
    return jax.tree.map(
        lambda leaf: (
            multihost_utils.host_local_array_to_global_array(leaf, mesh, PartitionSpec())
            if leaf.is_fully_addressable
            else leaf
        ),
        state,
    )


def share(number: int) -> slice:
    """The part of so many rows that is this process's: equal shares, but for the last ones, which may be short."""
    size = -(-number // jax.process_count())
    return slice(min(jax.process_index() * size, number), min((jax.process_index() + 1) * size, number))


def gathered(rows: np.ndarray, number: int) -> np.ndarray:
    """The rows of all processes' shares, [number, ...], from this process's, [share, ...]."""
    if jax.process_count() == 1:
        return rows
    size = -(-number // jax.process_count())
    filled = np.zeros((size, *rows.shape[1:]), rows.dtype)
    filled[: len(rows)] = rows
    return multihost_utils.process_allgather(filled, tiled=True)[:number]
