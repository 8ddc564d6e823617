"""Time and memory of ranking (CMC and mAP) at Market-1501's size, beside torchreid's Cython and sorted rows.

    python benchmarks/ranking.py --labels=DIR --torchreid=CHECKOUT
    python benchmarks/ranking.py --features=FILE.npz --torchreid=CHECKOUT

CHECKOUT is the reader's own copy of torchreid (or of its folder torchreid/metrics alone). Its rank_cy.pyx is compiled
in a temporary folder, which needs Cython and a C compiler. FILE is as for `mancs evaluate`. DIR holds the official
label files (queryID.mat, queryCam.mat, testID.mat, testCam.mat) for drawn embeddings. Without either, labels are drawn
with about the same statistics. Junk (pid -1) is left out before, as in torchreid's reader.

Each way runs in a process of its own: ranks from a given distance matrix and from embeddings, and the rates at which
thresholds on all pairs tell the same person from others. Times are of the calls after the first, which compiles. Memory
is beyond the inputs. From the same distances, CMC and plain mAP must be torchreid's, to 1e-6. From embeddings each way
rounds its own float32 distances, so some neighbours change places.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from measure import add_input_flags, in_fresh_process, market_size, measured, megabytes, report

from mancs_jax.evaluation import comparison, metrics, roc
from mancs_jax.evaluation.labelled import Labelled
from mancs_jax.evaluation.ranking import hit_ranks

PYX = "rank_cylib/rank_cy.pyx"
LARGEST_DIFFERENCE = 1e-6
CMC_LENGTH = 50
OURS, TORCHREID, SORTED = "counted ranks (mancs_jax)", "torchreid, Cython", "sorted rows (NumPy)"
PRODUCT = "inner products alone (NumPy)"
PAIRS, SORTED_PAIRS = "rates (mancs_jax)", "sorted pairs (NumPy)"


def compiled(checkout: Path, folder: Path) -> None:
    """Compiles torchreid's rank_cy.pyx into the folder, from where it can be imported."""
    places = [checkout / part / PYX for part in ("torchreid/metrics", "metrics", "")]
    source = next((place for place in places if place.is_file()), None)
    if source is None:
        raise ValueError(f"{checkout} has no torchreid/metrics/{PYX}: give the folder of a checkout of torchreid")
    shutil.copy(source, folder)
    command = [sys.executable, "-m", "Cython.Build.Cythonize", "--inplace", "--quiet", "-3", source.name]
    flags = f"{os.environ.get('CFLAGS', '')} -w -O3 -I{np.get_include()}"
    run = subprocess.run(command, cwd=folder, env={**os.environ, "CFLAGS": flags}, capture_output=True, text=True)
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["no message"])[-1]
        raise ValueError(f"{source} does not compile ({last}): pip install cython setuptools, and a C compiler")


def squared_distances(query, gallery):
    """[Q, G] float32, as torchreid computes them."""
    distances = query @ gallery.T
    distances *= -2
    distances += np.vecdot(query, query)[:, None]
    distances += np.vecdot(gallery, gallery)[None]
    return distances


def by_torchreid(distances: np.ndarray, query: Labelled, gallery: Labelled) -> dict:
    import rank_cy

    cmc, mean = rank_cy.evaluate_cy(distances, query.pid, gallery.pid, query.camid, gallery.camid, CMC_LENGTH)
    # It leaves queries without a match out of its means.
    counts = comparison.hit_indices(query.pid, query.camid, gallery.pid, gallery.camid)[1]
    return {"mAP_plain": float(np.mean(counts > 0) * mean), "cmc": (np.mean(counts > 0) * cmc).tolist()}


def by_sorted_rows(distances: np.ndarray, query: Labelled, gallery: Labelled) -> dict:
    """The usual way: an argsort of each row of the distance matrix, then one query after the other."""
    ranks = []
    for row, pid, camid in zip(np.argsort(distances, axis=1), query.pid, query.camid):
        same = gallery.pid[row] == pid
        stays = ~(same & (gallery.camid[row] == camid))
        ranks.append(1 + np.flatnonzero(same[stays]))
    counts = np.array([len(row) for row in ranks], np.int32)
    filled = np.zeros((len(ranks), max(1, counts.max())), np.int32)
    for row, rank in zip(filled, ranks):
        row[: len(rank)] = rank
    return metrics.scores(metrics.HitRanks(filled, counts), cmc_length=CMC_LENGTH)


def by_counting(distances: np.ndarray, query: Labelled, gallery: Labelled) -> dict:
    given = comparison.from_distances(distances.__getitem__, query, gallery)
    return metrics.scores(hit_ranks(given), cmc_length=CMC_LENGTH)


def products_alone(query, gallery):
    """Only the inner products of all pairs, 512 queries at a time: the least that any way must do."""
    products = np.empty((512, len(gallery)), np.float32)
    for start in range(0, len(query), 512):
        block = query[start : start + 512]
        np.matmul(block, gallery.T, out=products[: len(block)])
    return {}


