import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loop_reranking import by_loops
from refusals import refused

from mancs_jax.evaluation import metrics, reranking
from mancs_jax.evaluation.comparison import compare
from mancs_jax.evaluation.labelled import Labelled
from mancs_jax.evaluation.ranking import hit_ranks, nearest


def clusters(seed, number, width=5):
    """Embeddings of some people with a few images each, so that neighbourhoods overlap."""
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal((max(number // 7, 1), width))
    return centre[rng.integers(len(centre), size=number)] + 0.4 * rng.standard_normal((number, width))


@pytest.mark.parametrize("k1, k2, weight", [(20, 6, 0.3), (7, 3, 0.3), (6, 1, 0.0), (1, 2, 1.0), (12, 13, 0.5)])
def test_float64_is_the_authors_computation(k1, k2, weight):
    points = clusters(k1, 96)
    query, gallery = points[:17], points[17:]
    distances = reranking.reranked_distances(query, gallery, k1=k1, k2=k2, weight=weight)(np.arange(17))
    assert distances.dtype == np.float64
    np.testing.assert_allclose(distances, by_loops(query, gallery, k1, k2, weight), rtol=0, atol=1e-9)


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.integers(1, 12), st.data())
def test_any_options_in_float32(seed, k1, data):
    k2, weight = data.draw(st.integers(1, k1 + 1)), data.draw(st.sampled_from([0.0, 0.3, 1.0]))
    points = clusters(seed, 40).astype(np.float32)
    distances = reranking.reranked_distances(points[:9], points[9:], k1=k1, k2=k2, weight=weight)(np.arange(9))
    assert distances.dtype == np.float32
    np.testing.assert_allclose(distances, by_loops(points[:9], points[9:], k1, k2, weight), rtol=0, atol=2e-5)


def test_cosine_is_the_euclidean_distance_of_unit_vectors():
    points = clusters(3, 50)
    units = points / np.linalg.norm(points, axis=1, keepdims=True)
    distances = reranking.reranked_distances(points[:9], points[9:], k1=5, k2=2, distance="cosine")(np.arange(9))
    np.testing.assert_allclose(distances, by_loops(units[:9], units[9:], 5, 2, 0.3), rtol=0, atol=1e-9)


def test_queries_in_any_order_and_blocks(monkeypatch):
    points = clusters(4, 60)
    whole = reranking.reranked_distances(points[:9], points[9:], k1=5, k2=2)(np.arange(9))
    monkeypatch.setattr(reranking, "BLOCK_BYTES", 8 * 60 * 7)  # seven rows a block, the last begins sooner
    distances_of = reranking.reranked_distances(points[:9], points[9:], k1=5, k2=2)
    rows = np.array([8, 0, 3, 3])
    np.testing.assert_allclose(distances_of(rows), whole[rows], rtol=0, atol=1e-12)


def test_far_from_the_origin_float32_keeps_its_digits():
    points = clusters(5, 50).astype(np.float32)
    near = reranking.reranked_distances(points[:9], points[9:], k1=5, k2=2)(np.arange(9))
    far = reranking.reranked_distances(points[:9] + 64, points[9:] + 64, k1=5, k2=2)(np.arange(9))
    np.testing.assert_allclose(far, near, rtol=0, atol=1e-4)


def test_copies_of_one_image_are_all_at_the_same_distance():
    points = np.tile(np.float32([[3, 4]]), (30, 1))
    distances = reranking.reranked_distances(points[:3], points[3:], k1=5, k2=2)(np.arange(3))
    assert np.isfinite(distances).all()


def test_re_ranking_finds_more_of_the_matches_in_clusters():
    rng = np.random.default_rng(0)
    pid = np.repeat(np.arange(1, 13, dtype=np.int32), 10)
    points = (rng.standard_normal((12, 8))[pid - 1] + 0.6 * rng.standard_normal((120, 8))).astype(np.float32)
    camid, is_query = np.tile(np.arange(10, dtype=np.int32), 12), np.tile(np.arange(10) == 0, 12)
    query, gallery = (Labelled(points[rows], pid[rows], camid[rows]) for rows in (is_query, ~is_query))
    before = metrics.scores(hit_ranks(compare(query, gallery)))["mAP"]
    after = metrics.scores(hit_ranks(reranking.rerank(query, gallery, k1=9, k2=4)))["mAP"]
    assert after > before + 0.05


def test_a_comparison_has_the_gallery_with_its_junk_and_the_distances_without():
    rng, points = np.random.default_rng(1), clusters(6, 60).astype(np.float32)
    query = Labelled(points[:9], rng.integers(1, 5, 9), np.full(9, 1))
    gallery = Labelled(points[9:], rng.integers(-1, 5, 51), np.full(51, 2))
    counted = np.flatnonzero(gallery.pid != -1)
    lists = nearest(reranking.rerank(query, gallery, k1=5, k2=2), 8)
    expected = reranking.reranked_distances(points[:9], points[9:][counted], k1=5, k2=2)(np.arange(9))
    order = np.argsort(expected, axis=1, kind="stable")[:, :8]
    np.testing.assert_array_equal(lists.index, counted[order])
    np.testing.assert_array_equal(lists.distance, np.take_along_axis(expected, order, axis=1))


POINTS = clusters(0, 12).astype(np.float32)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"k1": 0}, "k1 is 0: it must be from 1 to 11, one less than there are images"),
        ({"k1": 12}, "k1 is 12: it must be from 1 to 11"),
        ({"k1": 5, "k2": 0}, "k2 is 0: it must be from 1 to k1 + 1 = 6"),
        ({"k1": 5, "k2": 7}, "k2 is 7: it must be from 1 to k1 + 1 = 6"),
        ({"k1": 5, "k2": 2, "weight": 1.5}, "lambda is 1.5: it must be from 0 to 1"),
        ({"distance": "hamming"}, "unknown distance 'hamming'"),
        ({"gallery": POINTS[:, :2]}, "query embeddings are 5 wide, gallery embeddings 2"),
        ({"gallery": POINTS.astype(np.float16)}, "gallery embeddings are float16"),
        ({"gallery": np.full_like(POINTS, np.nan)}, "gallery embedding 0 has NaN or infinite values"),
    ],
)
def test_bad_input_gets_one_clear_line(options, message):
    arguments = {"query": POINTS[:4], "gallery": POINTS[4:], "k1": 3, "k2": 2} | options
    assert message in refused(reranking.reranked_distances, **arguments)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_distances_keep_the_lower_index_first(dtype):
    rng = np.random.default_rng(0)
    for points in (rng.integers(-2, 3, (60, 4)), rng.integers(0, 2, (60, 16))):  # a grid, and binary codes
        points = points.astype(dtype)
        distances = reranking.reranked_distances(points[:12], points[12:], k1=6, k2=3)(np.arange(12))
        np.testing.assert_allclose(distances, by_loops(points[:12], points[12:], 6, 3, 0.3), rtol=0, atol=2e-6)
