"""Ranks of the hits and nearest images, against the official evaluation, a sort of each row and float64."""

from unittest import mock

import hypothesis.extra.numpy as hnp
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from official_evaluation import GALLERY, QUERY, assert_same_scores, drawn, official_evaluation

from mancs_jax.config.names import DISTANCES
from mancs_jax.evaluation import comparison, metrics, protocols
from mancs_jax.evaluation.comparison import compare, from_distances
from mancs_jax.evaluation.labelled import Labelled
from mancs_jax.evaluation.protocols import Options
from mancs_jax.evaluation.ranking import hit_ranks, nearest


def squared_distances(query, gallery):
    difference = query.embedding[:, None].astype(np.float64) - gallery.embedding[None].astype(np.float64)
    return np.sum(difference**2, axis=2)


def test_ranks_by_hand():
    hits = hit_ranks(compare(QUERY, GALLERY))
    # Query 0 meets, nearest first: image 0 (wrong), 1 (hit), 4 (distractor), 5 (hit), 6 (as far as 5, wrong,
    # same camera, but higher index), 7 (hit), 8. Images 2 (junk) and 3 (own camera) do not count.
    # Query 1's only image of pid 3 is from its own camera.
    # Query 2: 0 (hit), 3, 1, 4, 5, 7, 6 (hit), 8; of these 6 is at 5, 7 at 4, 8 at 8.
    np.testing.assert_array_equal(hits.counts, [3, 0, 2])
    np.testing.assert_array_equal(hits.ranks, [[2, 4, 6], [0, 0, 0], [1, 7, 0]])
    assert hits.ranks.dtype == hits.counts.dtype == np.int32


def test_no_query_with_a_match_scores_zero():
    hits = hit_ranks(compare(QUERY._replace(pid=np.int32([7, 8, 9])), GALLERY))
    assert hits.ranks.shape == (3, 1)
    scores = metrics.scores(hits)
    assert scores == {
        "mAP": 0.0,
        "mAP_plain": 0.0,
        "mINP": 0.0,
        "cmc": [0.0] * 50,
        "num_queries": 3,
        "num_matched_queries": 0,
    }


# Numbers of each kind are fixed, since every size of gallery is compiled anew; order, cameras and embeddings
# vary, and so do the queries' numbers of hits.
GALLERY_KINDS = [-1] * 4 + [0] * 4 + [1] * 9 + [2] * 7 + [3] * 4 + [4]
LABELS = st.tuples(
    hnp.arrays(np.int32, 20, elements=st.sampled_from([1, 2, 3, 4, 5])),
    hnp.arrays(np.int32, 20, elements=st.integers(1, 3)),
    st.permutations(GALLERY_KINDS).map(np.int32),
    hnp.arrays(np.int32, len(GALLERY_KINDS), elements=st.integers(1, 3)),
)


@settings(max_examples=30)
@given(
    labels=LABELS,
    query=hnp.arrays(np.float32, (20, 2), elements=st.integers(-2, 2), fill=st.nothing()),
    gallery=hnp.arrays(np.float32, (len(GALLERY_KINDS), 2), elements=st.integers(-2, 2), fill=st.nothing()),
)
def test_euclidean_is_the_official_evaluation_ties_included(labels, query, gallery):
    # Small whole numbers: float32 is exact, so equal distances are ties in the reference and here.
    query, gallery = Labelled(query, *labels[:2]), Labelled(gallery, *labels[2:])
    expected = official_evaluation(squared_distances(query, gallery), query, gallery)
    with mock.patch.multiple(comparison, BLOCK_BYTES=0, MIN_ROWS=8):  # up to three blocks, the last filled up
        scores = metrics.scores(hit_ranks(compare(query, gallery)))
    assert_same_scores(scores, expected)


# Norms are 1, 2 and 4, so that float32 divides by them exactly.
EXACT_NORM = st.sampled_from([(1, 0, 0, 0), (0, 0, -2, 0), (1, 1, 1, 1), (2, 2, -2, 2), (-1, 1, -1, 1), (0, 4, 0, 0)])


