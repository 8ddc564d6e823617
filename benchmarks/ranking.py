"""Time and memory of the evaluation at Market-1501's size, beside one that sorts every row.

    python benchmarks/ranking.py --labels=DIR

DIR holds the official label files (queryID.mat, queryCam.mat, testID.mat, testCam.mat); reading them needs
SciPy. Without them, labels are drawn with about the same statistics. Embeddings are drawn around a centre for
each person. Each way runs in a process of its own. Times are of the calls after the first, which compiles.
Memory is the most that was resident during any call, compilation included, beyond the process as it was
before the first: embeddings made, JAX started.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from mancs_jax.evaluation import metrics, ranking

LABEL_FILES = {"queryID": "queryID", "queryCam": "queryCAM", "testID": "testID", "testCam": "testCAM"}
STATUS = Path("/proc/self/status")  # Linux only; elsewhere no memory is reported


def official_labels(folder: Path) -> list[np.ndarray]:
    """Query pid and camid int32 [3368], gallery pid and camid int32 [19732], from the official files."""
    from scipy.io import loadmat

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


def counted_ranks(query: np.ndarray, gallery: np.ndarray, *labels: np.ndarray) -> float:
    """mAP by `mancs_jax.evaluation.ranking`."""
    return metrics.scores(ranking.hit_ranks(query, gallery, *labels))["mAP"]


def sorted_rows(query, gallery, query_pid, query_camid, gallery_pid, gallery_camid) -> float:
    """mAP the usual way: the whole distance matrix, an argsort of each row, then one query after the other."""
    distances = query @ gallery.T
    distances *= -2
    distances += np.vecdot(query, query)[:, None]
    distances += np.vecdot(gallery, gallery)[None]
    order = np.argsort(distances, axis=1)
    total = 0.0
    for row, pid, camid in zip(order, query_pid, query_camid, strict=True):
        row_pid = gallery_pid[row]
        same = row_pid == pid
        stays = (row_pid != -1) & ~(same & (gallery_camid[row] == camid))
        ranks = 1 + np.flatnonzero(same[stays])
        found = np.arange(1, len(ranks) + 1)
        before = np.where(ranks == 1, 1.0, (found - 1) / np.maximum(ranks - 1, 1))
        total += np.mean(before + found / ranks) / 2 if len(ranks) else 0.0
    return total / len(query)


def product_alone(query: np.ndarray, gallery: np.ndarray, *labels: np.ndarray) -> float:
    """Only the inner products of all pairs, in NumPy, 512 queries at a time: the least that any way must do."""
    products = np.empty((512, len(gallery)), np.float32)
    for start in range(0, len(query), 512):
        block = query[start : start + 512]
        np.matmul(block, gallery.T, out=products[: len(block)])
    return float("nan")


WAYS: dict[str, Callable[..., float]] = {
    "counted ranks (mancs_jax)": counted_ranks,
    "sorted rows (NumPy)": sorted_rows,
    "inner products alone (NumPy)": product_alone,
}


def resident_bytes(field: str) -> int:
    """VmRSS, resident now, or VmHWM, the most since the last reset, of this process."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])


def measure(way: str, width: int, labels_folder: Path | None, with_junk: bool, repeats: int) -> dict:
    """Seconds (median and best), peak bytes beyond the inputs, and the mAP; to be called in a fresh process."""
    rng = np.random.default_rng(1)
    labels = official_labels(labels_folder) if labels_folder else drawn_labels(rng)
    if not with_junk:
        labels[2:] = [label[labels[2] != -1] for label in labels[2:]]
    query, gallery = (drawn_embeddings(pid, width, rng) for pid in labels[::2])
    jax.jit(lambda x: x @ x.T)(np.ones((8, 8), np.float32)).block_until_ready()
    if STATUS.exists():
        Path("/proc/self/clear_refs").write_text("5")  # forget the highest memory use so far
        before = resident_bytes("VmRSS")
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        score = WAYS[way](query, gallery, *labels)
        seconds.append(time.perf_counter() - start)
    return {
        "way": way,
        "queries": len(query),
        "gallery": len(gallery),
        "width": width,
        "first_s": seconds[0],
        "median_s": statistics.median(seconds[1:]),
        "best_s": min(seconds[1:]),
        "peak_bytes": resident_bytes("VmHWM") - before if STATUS.exists() else None,
        "mAP": None if np.isnan(score) else float(score),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", type=Path, metavar="DIR", help="folder of the official label files")
    parser.add_argument("--widths", type=int, nargs="+", default=[512, 2048], help="embedding widths")
    parser.add_argument("--junk", action="store_true", help="leave the junk images (pid -1) in the gallery")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls, after the one that compiles")
    parser.add_argument("--json", action="store_true", help="print one JSON list in place of the table")
    parser.add_argument("--measure", choices=WAYS, help=argparse.SUPPRESS)  # what the fresh processes do
    flags = parser.parse_args()
    if flags.repeats < 1 or min(flags.widths) < 1:
        parser.error("--repeats and --widths must be at least 1")
    missing = [name for name in LABEL_FILES if flags.labels and not (flags.labels / f"{name}.mat").is_file()]
    if missing:
        parser.error(f"{flags.labels} has no {missing[0]}.mat: give the folder of the official label files")
    if flags.measure:
        row = measure(flags.measure, flags.widths[0], flags.labels, flags.junk, flags.repeats)
        print(json.dumps(row))
        return

    options = [f"--repeats={flags.repeats}", *(["--junk"] if flags.junk else [])]
    options += [f"--labels={flags.labels}"] if flags.labels else []
    rows = []
    for width in flags.widths:
        for way in WAYS:
            command = [sys.executable, __file__, f"--measure={way}", f"--widths={width}", *options]
            run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            rows.append(json.loads(run.stdout))
        ours = rows[-len(WAYS)]
        for row in rows[-len(WAYS) :]:
            row["times_ours"] = row["median_s"] / ours["median_s"]
    if flags.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{rows[0]['queries']} queries, {rows[0]['gallery']} gallery images, median of {flags.repeats}")
    print(f"{'':30} width  first s  median s  best s  x ours  peak MB   mAP %")
    for row in rows:
        memory = "-" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:.0f}"
        score = "-" if row["mAP"] is None else f"{100 * row['mAP']:.3f}"
        times = f"{row['first_s']:9.2f}{row['median_s']:10.2f}{row['best_s']:8.2f}{row['times_ours']:8.1f}"
        print(f"{row['way']:30}{row['width']:6}{times}{memory:>9}{score:>8}")


if __name__ == "__main__":
    main()
