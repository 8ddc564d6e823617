"""Our rules against Market-1501's own label files and good/junk lists; each skipped where those are not at hand.

The label files lie beside the repository, in ../shared/data/market1501_labels. The lists come with the data set:
MARKET1501=FOLDER names where it is unpacked.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from official_evaluation import official_evaluation
from tiny_sources import SHARED

from mancs_jax.data.sources.market1501 import LAYOUT
from mancs_jax.evaluation import metrics
from mancs_jax.evaluation.comparison import from_distances, hit_indices
from mancs_jax.evaluation.labelled import Labelled
from mancs_jax.evaluation.ranking import hit_ranks

pytestmark = pytest.mark.quick

LABELS = SHARED / "market1501_labels"
FOLDER = Path(os.environ.get("MARKET1501", ""))
with_labels = pytest.mark.skipif(not LABELS.is_dir(), reason=f"no label files in {LABELS}")
with_lists = pytest.mark.skipif("MARKET1501" not in os.environ, reason="MARKET1501=FOLDER of the data set is not set")


def read_labels(file, key):
    return scipy.io.loadmat(LABELS / f"{file}.mat")[key].ravel().astype(np.int32)


@pytest.fixture(scope="module")
def labels():
    """Query pid and camid, gallery pid and camid."""
    names = (("queryID", "queryID"), ("queryCam", "queryCAM"), ("testID", "testID"), ("testCam", "testCAM"))
    return [read_labels(file, key) for file, key in names]


@with_labels
def test_average_precisions_are_those_of_the_official_loop(labels):
    """On 20 levels, so that every hit ties with hundreds of images."""
    rng = np.random.default_rng(0)
    query_pid, query_camid, gallery_pid, gallery_camid = labels
    sample = np.sort(rng.choice(len(query_pid), 24, replace=False))
    is_hit = query_pid[sample, None] == gallery_pid[None]
    distances = np.where(is_hit, rng.integers(0, 12, is_hit.shape), rng.integers(2, 20, is_hit.shape))
    query = Labelled(np.zeros((len(sample), 1), np.float32), query_pid[sample], query_camid[sample])
    gallery = Labelled(np.zeros((len(gallery_pid), 1), np.float32), gallery_pid, gallery_camid)
    trapezoid, plain = metrics.average_precisions(hit_ranks(from_distances(distances.__getitem__, query, gallery)))
    for row in range(len(sample)):
        expected = official_evaluation(distances[[row]], Labelled(*(field[[row]] for field in query)), gallery)
        assert trapezoid[row] == pytest.approx(expected["mAP"], rel=0, abs=1e-9)
        assert plain[row] == pytest.approx(expected["mAP_plain"], rel=0, abs=1e-9)


def named(folder):
    """File names without the ending, sorted as the official lists count them; pid and camid int32."""
    names = sorted(path.name for path in (FOLDER / folder).glob("*.jpg"))
    matches = [LAYOUT.pattern.fullmatch(name) for name in names]
    pid, camid = (np.array([int(match[group]) for match in matches], np.int32) for group in (1, 2))
    return [name.split(".")[0] for name in names], pid, camid


def official_list(query_name, kind):
    """0-based gallery indices; an empty list is stored as [0]."""
    index = scipy.io.loadmat(FOLDER / "gt_query" / f"{query_name}_{kind}.mat")[f"{kind}_index"].ravel()
    return (index[index > 0].astype(np.int64) - 1).tolist()


@with_lists
def test_hits_and_junk_are_those_of_the_official_lists():
    query_names, query_pid, query_camid = named("query")
    gallery_names, gallery_pid, gallery_camid = named("bounding_box_test")
    assert (len(query_names), len(gallery_names)) == (3368, 19732)
    hit_index, counts = hit_indices(query_pid, query_camid, gallery_pid, gallery_camid)
    for row, name in enumerate(query_names):
        assert sorted(hit_index[row, : counts[row]].tolist()) == sorted(official_list(name, "good")), name
        junk = np.flatnonzero((gallery_pid == query_pid[row]) & (gallery_camid == query_camid[row]))
        assert junk.tolist() == sorted(official_list(name, "junk")), name