@settings(max_examples=20)
@given(
    labels=LABELS,
    query=st.lists(EXACT_NORM, min_size=20, max_size=20).map(np.float32),
    gallery=st.lists(EXACT_NORM, min_size=len(GALLERY_KINDS), max_size=len(GALLERY_KINDS)).map(np.float32),
)
def test_cosine_is_the_official_evaluation_ties_included(labels, query, gallery):
    norms = np.linalg.norm(query, axis=1)[:, None] * np.linalg.norm(gallery, axis=1)[None]
    distances = 1 - query.astype(np.float64) @ gallery.T / norms
    query, gallery = Labelled(query, *labels[:2]), Labelled(gallery, *labels[2:])
    expected = official_evaluation(distances, query, gallery)
    scores = metrics.scores(hit_ranks(compare(query, gallery, distance="cosine")))
    assert_same_scores(scores, expected)


def test_wide_embeddings_match_a_float64_sort():
    # Whole numbers again, with few ties, and more hits than one.
    rng = np.random.default_rng(0)
    query, gallery = (rng.integers(-30, 31, (n, 64)).astype(np.float32) for n in (70, 1500))
    query = Labelled(query, rng.integers(1, 40, 70), rng.integers(1, 7, 70))
    gallery = Labelled(gallery, rng.integers(-1, 40, 1500), rng.integers(1, 7, 1500))
    expected = official_evaluation(squared_distances(query, gallery), query, gallery)
    assert_same_scores(metrics.scores(hit_ranks(compare(query, gallery))), expected)


@pytest.mark.parametrize("distance", DISTANCES)
def test_copies_of_an_image_tie_exactly(distance):
    # One query: a matrix-vector product would give the images at the end another last bit than those before.
    image, *queries = np.random.default_rng(0).standard_normal((9, 100)).astype(np.float32)
    pid = np.zeros(1001, np.int32)
    pid[[3, 500, 1000]] = 1
    gallery = Labelled(np.tile(image, (1001, 1)), pid, np.full(1001, 2))
    for query in queries:
        hits = hit_ranks(compare(Labelled(query[None], [1], [1]), gallery, distance=distance))
        np.testing.assert_array_equal(hits.ranks, [[4, 501, 1001]])


def moved(part, offset):
    return part._replace(embedding=part.embedding + np.float32(offset))


def test_far_from_the_origin_hits_keep_their_ranks():
    rng = np.random.default_rng(1)
    query, gallery = (
        part._replace(embedding=part.embedding + rng.standard_normal(part.embedding.shape).astype(np.float32))
        for part in drawn(40, 200, 8)
    )
    near, far = hit_ranks(compare(query, gallery)), hit_ranks(compare(moved(query, 4096), moved(gallery, 4096)))
    assert np.mean(far.ranks != near.ranks) < 0.01
    assert metrics.scores(far)["mAP"] == pytest.approx(metrics.scores(near)["mAP"], abs=1e-3)


def test_whole_numbers_far_from_the_origin_tie_as_near_it():
    query, gallery = drawn(40, 200, 4)
    near, far = hit_ranks(compare(query, gallery)), hit_ranks(compare(moved(query, 1000), moved(gallery, 1000)))
    np.testing.assert_array_equal(far.ranks, near.ranks)


def test_large_but_allowed_embeddings_stay_finite():
    gallery = np.float32([[-7e17, -7e17], [7e17, 7e17], [0, 0]])
    hits = hit_ranks(compare(Labelled(gallery[1:2], [1], [1]), Labelled(gallery, [1, 1, 1], [2, 2, 2])))
    assert hits.ranks.tolist() == [[1, 2, 3]]


def unembedded(labels):
    """Labels of images whose embeddings do not matter."""
    return Labelled(np.zeros((len(labels[0]), 1), np.float32), *labels)


