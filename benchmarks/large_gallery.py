"""Time and memory of ranking Market-1501's queries in its gallery with 500,000 distractors.

    python benchmarks/large_gallery.py [--in_memory] [--labels=DIR]

Embeddings are drawn at random. They are written a block at a time to a .npy file in a temporary folder (1.1 GB at width
512; TMPDIR names the folder). Ranking reads them memory-mapped, or into memory with --in_memory. It runs in a process
of its own.

Memory is that of the process beyond the embeddings, without a file behind it (RssAnon of /proc/self/status, sampled
every 2 ms). Pages of the memory-mapped file do not count, because the kernel can take them back.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from measure import drawn_embeddings, drawn_labels, in_fresh_process, measured, megabytes, official_labels, report

from mancs_jax.evaluation import metrics
from mancs_jax.evaluation.comparison import compare
from mancs_jax.evaluation.labelled import Labelled
from mancs_jax.evaluation.ranking import hit_ranks

DRAWN_AT_ONCE = 16384
LARGEST_MEMORY = 10**9


def write(path: Path, pid: np.ndarray, width: int, rng: np.random.Generator) -> None:
    """Writes drawn embeddings [len(pid), width], a block at a time."""
    file = np.lib.format.open_memmap(path, "w+", np.float32, (len(pid), width))
    for start in range(0, len(pid), DRAWN_AT_ONCE):
        block = slice(start, start + DRAWN_AT_ONCE)
        file[block] = drawn_embeddings(pid[block], width, rng)
    file.flush()


def measure(folder: str, labels: list[np.ndarray], in_memory: bool) -> dict:
    """One row of the table; to be called in a fresh process."""
    query = Labelled(np.load(Path(folder) / "query.npy"), *labels[:2])
    embedding = np.load(Path(folder) / "gallery.npy", mmap_mode=None if in_memory else "r")
    gallery = Labelled(embedding, *labels[2:])
    scores, times = measured(lambda: metrics.scores(hit_ranks(compare(query, gallery))), anonymous=True)
    return {
        "gallery": "in memory" if in_memory else "memory-mapped",
        "queries": len(query.pid),
        "images": len(gallery.pid),
        "width": embedding.shape[1],
        "seconds": times["first_s"],
        "peak_bytes": times["peak_bytes"],
        "mAP": scores["mAP"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", type=Path, metavar="DIR", help="folder of the official label files (needs SciPy)")
    parser.add_argument("--distractors", type=int, default=500_000)
    parser.add_argument("--width", type=int, default=512, help="of the embeddings")
    parser.add_argument("--in_memory", action="store_true", help="measure the gallery in memory as well")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, too")
    flags = parser.parse_args()
    if flags.distractors < 0 or flags.width < 1:
        parser.error("--distractors must be at least 0, --width at least 1")
    rng = np.random.default_rng(1)
    try:
        labels = official_labels(flags.labels) if flags.labels else drawn_labels(rng)
    except OSError as error:
        sys.exit(f"large_gallery: {error}")
    labels[2] = np.concatenate([labels[2], np.zeros(flags.distractors, np.int32)])
    labels[3] = np.concatenate([labels[3], rng.integers(1, 7, flags.distractors, dtype=np.int32)])

    with tempfile.TemporaryDirectory() as folder:
        for part, pid in (("query", labels[0]), ("gallery", labels[2])):
            write(Path(folder) / f"{part}.npy", pid, flags.width, rng)
        ways = [False, True] if flags.in_memory else [False]
        rows = [in_fresh_process(measure, folder, labels, in_memory) for in_memory in ways]
    table = [
        {
            "gallery": row["gallery"],
            "seconds": row["seconds"],
            "peak MB beyond the embeddings": megabytes(row["peak_bytes"]),
            "mAP %": f"{100 * row['mAP']:.3f}",
        }
        for row in rows
    ]
    report(table, flags.json, **{name: rows[0][name] for name in ("queries", "images", "width")})
    if any(row["peak_bytes"] and row["peak_bytes"] > LARGEST_MEMORY for row in rows):
        sys.exit(f"large_gallery: more than {megabytes(LARGEST_MEMORY)} MB beyond the embeddings")


if __name__ == "__main__":
    main()
