"""Market-1501's rules as literal Python, and one problem small enough to be checked by hand."""

import numpy as np

from mancs_jax.evaluation.labelled import Labelled

# One query of each kind and a gallery on a line, so that every rank can be read off.
QUERY = Labelled(np.float32([[0], [10], [1]]), np.int32([1, 3, 2]), np.int32([1, 1, 3]))
GALLERY = Labelled(
    np.float32([[1], [2], [0.5], [0.1], [3], [4], [-4], [5], [9]]),
    np.int32([2, 1, -1, 1, 0, 1, 2, 1, 3]),
    np.int32([2, 2, 3, 1, 2, 3, 1, 2, 1]),
)


def official_evaluation(distances: np.ndarray, query: Labelled, gallery: Labelled) -> dict:
    """Walks each sorted row of distances [Q, G] from the front, as the official script does; float64, all Python."""
    average_precisions, plains, inverse_penalties, cmcs = [], [], [], []
    for row, pid, camid in zip(distances, query.pid, query.camid, strict=True):
        index = sorted(range(len(row)), key=lambda image: (row[image], image))
        good = {i for i in index if gallery.pid[i] == pid and gallery.camid[i] != camid}
        own_view = {i for i in index if gallery.pid[i] == pid and gallery.camid[i] == camid}
        junk = own_view | {i for i in index if gallery.pid[i] == -1}
        cmc, average_precision, plain = np.zeros(50), 0.0, 0.0
        old_recall, old_precision, number, rank, last = 0.0, 1.0, 0, 0, None
        for image in index:
            if image in junk or number == len(good):
                continue
            rank += 1
            if image in good:
                number, last = number + 1, rank
                cmc[rank - 1 :] = 1
                plain += number / rank / len(good)
            recall, precision = number / len(good), number / rank
            average_precision += (recall - old_recall) * (old_precision + precision) / 2
            old_recall, old_precision = recall, precision
        average_precisions.append(average_precision)
        plains.append(plain)
        inverse_penalties.append(len(good) / last if good else 0.0)
        cmcs.append(cmc)
    return {
        "mAP": np.mean(average_precisions),
        "mAP_plain": np.mean(plains),
        "mINP": np.mean(inverse_penalties),
        "cmc": np.mean(cmcs, axis=0),
        "num_queries": len(query.pid),
        "num_matched_queries": int(np.sum(np.array(inverse_penalties) > 0)),
    }


def assert_same_scores(scores, expected):
    assert scores.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(scores[name], expected[name], rtol=0, atol=1e-9, err_msg=name)


def drawn(num_queries: int, num_gallery: int, width: int, seed: int = 0) -> tuple[Labelled, Labelled]:
    """Embeddings on a coarse grid, so that many distances are equal, and labels of all kinds."""
    rng = np.random.default_rng(seed)
    query, gallery = (rng.integers(-2, 3, (n, width)).astype(np.float32) for n in (num_queries, num_gallery))
    query_labels = [rng.integers(1, 9, num_queries), rng.integers(1, 4, num_queries)]
    return (
        Labelled(query, *query_labels),
        Labelled(gallery, rng.integers(-1, 9, num_gallery), rng.integers(1, 4, num_gallery)),
    )