def rates(query: Labelled, gallery: Labelled) -> dict:
    """True positive rates at the false positive rates of results."""
    curve = roc.create_roc(comparison.compare(query, gallery))
    return {"tpr": [roc.at_rate(curve, rate)["tpr"] for rate in roc.RATES]}


def rates_by_sorting(query: Labelled, gallery: Labelled) -> dict:
    """The usual way: the distances of all pairs in one array, sorted."""
    distances = squared_distances(query.embedding, gallery.embedding)
    same = query.pid[:, None] == gallery.pid[None]
    counts = ~(same & (query.camid[:, None] == gallery.camid[None]))
    positives, negatives = np.sort(distances[same & counts]), np.sort(distances[~same])
    limits = negatives[[int(rate * len(negatives)) for rate in roc.RATES]]
    return {"tpr": (positives.searchsorted(limits) / len(positives)).tolist()}


FROM_DISTANCES = {OURS: by_counting, TORCHREID: by_torchreid, SORTED: by_sorted_rows}
FROM_EMBEDDINGS = {
    OURS: lambda *sets: metrics.scores(hit_ranks(comparison.compare(*sets)), cmc_length=CMC_LENGTH),
    TORCHREID: lambda *sets: by_torchreid(squared_distances(sets[0].embedding, sets[1].embedding), *sets),
    SORTED: lambda *sets: by_sorted_rows(squared_distances(sets[0].embedding, sets[1].embedding), *sets),
    PRODUCT: lambda *sets: products_alone(sets[0].embedding, sets[1].embedding),
}
OF_PAIRS = {PAIRS: rates, SORTED_PAIRS: rates_by_sorting}
SOURCES = {"distances": FROM_DISTANCES, "embeddings": FROM_EMBEDDINGS, "pairs": OF_PAIRS}


def measure_way(source: str, way: str, inputs: tuple, repeats: int, folder: str) -> dict:
    """One row of the table; to be called in a fresh process."""
    sys.path.insert(0, folder)
    query, gallery = market_size(*inputs)
    sizes = {"queries": len(query.pid), "gallery": len(gallery.pid), "width": query.embedding.shape[1]}
    given = [squared_distances(query.embedding, gallery.embedding)] if source == "distances" else []
    scores, times = measured(lambda: SOURCES[source][way](*given, query, gallery), repeats)
    scores = {name: scores.get(name) for name in ("mAP", "mAP_plain", "cmc", "tpr")}
    return {"from": source, "way": way, **sizes, **times, **scores}


def difference(one: dict, other: dict) -> float:
    """The largest difference in plain mAP and in CMC at any rank."""
    of_cmc = np.abs(np.subtract(one["cmc"], other["cmc"])).max()
    return float(max(of_cmc, abs(one["mAP_plain"] - other["mAP_plain"])))


def compare(rows: list[dict]) -> None:
    """Adds to the rows of one source how much longer each takes than ours, and how far ours is from its scores."""
    for row in rows:
        row["times_ours"] = row["median_s"] / rows[0]["median_s"]
        row["difference"] = difference(rows[0], row) if row["cmc"] else None


def shown(row: dict) -> dict:
    """A row of the table."""
    return {
        "from": row["from"],
        "way": row["way"],
        "first s": row["first_s"],
        "seconds": row["median_s"],
        "times ours": row["times_ours"],
        "peak MB": megabytes(row["peak_bytes"]),
        "plain mAP %": f"{100 * row['mAP_plain']:.4f}" if row["cmc"] else None,
        "rank-1 %": f"{100 * row['cmc'][0]:.3f}" if row["cmc"] else None,
        "off ours": row["difference"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_input_flags(parser)
    parser.add_argument("--torchreid", type=Path, metavar="CHECKOUT", help="the reader's copy of torchreid")
    parser.add_argument("--width", type=int, default=512, help="of drawn embeddings")
    parser.add_argument("--repeats", type=int, default=3, help="timed calls, after the one that compiles")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, too")
    flags = parser.parse_args()
    if flags.repeats < 1 or flags.width < 1:
        parser.error("--repeats and --width must be at least 1")

    inputs, rows = (flags.features, flags.labels, flags.width), []
    with tempfile.TemporaryDirectory() as folder:
        try:
            if flags.torchreid:
                compiled(flags.torchreid, Path(folder))
            for source, ways in SOURCES.items():
                chosen = [way for way in ways if way != TORCHREID or flags.torchreid]
                of_source = [
                    in_fresh_process(measure_way, source, way, inputs, flags.repeats, folder) for way in chosen
                ]
                compare(of_source)
                rows += of_source
        except (ValueError, OSError) as error:
            sys.exit(f"ranking: {error}")
    sizes = {name: rows[0][name] for name in ("queries", "gallery", "width")}
    report([shown(row) for row in rows], flags.json, **sizes, repeats=flags.repeats)
    far = [row for row in rows if (row["from"], row["way"]) == ("distances", TORCHREID)]
    if any(row["difference"] > LARGEST_DIFFERENCE for row in far):
        sys.exit(
            f"ranking: the scores differ from torchreid's by {far[0]['difference']:.1e}, above {LARGEST_DIFFERENCE}"
        )


if __name__ == "__main__":
    main()
