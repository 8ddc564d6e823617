"""Time, memory and result of re-ranking at Market-1501's size, beside the authors' Python port.

    python benchmarks/reranking.py --features=FILE.npz --port=re_ranking_ranklist.py [--widths 512 2048] [--stable]

--port is the reader's own copy of python-version/re_ranking_ranklist.py of zhunzhong07/person-re-ranking. It takes 80 s
and 9 GB. FILE is as for `mancs evaluate`; without it, embeddings are drawn. For each of --widths, orthonormal axes
map the embeddings to that width. This keeps their distances, and so the port's inputs.

Each way runs in a process of its own, and gives the whole matrix of final distances. Ours starts from embeddings, the
port from the distances of all pairs. NumPy's work for these distances has a row of its own. The port's distances here
are made in float64, so they are right to the last float32 digit. Memory is the most beyond the inputs of each.

The port sorts equal distances in no certain order, and Market-1501 has images that are copies of each other. With
--stable it runs a second time with the lower index first, as in ours. Then no distance may be off by more than 1e-4.
"""

import argparse
import importlib.util
import sys
import tempfile
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
from measure import add_input_flags, in_fresh_process, market_size, measured, megabytes, report

from mancs_jax.evaluation import metrics, reranking
from mancs_jax.evaluation.comparison import from_distances
from mancs_jax.evaluation.labelled import Labelled
from mancs_jax.evaluation.ranking import hit_ranks

OURS, PORT, STABLE = "mancs_jax", "authors' port", "authors' port, stable sort"
PAIRS = "distances of all pairs (NumPy)"
BLOCK = 256  # queries
LARGEST_DIFFERENCE = 1e-4  # of distances, and of mAP


def widened(embedding: np.ndarray, width: int) -> np.ndarray:
    """The embeddings in `width` dimensions, all distances as they were; float32."""
    axes = np.linalg.qr(np.random.default_rng(0).standard_normal((width, embedding.shape[1])))[0]
    return (embedding @ axes.T).astype(np.float32)


def sets(inputs: tuple, width: int | None = None) -> list[Labelled]:
    """Query and gallery, with embeddings of that width."""
    given = market_size(*inputs)
    if width in (None, given[0].embedding.shape[1]):
        return list(given)
    return [part._replace(embedding=widened(part.embedding, width)) for part in given]


def euclidean(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Euclidean distances, float32 [N, M]."""
    distances = np.empty((len(one), len(other)), np.float32)
    for start in range(0, len(one), BLOCK):
        block = one[start : start + BLOCK]
        squared = np.vecdot(block, block)[:, None] + np.vecdot(other, other)[None] - 2 * block @ other.T
        distances[start : start + BLOCK] = np.sqrt(np.maximum(squared, 0))
    return distances


def reranked(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Final distances [Q, G] by `mancs_jax.evaluation.reranking`."""
    distances_of = reranking.reranked_distances(query, gallery)
    final = np.empty((len(query), len(gallery)), np.float32)
    for start in range(0, len(query), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(query)))
        final[rows] = distances_of(rows)
    return final


def ours(inputs: tuple, width: int, result: Path) -> dict:
    query, gallery = sets(inputs, width)
    final, times = measured(lambda: reranked(query.embedding, gallery.embedding))
    np.save(result, final)
    return {"way": OURS, "width": width, **times, **scores(final, query, gallery)}


def all_pairs(inputs: tuple, width: int) -> dict:
    points = np.concatenate([part.embedding for part in sets(inputs, width)])
    return {"way": PAIRS, "width": width, **measured(lambda: euclidean(points, points))[1]}


def by_port(inputs: tuple, port: Path, stable: bool, result: Path) -> dict:
    spec = importlib.util.spec_from_file_location("port", port)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    given = sets(inputs)
    query, gallery = (part.embedding.astype(np.float64) for part in given)
    pairs = [euclidean(query, gallery), euclidean(query, query), euclidean(gallery, gallery)]
    sort = partial(np.argsort, kind="stable") if stable else np.argsort
    with mock.patch.object(np, "argsort", sort):
        final, times = measured(lambda: module.re_ranking(*pairs, reranking.K1, reranking.K2, reranking.LAMBDA))
    np.save(result, final)
    return {"way": STABLE if stable else PORT, "width": None, **times, **scores(final, *given)}


