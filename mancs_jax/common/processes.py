"""Communication of several training processes, each with its own devices; with one process, nothing happens."""

import os
import re
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, PartitionSpec

from mancs_jax.common.out_of_memory import OUT_OF_MEMORY
from mancs_jax.common.quoted import reason_of
from mancs_jax.common.screen import tell

ASK_EVERY = 10  # steps
HEARTBEAT_TIMEOUT = 60  # seconds without a heartbeat after which JAX ends the other processes
CONNECT_TIMEOUT = 300.0  # seconds that process 0 may start later than the others
XLA_STATUS = re.compile("[A-Z_]+: ")  # begins an error of a collective operation: "UNKNOWN: Gloo all-reduce failed"
RESTART = (
    "start all processes again with the same command: training resumes from the latest checkpoint, where there is one"
)


def start(coordinator: str = "", num_processes: int = 0, process_id: int = -1) -> None:
    """Joins the other processes, before anything else asks JAX for its devices.

    The arguments, with `coordinator` "host:port" of process 0, are for processes that are started by hand; without
    them, SLURM, Kubernetes, MPI or a TPU pod supplies them. Raises ValueError where some are missing or `coordinator`
    has another form, where there is no cluster, or process 0 cannot be reached.
    """
    given = (bool(coordinator), num_processes > 0, process_id >= 0)
    if any(given) and not all(given):
        raise ValueError("--coordinator=HOST:PORT, --num_processes and --process_id go together")
    if coordinator and not _is_address(coordinator):
        raise ValueError(f"--coordinator={coordinator} is not HOST:PORT, as --coordinator=node0:12345")
    with _joining(), _without_proxies():
        address, process = (coordinator, process_id) if all(given) else _place_in_cluster()
    if process > 0 and _is_address(address):  # of another one, JAX reports what it is
        _wait_for(address)
    # Only for CPU, where processes cannot communicate without it.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    by_hand = {"coordinator_address": coordinator, "num_processes": num_processes, "process_id": process_id}
    with _joining(), _without_proxies():
        jax.distributed.initialize(
            **(by_hand if all(given) else {}),  # type: ignore[arg-type]
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
        )


def _place_in_cluster() -> tuple[str, int]:
    """(address of process 0, number of this process), as JAX detects them; ("", 0) where this JAX does not tell."""
    try:
        from jax._src.clusters import ClusterEnv  # no public function tells them before it connects

        detect = ClusterEnv.auto_detect_unset_distributed_params
        found = detect(os.environ.get("JAX_COORDINATOR_ADDRESS"), None, None, None, None, int(CONNECT_TIMEOUT))
        return found[0] or "", found[2] or 0
    except (ImportError, AttributeError, TypeError):  # another version of JAX
        return "", 0


@contextmanager
def _joining() -> Iterator[None]:
    """Makes errors of JAX's detection and connection one line (ValueError)."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        hint = "give --coordinator=HOST:PORT, --num_processes and --process_id where no cluster supplies them"
        raise ValueError(f"cannot join the other processes ({reason_of(error)}); {hint}") from error


def _is_address(coordinator: str) -> bool:
    host, _, port = coordinator.rpartition(":")
    return bool(host) and port.isdecimal() and 0 < int(port) < 2**16


def _wait_for(coordinator: str) -> None:
    """Waits until process 0 listens (ValueError, one line); JAX would abort with a page of addresses."""
    host, _, port = coordinator.rpartition(":")
    end = time.monotonic() + CONNECT_TIMEOUT
    is_told = False
    while True:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=5):
                return
        except OSError as error:
            if time.monotonic() > end:
                raise ValueError(
                    f"cannot join the other processes: process 0 does not answer at {coordinator} "
                    f"({reason_of(error)}); it has to run, and its port has to be open to this machine"
                ) from error
        if not is_told:
            tell(f"waiting for process 0 at {coordinator}, up to {CONNECT_TIMEOUT:.0f} s")
            is_told = True
        time.sleep(1)


@contextmanager
def _without_proxies() -> Iterator[None]:
    """Removes http_proxy and similar variables: gRPC would connect through the proxy, and wait for minutes."""
    proxies = {name: os.environ.pop(name) for name in list(os.environ) if name.lower().endswith("_proxy")}
    try:
        yield
    finally:
        os.environ.update(proxies)


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Ends this process of several at an error, with one line and exit status 1.

    JAX's shutdown waits for the other processes, which wait for this one: after a minute all would abort with a page of
    addresses. A process that waits for a lost one inside an accelerator gets no error; JAX aborts it after
    `HEARTBEAT_TIMEOUT`.
    """
    try:
        yield
    except Exception as error:
        if not jax.distributed.is_initialized():
            raise
        line = " ".join(str(error).split())
        if XLA_STATUS.match(line) and OUT_OF_MEMORY not in line:
            line = f"JAX failed, as it does where another process was lost ({reason_of(error)}); {RESTART}"
        elif not isinstance(error, (ValueError, OSError, ArithmeticError)):
            traceback.print_exc()
        tell(f"\ntrain: {line}")
        os._exit(1)


def is_writer() -> bool:
    """Returns whether this is the process that writes metrics, results and images."""
    return jax.process_index() == 0


def own_rows(devices: list[jax.Device]) -> np.ndarray:
    """Returns the indices of this process's devices among all that share a batch, int [local devices]."""
    return np.array([i for i, device in enumerate(devices) if device.process_index == jax.process_index()])


def any_process(flag: bool, step: int) -> bool:
    """Returns whether the flag is set in any process.

    Several processes communicate only every ASK_EVERY steps, because the host waits for the device; otherwise False.
    """
    if jax.process_count() == 1:
        return flag
    return step % ASK_EVERY == 0 and bool(multihost_utils.process_allgather(np.array(flag)).any())


def meet(where: str) -> None:
    """Waits until every process arrives."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(where)


def first_answer(ask: Callable[[], int]) -> int:
    """Returns the answer of process 0 in all processes, so that they act alike."""
    if jax.process_count() == 1:
        return ask()
    return int(multihost_utils.broadcast_one_to_all(np.array(int(ask()) if is_writer() else 0)))


def as_global(state: Any) -> Any:
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
    """Returns the rows of this process: equal shares, of which the last ones may be shorter."""
    size = -(-number // jax.process_count())
    return slice(min(jax.process_index() * size, number), min((jax.process_index() + 1) * size, number))


def gathered(rows: np.ndarray, number: int) -> np.ndarray:
    """Gathers the rows of all processes, [number, ...], from each one's share, [share, ...]."""
    if jax.process_count() == 1:
        return rows
    size = -(-number // jax.process_count())
    filled = np.zeros((size, *rows.shape[1:]), rows.dtype)
    filled[: len(rows)] = rows
    return multihost_utils.process_allgather(filled, tiled=True)[:number]
