"""What a query finds, against a sort of each row."""

import numpy as np
import pytest

from mancs_jax.evaluation import blocks, protocols, ranking
from mancs_jax.evaluation.protocols import Labelled, Options
from mancs_jax.evaluation.ranking import nearest_lists_by
from mancs_jax.reporting.histograms import histograms

pytestmark = pytest.mark.quick


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    distances = rng.integers(0, 30, (300, 40)).astype(np.float32)  # ties
    labels = rng.integers(1, 6, 300), rng.integers(1, 4, 300), rng.integers(-1, 6, 40), rng.integers(1, 4, 40)
    return distances, labels


def counting(row, labels):
    query_pid, query_camid, gallery_pid, gallery_camid = labels
    own = (gallery_pid == query_pid[row]) & (gallery_camid == query_camid[row])
    return np.flatnonzero((gallery_pid != -1) & ~own)


def test_lists_hold_the_nearest_that_count(drawn):
    distances, labels = drawn
    found = nearest_lists_by(distances.__getitem__, *labels, depth=7)
    for row in range(300):
        counts = counting(row, labels)
        expected = np.sort(distances[row][counts])[:7]
        np.testing.assert_array_equal(found.distance[row], expected)
        np.testing.assert_array_equal(distances[row][found.index[row]], expected)
        assert set(found.index[row]) <= set(counts) and len(set(found.index[row])) == 7


def test_fewer_images_than_answers_end_in_minus_one():
    found = nearest_lists_by(
        np.float32([[3, 1, 2]]).__getitem__, np.array([1]), np.array([1]), np.array([1, 2, -1]), np.array([1, 1, 1])
    )
    assert found.index.tolist() == [[1, -1, -1]] and found.distance[0, 0] == 1 and np.isinf(found.distance[0, 1:]).all()


def test_histograms_are_shares_of_each_kind(drawn):
    distances, labels = drawn
    shares = histograms(distances.__getitem__, *labels)
    same = [
        distances[row][image]
        for row in range(300)
        for image in counting(row, labels)
        if labels[2][image] == labels[0][row]
    ]
    middles, of_same = shares["same person"].T
    assert of_same.sum() == pytest.approx(1) and shares["others"][:, 1].sum() == pytest.approx(1)
    width = middles[1] - middles[0]
    for value in (1, 8, 20):  # distances are whole numbers, and a bin is narrower than 1
        assert of_same[int(value / width)] == pytest.approx(np.mean(np.array(same) == value))


def embedded(mean: float, ties: bool) -> tuple[Labelled, Labelled]:
    """Embeddings 512 wide, each person around a place of its own, `mean` standard deviations from the origin."""
    rng = np.random.default_rng(0)
    places = rng.normal(size=(9, 512))

    def part(number, pids):
        pid = rng.integers(*pids, number)
        embedding = mean + places[pid % 9] + 3 * rng.normal(size=(number, 512))
        embedding = np.round(embedding) if ties else embedding
        return Labelled(embedding.astype(np.float32), pid, rng.integers(1, 4, number))

    return part(140, (1, 8)), part(700, (-1, 8))


@pytest.mark.parametrize("mean", [0, 16, 64])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(
    "options", [Options(), Options(distance="cosine"), Options(normalize=True), Options(rerank=True)], ids=str
)
def test_each_hit_stands_where_it_was_scored(mean, ties, options, monkeypatch):
    """The list of every query has its hits at the ranks that gave the scores, whatever the tiles."""
    monkeypatch.setattr(blocks, "TILE_BYTES", 4 * 512 * 296)
    query, gallery = embedded(mean, ties)
    ranked = protocols.rank(query, gallery, options)
    lists = ranked.lists(30)
    for row, (index, distance) in enumerate(zip(*lists)):
        assert (index >= 0).all() and len(set(index)) == 30 and (np.diff(distance) >= -1e-4).all()
        is_hit = (gallery.pid[index] == query.pid[row]) & (gallery.camid[index] != query.camid[row])
        scored = ranked.hits.ranks[row][: ranked.hits.counts[row]]
        assert (1 + np.flatnonzero(is_hit)).tolist() == scored[scored <= 30].tolist()
        assert not ((gallery.pid[index] == query.pid[row]) & (gallery.camid[index] == query.camid[row])).any()
        assert (gallery.pid[index] != -1).all()


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_the_distances_of_a_list_are_those_of_float64(distance):
    query, gallery = embedded(16, False)
    labels = (query.pid, query.camid, gallery.pid, gallery.camid)
    lists = ranking.nearest_lists(query.embedding, gallery.embedding, *labels, distance=distance, depth=5)
    q, g = query.embedding.astype(np.float64), gallery.embedding.astype(np.float64)
    if distance == "cosine":
        q, g = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (q, g))
        expected = 1 - np.einsum("qd,qkd->qk", q, g[lists.index])
    else:
        expected = np.linalg.norm(q[:, None] - g[lists.index], axis=2)
    np.testing.assert_allclose(lists.distance, expected, rtol=1e-4, atol=1e-5)


def test_a_query_without_a_match_has_a_list():
    query = Labelled(np.float32([[0, 1], [4, 4]]), np.array([1, 9]), np.array([1, 1]))
    gallery = Labelled(np.float32([[0, 2], [4, 4], [9, 9]]), np.array([1, 2, -1]), np.array([2, 2, 2]))
    lists = protocols.rank(query, gallery).lists(10)
    assert lists.index.tolist() == [[0, 1], [1, 0]]
    np.testing.assert_allclose(lists.distance, [[1, 5], [0, np.sqrt(20)]], rtol=1e-6)