def scores(final: np.ndarray, query: Labelled, gallery: Labelled) -> dict:
    result = metrics.scores(hit_ranks(from_distances(final.__getitem__, query, gallery)))
    return {"queries": final.shape[0], "gallery": final.shape[1], "mAP": result["mAP"], "rank_1": result["cmc"][0]}


def compared(row: dict, port: dict, pairs: dict, result: Path, of_port: Path) -> dict:
    """Compares our row with the port's, the distances of all pairs at the same width, and its result."""
    differences = np.abs(np.load(result) - np.load(of_port, mmap_mode="r"))
    return {
        "with": port["way"],
        "width": row["width"],
        "times_faster": (port["first_s"] + pairs["first_s"]) / row["first_s"],
        "times_faster_than_without_pairs": port["first_s"] / row["first_s"],
        "part_of_memory": row["peak_bytes"] / port["peak_bytes"] if row["peak_bytes"] else None,
        "largest_difference": float(differences.max()),
        "num_above": int(np.sum(differences > LARGEST_DIFFERENCE)),
        "mAP_difference": row["mAP"] - port["mAP"],
    }


def shown(row: dict) -> dict:
    """A row of the table."""
    return {
        "way": row["way"],
        "width": row["width"],
        "seconds": row["first_s"],
        "peak MB": megabytes(row["peak_bytes"]),
        "mAP %": f"{100 * row['mAP']:.4f}" if "mAP" in row else None,
        "rank-1 %": f"{100 * row['rank_1']:.3f}" if "mAP" in row else None,
    }


def figures(found: dict) -> dict:
    """The figures of a comparison, below the table."""
    beside = f"width {found['width']}, beside {found['with']}"
    return {
        f"{beside}: times as fast": found["times_faster"],
        f"{beside}: times as fast, if all pairs cost the port nothing": found["times_faster_than_without_pairs"],
        f"{beside}: part of its memory": found["part_of_memory"],
        f"{beside}: largest difference of a distance": found["largest_difference"],
        f"{beside}: distances that differ by more than {LARGEST_DIFFERENCE:g}": found["num_above"],
        f"{beside}: difference in mAP": found["mAP_difference"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_input_flags(parser)
    parser.add_argument("--port", type=Path, metavar="FILE", help="the reader's copy of re_ranking_ranklist.py")
    parser.add_argument("--widths", type=int, nargs="+", help="of the embeddings ours starts from; theirs by default")
    parser.add_argument("--stable", action="store_true", help="run the port with a stable sort as well")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, too")
    flags = parser.parse_args()
    if flags.port and not flags.port.is_file():
        parser.error(f"{flags.port} is not a file: give a copy of re_ranking_ranklist.py")
    inputs = (flags.features, flags.labels, 512)
    try:
        width = sets(inputs)[0].embedding.shape[1]
    except (ValueError, OSError) as error:
        sys.exit(f"reranking: {error}")
    widths = flags.widths or [width]
    if min(widths) < width:
        parser.error(f"--widths must be at least {width}, the width of the embeddings")

    with tempfile.TemporaryDirectory() as folder:
        results = [Path(folder) / f"{width}.npy" for width in widths]
        rows = [in_fresh_process(ours, inputs, width, result) for width, result in zip(widths, results)]
        own, comparisons = rows[:], []
        if flags.port:
            pairs = [in_fresh_process(all_pairs, inputs, width) for width in widths]
            rows += pairs
            of_port = Path(folder) / "port.npy"
            for stable in (False, True) if flags.stable else (False,):
                port = in_fresh_process(by_port, inputs, flags.port, stable, of_port)
                rows.append(port)
                comparisons += [compared(row, port, *more, of_port) for row, *more in zip(own, pairs, results)]
    of_all = {name: figure for found in comparisons for name, figure in figures(found).items()}
    sizes = {name: rows[0][name] for name in ("queries", "gallery")}
    report([shown(row) for row in rows], flags.json, **sizes, k1=reranking.K1, k2=reranking.K2, **of_all)
    for found in comparisons:
        far = max(abs(found["mAP_difference"]), found["largest_difference"] if found["with"] == STABLE else 0)
        if far > LARGEST_DIFFERENCE:
            sys.exit(f"reranking: {found['with']} differs by {far:.1e}, above {LARGEST_DIFFERENCE:g}")


if __name__ == "__main__":
    main()
