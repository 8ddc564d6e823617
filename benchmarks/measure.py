"""Shared parts of the benchmarks: inputs of Market-1501's size, a process for each way, time, memory, results."""

import gc
import math
import multiprocessing
import os
import platform
import statistics
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
from cells import cell

from mancs_jax.common.atomic_write import write_json
from mancs_jax.common.processor import has, set_cpu_flags
from mancs_jax.evaluation.features import load_features
from mancs_jax.evaluation.labelled import Labelled

LABEL_FILES = {"queryID": "queryID", "queryCam": "queryCAM", "testID": "testID", "testCam": "testCAM"}
STATUS = Path("/proc/self/status")  # Linux only; elsewhere no memory is reported
SAMPLED_EVERY_S = 0.002
VECTORS = {"AVX-512": "avx512f", "AVX2": "avx2"}  # instructions, widest first, as /proc/cpuinfo names them
CPU_INFO, CPU_TIMES = Path("/proc/cpuinfo"), Path("/proc/stat")
PACKAGES = ("jax", "jaxlib", "flax", "numpy", "torch")


def add_input_flags(parser) -> None:
    """Adds --features and --labels, the sources of `market_size`."""
    parser.add_argument("--features", type=Path, metavar="FILE", help=".npz of embeddings, as for `mancs evaluate`")
    parser.add_argument("--labels", type=Path, metavar="DIR", help="folder of the official label files (needs SciPy)")


def market_size(features: Path | None, labels: Path | None, width: int) -> tuple[Labelled, Labelled]:
    """Query and gallery without junk: from a file of features, or drawn around a centre for each person."""
    if features:
        read = load_features(features)
        query, gallery = read["query"], read["gallery"]
    else:
        rng = np.random.default_rng(1)
        query_pid, query_camid, gallery_pid, gallery_camid = official_labels(labels) if labels else drawn_labels(rng)
        query = Labelled(drawn_embeddings(query_pid, width, rng), query_pid, query_camid)
        gallery = Labelled(drawn_embeddings(gallery_pid, width, rng), gallery_pid, gallery_camid)
    return query, Labelled(*(field[gallery.pid != -1] for field in gallery))


def official_labels(folder: Path) -> list[np.ndarray]:
    """Query pid and camid int32 [3368], gallery pid and camid int32 [19732], from the official files."""
    from scipy.io import loadmat

    if missing := [name for name in LABEL_FILES if not (folder / f"{name}.mat").is_file()]:
        raise FileNotFoundError(f"{folder} has no {missing[0]}.mat: give the folder of the official label files")

    labels = [loadmat(folder / f"{file}.mat")[key] for file, key in LABEL_FILES.items()]
    return [label.ravel().astype(np.int32) for label in labels]


def drawn_labels(rng: np.random.Generator) -> list[np.ndarray]:
    """Labels like the official ones: as many images of each kind, about 15 hits a query."""
    weight = rng.gamma(3.0, size=750)
    person = 1 + rng.choice(750, 13_115, p=weight / weight.sum())
    gallery_pid = np.concatenate([person, np.zeros(2_798), np.full(3_819, -1)]).astype(np.int32)
    rng.shuffle(gallery_pid)
    gallery_camid = rng.integers(1, 7, len(gallery_pid), dtype=np.int32)
    views = np.unique(np.stack([gallery_pid, gallery_camid], axis=1)[gallery_pid > 0], axis=0)
    query_pid, query_camid = views[np.sort(rng.permutation(len(views))[:3_368])].T
    return [query_pid, query_camid, gallery_pid, gallery_camid]


def drawn_embeddings(pid: np.ndarray, width: int, rng: np.random.Generator) -> np.ndarray:
    """Centres of the persons, of length about 1, plus noise of length about 2; float32 [N, width]."""
    centres = np.random.default_rng(0).standard_normal((1502, width), dtype=np.float32)
    embedding = rng.standard_normal((len(pid), width), dtype=np.float32)
    embedding *= 2
    for image in np.flatnonzero(pid > 0):
        embedding[image] += centres[pid[image]]
    embedding /= np.float32(np.sqrt(width))
    return embedding