@pytest.mark.parametrize("distance", DISTANCES)
def test_tiles_of_a_gallery_in_a_file_rank_as_the_whole(tmp_path, monkeypatch, distance):
    query, gallery = drawn(40, 333, 4)
    for embedding in (query.embedding, gallery.embedding):
        embedding += 1 - (np.abs(embedding).max(axis=1, keepdims=True) > 0)  # no norm of 0
    whole = hit_ranks(compare(query, gallery, distance=distance))
    np.save(tmp_path / "gallery.npy", gallery.embedding)
    monkeypatch.setattr(comparison, "TILE_BYTES", 4 * 4 * 64)  # 64 images
    mapped = gallery._replace(embedding=np.load(tmp_path / "gallery.npy", mmap_mode="r"))
    tiles = compare(query, mapped, distance=distance)
    assert len(tiles.layout.tiles) == -(-np.sum(gallery.pid != -1) // 64)
    tiled = hit_ranks(tiles)
    np.testing.assert_array_equal(tiled.ranks, whole.ranks)
    np.testing.assert_array_equal(tiled.counts, whole.counts)


def test_devices_share_the_queries_and_change_nothing(monkeypatch):
    sets = drawn(100, 70, 4)
    monkeypatch.setattr(comparison, "MIN_ROWS", 8)
    assert comparison.device_mesh(None, 100).size == 8
    one, eight = (compare(*sets, devices=jax.devices()[:n]) for n in (1, 8))
    np.testing.assert_array_equal(hit_ranks(eight).ranks, hit_ranks(one).ranks)
    np.testing.assert_array_equal(nearest(eight, 20).index, nearest(one, 20).index)


@settings(max_examples=20)
@given(labels=LABELS, distances=hnp.arrays(np.float32, (20, 29), elements=st.integers(0, 6).map(float)))
def test_given_distances_are_ranked_by_the_official_rules(labels, distances):
    query, gallery = unembedded(labels[:2]), unembedded(labels[2:])
    scores = metrics.scores(hit_ranks(from_distances(distances.__getitem__, query, gallery)))
    assert_same_scores(scores, official_evaluation(distances, query, gallery))


def test_lists_hold_the_nearest_that_count():
    rng = np.random.default_rng(0)
    distances = rng.integers(0, 30, (300, 40)).astype(np.float32)  # ties
    query = unembedded([rng.integers(1, 6, 300), rng.integers(1, 4, 300)])
    gallery = unembedded([rng.integers(-1, 6, 40), rng.integers(1, 4, 40)])
    found = nearest(from_distances(distances.__getitem__, query, gallery), 7)
    for row in range(300):
        own_view = (gallery.pid == query.pid[row]) & (gallery.camid == query.camid[row])
        counts = np.flatnonzero((gallery.pid != -1) & ~own_view)
        expected = np.sort(distances[row][counts])[:7]
        np.testing.assert_array_equal(found.distance[row], expected)
        np.testing.assert_array_equal(distances[row][found.index[row]], expected)
        assert set(found.index[row]) <= set(counts) and len(set(found.index[row])) == 7


def test_fewer_images_than_answers_end_in_minus_one():
    query, gallery = unembedded([[1], [1]]), unembedded([[1, 2, -1], [1, 1, 1]])
    found = nearest(from_distances(np.float32([[3, 1, 2]]).__getitem__, query, gallery))
    assert found.index.tolist() == [[1, -1, -1]] and found.distance[0, 0] == 1 and np.isinf(found.distance[0, 1:]).all()


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
    monkeypatch.setattr(comparison, "TILE_BYTES", 4 * 512 * 296)
    query, gallery = embedded(mean, ties)
    compared = protocols.compared(query, gallery, options)
    hits, lists = hit_ranks(compared), nearest(compared, 30)
    for row, (index, distance) in enumerate(zip(lists.index, lists.distance)):
        assert (index >= 0).all() and len(set(index)) == 30 and (np.diff(distance) >= -1e-4).all()
        is_hit = (gallery.pid[index] == query.pid[row]) & (gallery.camid[index] != query.camid[row])
        scored = hits.ranks[row][: hits.counts[row]]
        assert (1 + np.flatnonzero(is_hit)).tolist() == scored[scored <= 30].tolist()
        assert not ((gallery.pid[index] == query.pid[row]) & (gallery.camid[index] == query.camid[row])).any()
        assert (gallery.pid[index] != -1).all()


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_the_distances_of_a_list_are_those_of_float64(distance):
    query, gallery = embedded(16, False)
    lists = nearest(compare(query, gallery, distance=distance), 5)
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
    lists = nearest(compare(query, gallery), 10)
    assert lists.index.tolist() == [[0, 1], [1, 0]]
    np.testing.assert_allclose(lists.distance, [[1, 5], [0, np.sqrt(20)]], rtol=1e-6)
