"""What the benchmarks share: inputs of Market-1501's size, a fresh process for each way, time and memory."""

import gc
import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mancs_jax.evaluation.features import load_features
from mancs_jax.evaluation.protocols import Embedded

LABEL_FILES = {"queryID": "queryID", "queryCam": "queryCAM", "testID": "testID", "testCam": "testCAM"}
STATUS = Path("/proc/self/status")  # Linux only; elsewhere no memory is reported
SAMPLED_EVERY_S = 0.002


def add_input_flags(parser) -> None:
    """Adds --features and --labels, the sources of `market_size`."""
    parser.add_argument("--features", type=Path, metavar="FILE", help=".npz of embeddings, as for scripts/evaluate.py")
    parser.add_argument("--labels", type=Path, metavar="DIR", help="folder of the official label files (needs SciPy)")


def market_size(features: Path | None, labels: Path | None, width: int) -> tuple[Embedded, Embedded]:
    """Query and gallery without junk: from a file of features, or drawn around a centre for each person."""
    if features:
        read = load_features(features)
        query, gallery = read["query"], read["gallery"]
    else:
        rng = np.random.default_rng(1)
        query_pid, query_camid, gallery_pid, gallery_camid = official_labels(labels) if labels else drawn_labels(rng)
        query = Embedded(drawn_embeddings(query_pid, width, rng), query_pid, query_camid)
        gallery = Embedded(drawn_embeddings(gallery_pid, width, rng), gallery_pid, gallery_camid)
    return query, Embedded(*(field[gallery.pid != -1] for field in gallery))


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
    """What the function, of a module's top level, returns in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


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


def megabytes(size: int | None) -> str:
    """The size in MB for a table."""
    return "-" if size is None else f"{size / 1e6:.0f}"
