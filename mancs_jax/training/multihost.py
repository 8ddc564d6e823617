"""Training on many machines: each process has its devices, and what they do together goes through here.

With one process all of this does nothing.
"""

import atexit
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import jax
import numpy as np
from jax._src import distributed  # its client has no public name; Orbax takes it from here, too
from jax.experimental import multihost_utils
from jax.sharding import Mesh, PartitionSpec

from mancs_jax.common.out_of_memory import OUT_OF_MEMORY

ASK_EVERY = 10  # steps
BEATS = "mancs_jax/beat"  # keys of the store that all processes share
LOOK = 5.0  # seconds that the disk has for an answer
BEAT, SILENCE = 5.0, 60.0  # seconds between beats; without one for so long, a process is lost
DONE = "done"


def start(
    coordinator: str = "",
    num_processes: int = 0,
    process_id: int = -1,
    latest_step: Callable[[], int | None] = lambda: None,
) -> None:
    """Joins the other processes, before anything else asks JAX for its devices.

    Args:
      coordinator: "host:port" of process 0; with the other two, for processes that are started by hand. Without them
        SLURM, Kubernetes, MPI or a TPU pod says who takes part.
      num_processes: of all machines.
      process_id: of this one, from 0.
      latest_step: of the checkpoints on the disk, None without one: from there the run goes on after a loss.

    Raises:
      ValueError: some of the three are given and not the others, the coordinator is no "host:port", no cluster is
        found, or process 0 is out of reach.
    """
    given = (bool(coordinator), num_processes > 0, process_id >= 0)
    if any(given) and not all(given):
        raise ValueError("--coordinator=HOST:PORT, --num_processes and --process_id go together")
    if coordinator and not _is_address(coordinator):
        raise ValueError(f"--coordinator={coordinator} is no HOST:PORT: give --coordinator=HOST:PORT, as node0:12345")
    # Of no effect elsewhere; without it, processes on CPU cannot talk to each other.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    arguments = (coordinator, num_processes, process_id) if all(given) else ()
    try:
        with _without_proxies():
            jax.distributed.initialize(*arguments)
    except (RuntimeError, ValueError) as error:
        hint = "give --coordinator=HOST:PORT, --num_processes and --process_id where no cluster says who takes part"
        raise ValueError(f"cannot join the other processes ({str(error).splitlines()[0]}); {hint}") from error
    _start_watch(latest_step)


def _is_address(coordinator: str) -> bool:
    host, _, port = coordinator.rpartition(":")
    return bool(host) and port.isdecimal() and 0 < int(port) < 2**16


@contextmanager
def _without_proxies() -> Iterator[None]:
    """Hides http_proxy and its like: gRPC would ask a proxy for the way to a neighbour, and wait for minutes."""
    proxies = {name: os.environ.pop(name) for name in list(os.environ) if name.lower().endswith("_proxy")}
    try:
        yield
    finally:
        os.environ.update(proxies)


def _watch(client: Any, own: int, others: Sequence[int], latest_step: Callable[[], int | None]) -> None:
    """Beats for this process, and ends it in one line where another one has stopped to beat.

    JAX would end it after 100 seconds, in an abort with a page of addresses. The main thread cannot say anything: it
    waits for the lost process.
    """
    last = dict.fromkeys(others, ("", time.monotonic()))
    for beat in itertools.count():
        try:
            client.key_value_set(f"{BEATS}/{own}", str(beat), allow_overwrite=True)
        except jax.errors.JaxRuntimeError:  # the run is over, and the store is closed
            return
        time.sleep(BEAT)
        for other in others:
            found = _beat_of(client, other)
            if found != last[other][0]:
                last[other] = (found, time.monotonic())
            elif found != DONE and time.monotonic() - last[other][1] > SILENCE:
                _tell_of_loss(other, latest_step)
                os._exit(1)


def _tell_of_loss(process: int, latest_step: Callable[[], int | None]) -> None:
    found: list[int | None] = []

    def look() -> None:
        with suppress(Exception):
            found.append(latest_step())

    # The disk may have gone with the process, and then answers nobody.
    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(LOOK)
    if not found:
        then = "they go on from the latest checkpoint"
    elif found[0] is None:
        then = "they begin again, for there is no checkpoint"
    else:
        then = f"they go on from step {found[0]}"
    print(
        f"\ntrain: process {process} was lost; start all processes again with the same command: {then}",
        file=sys.stderr,
        flush=True,
    )


def _beat_of(client: Any, process: int) -> str:
    try:
        return client.key_value_try_get(f"{BEATS}/{process}")
    except jax.errors.JaxRuntimeError:  # it has not beaten yet
        return ""


def _start_watch(latest_step: Callable[[], int | None]) -> None:
    state: Any = distributed.global_state
    others = [process for process in range(state.num_processes) if process != state.process_id]
    watch = partial(_watch, state.client, state.process_id, others, latest_step)
    threading.Thread(target=watch, name="watch", daemon=True).start()
    # Registered after JAX's own, so it runs before JAX leaves the others.
    atexit.register(state.client.key_value_set, f"{BEATS}/{state.process_id}", DONE, allow_overwrite=True)


@contextmanager
def leaving_lost_processes_to_the_watch() -> Iterator[None]:
    """Holds an error back while another process may be lost: the watch then ends this one, and says which it was."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, OSError) as error:
        if jax.process_count() > 1 and OUT_OF_MEMORY not in str(error):
            time.sleep(SILENCE + 3 * BEAT)
        raise


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


def meet(where: str) -> None:
    """Waits until every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(where)


def of_first(ask: Callable[[], bool]) -> bool:
    """Asks process 0 alone, and tells all: what is done together must not depend on what each one sees."""
    if jax.process_count() == 1:
        return ask()
    return bool(multihost_utils.broadcast_one_to_all(np.array(is_writer() and ask())))


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