def in_fresh_process(function: Callable, *arguments) -> Any:
    """Runs a function of a module's top level in a process of its own; returns its result."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


_sides: dict[str, Callable[[], Any]] = {}  # of this process, which `taking_turns` has started


def _start(name: str, create: Callable, arguments: tuple) -> None:
    _sides[name] = create(*arguments)


def _turn(name: str) -> Any:
    return _sides[name]()


def taking_turns(sides: dict[str, tuple], rounds: int) -> dict[str, list]:
    """Runs several sides one after the other, round by round, so that a busy machine slows all alike.

    Each has a process of its own, which sleeps while the others run: no side's threads are in another's way.

    Args:
      sides: name -> (function of a module's top level, arguments); the function gives what is called once a round.
        Sides start in this order.
      rounds: how often each is called, after a first time that compiles and is not counted.

    Returns:
      name -> what each of its calls returned.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # a GPU's memory is for all sides
    set_cpu_flags()  # for the processes below, as for every command
    context = multiprocessing.get_context("spawn")
    turns: dict[str, list] = {name: [] for name in sides}
    with ExitStack() as stack:
        pools = {name: stack.enter_context(ProcessPoolExecutor(1, mp_context=context)) for name in sides}
        for name, (create, *arguments) in sides.items():
            pools[name].submit(_start, name, create, tuple(arguments)).result()
            pools[name].submit(_turn, name).result()
        for _ in range(rounds):
            for name, pool in pools.items():
                turns[name].append(pool.submit(_turn, name).result())
    return turns


def measured(work: Callable[[], Any], repeats: int = 0, *, anonymous: bool = False) -> tuple[Any, dict]:
    """Calls `work` once, and then as often as it is to be repeated, after which times are of the repeats alone.

    Memory is the most that was resident during any call, compilation included, beyond the process as it was before
    the first: inputs made, JAX started.

    Args:
        work: to be called in a fresh process, after its inputs are made.
        repeats: calls after the first, which compiles.
        anonymous: whether only memory without a file behind it counts (RssAnon, sampled by a thread every 2 ms), and
            not what the kernel keeps of a memory-mapped file (as in VmHWM, which is exact).

    Returns:
        What the last call returned; first_s, median_s, peak_bytes (None where it cannot be read).
    """
    jax.jit(lambda x: x @ x.T)(np.ones((8, 8), np.float32)).block_until_ready()
    gc.collect()
    before, sampled, done = resident_bytes("RssAnon" if anonymous else "VmRSS"), [], threading.Event()

    def sample():
        while not done.wait(SAMPLED_EVERY_S):
            sampled.append(resident_bytes("RssAnon"))

    if before is not None and not anonymous:
        Path("/proc/self/clear_refs").write_text("5")  # forget the highest memory use so far
    sampler = threading.Thread(target=sample)
    if before is not None and anonymous:
        sampler.start()
    seconds, result = [], None
    for _ in range(repeats + 1):
        del result
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    done.set()
    if sampler.ident:
        sampler.join()
    most = max(sampled, default=None) if anonymous else resident_bytes("VmHWM")
    return result, {
        "first_s": seconds[0],
        "median_s": statistics.median(seconds[1:] or seconds),
        "peak_bytes": None if most is None else most - before,
    }


def resident_bytes(field: str) -> int | None:
    """VmRSS, resident now; RssAnon, that without a file behind it; VmHWM, the most since the last reset."""
    if not STATUS.exists():
        return None
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])


def megabytes(size: int | None) -> int | None:
    """The size in whole MB, for a table."""
    return None if size is None else round(size / 1e6)


def clocks() -> tuple[float, float, float]:
    """Seconds: wall clock, processor time of everything that runs, of this process and its ended children."""
    if not CPU_TIMES.exists():
        return time.monotonic(), math.nan, math.nan
    user, nice, system, _, _, *interrupts = CPU_TIMES.read_text().split("\n", 1)[0].split()[1:8]
    busy = sum(map(int, (user, nice, system, *interrupts))) / os.sysconf("SC_CLK_TCK")
    return time.monotonic(), busy, sum(os.times()[:4])


_began = clocks()


def cores_of_others() -> float | None:
    """Cores that other work had since this module was imported: it slows sides, and not all of them alike."""
    wall, busy, own = (now - then for now, then in zip(clocks(), _began))
    return None if math.isnan(busy) else max(0.0, (busy - own) / wall)


def about() -> dict[str, Any]:
    """Returns the origin of the figures: command, processor, cores, versions."""
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    vectors = next((name for name in VECTORS if has(VECTORS[name])), None)
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "command": " ".join([Path(sys.argv[0]).name, *map(_without_folders, sys.argv[1:])]),
        "cpu": (models[0] if models else platform.processor()) + (f" ({vectors})" if vectors else ""),
        "cores": os.cpu_count(),
        "versions": versions,
        "cores_that_other_work_had": cores_of_others(),
    }


def _without_folders(argument: str) -> str:
    """A path of this machine says nothing to others."""
    flag, _, value = argument.partition("=")
    return f"{flag}={Path(value).name}" if "/" in value else argument


def report(rows: list[dict[str, Any]], file: Path | None = None, **figures) -> None:
    """Prints rows as a Markdown table and, below it, other figures; writes all of them to a JSON file.

    Args:
      rows: column -> value, all rows with the same columns; None is an empty cell.
      file: JSON, with the machine and the versions; None writes none.
      figures: name -> number, of the whole table.
    """
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(map(cell, row.values())) + " |")
    print()
    made_with = about()
    for name, value in (figures | {"cores that other work had": made_with["cores_that_other_work_had"]}).items():
        print(f"{name.replace('_', ' ')}: {cell(value)}")
    if file:
        write_json(file, made_with | {"rows": rows} | figures)
