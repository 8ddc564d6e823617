from unittest import mock

import hypothesis.extra.numpy as hnp
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from official_evaluation import official_evaluation

from mancs_jax.evaluation import blocks, checks, metrics, rank_kernels, ranking

# One query of each kind and a gallery on a line, so that every rank can be read off.
QUERY = np.float32([[0], [10], [1]])
QUERY_PID, QUERY_CAMID = np.int32([1, 3, 2]), np.int32([1, 1, 3])
GALLERY = np.float32([[1], [2], [0.5], [0.1], [3], [4], [-4], [5], [9]])
GALLERY_PID = np.int32([2, 1, -1, 1, 0, 1, 2, 1, 3])
GALLERY_CAMID = np.int32([2, 2, 3, 1, 2, 3, 1, 2, 1])
LITERAL = (QUERY, GALLERY, QUERY_PID, QUERY_CAMID, GALLERY_PID, GALLERY_CAMID)


def squared_distances(query, gallery):
    difference = query[:, None].astype(np.float64) - gallery[None].astype(np.float64)
    return np.sum(difference**2, axis=2)


def assert_same_scores(scores, expected):
    assert scores.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(scores[name], expected[name], rtol=0, atol=1e-9, err_msg=name)


def test_ranks_by_hand():
    hits = ranking.hit_ranks(*LITERAL)
    # Query 0 meets, nearest first: image 0 (wrong), 1 (hit), 4 (distractor), 5 (hit), 6 (as far as 5, wrong,
    # same camera, but higher index), 7 (hit), 8. Images 2 (junk) and 3 (own camera) do not count.
    # Query 1's only image of pid 3 is from its own camera.
    # Query 2: 0 (hit), 3, 1, 4, 5, 7, 6 (hit), 8; of these 6 is at 5, 7 at 4, 8 at 8.
    np.testing.assert_array_equal(hits.counts, [3, 0, 2])
    np.testing.assert_array_equal(hits.ranks, [[2, 4, 6], [0, 0, 0], [1, 7, 0]])
    assert hits.ranks.dtype == hits.counts.dtype == np.int32


def test_scores_by_hand():
    hits = metrics.HitRanks(np.int32([[2, 4, 6], [0, 0, 0], [1, 7, 0]]), np.int32([3, 0, 2]))
    trapezoid, plain = metrics.average_precisions(hits)
    # Precision before and at each hit: 0, 1/2; 1/3, 1/2; 2/5, 1/2. And 1, 1; 1/6, 2/7.
    expected = [(0 + 1 / 2 + 1 / 3 + 1 / 2 + 2 / 5 + 1 / 2) / 6, 0, (1 + 1 + 1 / 6 + 2 / 7) / 4]
    np.testing.assert_allclose(trapezoid, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(plain, [1 / 2, 0, (1 + 2 / 7) / 2], rtol=0, atol=1e-12)
    scores = metrics.scores(hits, cmc_length=3)
    assert scores["mAP"] == pytest.approx(sum(expected) / 3, abs=1e-12)
    assert scores["mAP_plain"] == pytest.approx((1 / 2 + 9 / 14) / 3, abs=1e-12)
    assert scores["mINP"] == pytest.approx((3 / 6 + 2 / 7) / 3, abs=1e-12)
    assert scores["cmc"] == pytest.approx([1 / 3, 2 / 3, 2 / 3], abs=1e-12)
    assert (scores["num_queries"], scores["num_matched_queries"]) == (3, 2)


def test_a_first_hit_beyond_the_list_is_not_in_the_cmc():
    scores = metrics.scores(metrics.HitRanks(np.int32([[51], [50]]), np.int32([1, 1])))
    assert scores["cmc"] == [0.0] * 49 + [0.5]


def test_no_query_with_a_match_scores_zero():
    hits = ranking.hit_ranks(QUERY, GALLERY, np.int32([7, 8, 9]), *LITERAL[3:])
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
    expected = official_evaluation(squared_distances(query, gallery), *labels)
    with mock.patch.multiple(blocks, BLOCK_BYTES=0, MIN_ROWS=8):  # up to three blocks, the last filled up
        scores = metrics.scores(ranking.hit_ranks(query, gallery, *labels))
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
    expected = official_evaluation(1 - query.astype(np.float64) @ gallery.T / norms, *labels)
    scores = metrics.scores(ranking.hit_ranks(query, gallery, *labels, distance="cosine"))
    assert_same_scores(scores, expected)


def test_wide_embeddings_match_a_float64_sort():
    # Whole numbers again, with few ties, and more hits than one.
    rng = np.random.default_rng(0)
    query, gallery = (rng.integers(-30, 31, (n, 64)).astype(np.float32) for n in (70, 1500))
    query_labels = rng.integers(1, 40, 70), rng.integers(1, 7, 70)
    labels = *query_labels, rng.integers(-1, 40, 1500), rng.integers(1, 7, 1500)
    expected = official_evaluation(squared_distances(query, gallery), *labels)
    assert_same_scores(metrics.scores(ranking.hit_ranks(query, gallery, *labels)), expected)


@pytest.mark.parametrize("distance", checks.DISTANCES)
def test_copies_of_an_image_tie_exactly(distance):
    # One query: a matrix-vector product would give the images at the end another last bit than those before.
    image, *queries = np.random.default_rng(0).standard_normal((9, 100)).astype(np.float32)
    pid = np.zeros(1001, np.int32)
    pid[[3, 500, 1000]] = 1
    camid = np.full(1001, 2)
    for query in queries:
        hits = ranking.hit_ranks(query[None], np.tile(image, (1001, 1)), [1], [1], pid, camid, distance=distance)
        np.testing.assert_array_equal(hits.ranks, [[4, 501, 1001]])


def test_the_inputs_are_left_alone():
    before = [array.copy() for array in LITERAL]
    ranking.hit_ranks(*LITERAL)
    for array, copy in zip(LITERAL, before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("num_queries, num_gallery", [(3368, 15913), (3368, 19732), (11659, 82161), (1, 7), (900, 3)])
def test_blocks_hold_a_few_rows_of_distances(num_queries, num_gallery):
    rows = blocks._rows_a_block(num_queries, num_gallery)
    assert rows % 8 == 0 and rows >= 8
    assert rows <= blocks.MIN_ROWS or 4 * rows * num_gallery <= blocks.BLOCK_BYTES
    filled = -(-num_queries // rows) * rows
    assert filled - num_queries < 8 * -(-num_queries // rows)  # less than 8 repeats a block


def test_a_huge_gallery_still_gets_many_rows():
    assert blocks._rows_a_block(128 * 26, 500_000) == 128


def test_a_compiled_block_needs_no_more_memory_than_its_distances():
    num_gallery, width, columns = 15913, 64, 68
    rows = blocks._rows_a_block(3368, num_gallery)

    def shaped(*shape, dtype=np.int32):
        return jax.ShapeDtypeStruct(shape, dtype)

    f32, n = np.float32, num_gallery
    in_block = (shaped(rows, width, dtype=f32), shaped(rows), shaped(rows), shaped(rows, columns), None)
    per_image = (shaped(n, dtype=f32), shaped(n, dtype=f32), shaped(n), shaped(n))
    in_gallery = (shaped(n, width, dtype=f32), *per_image)
    compiled = blocks._compiled(rank_kernels.in_front, blocks.mesh(jax.devices()[:1], 1))
    memory = compiled.lower(in_gallery, in_block, shaped()).compile().memory_analysis()
    distances = 4 * rows * num_gallery
    assert memory.temp_size_in_bytes < 1.1 * distances + 2**20  # of which the [Q, G] matrix would be 14 times
    assert memory.output_size_in_bytes == 4 * rows * columns


def test_far_from_the_origin_hits_keep_their_ranks():
    query, gallery, *labels = drawn(40, 200, 8)
    rng = np.random.default_rng(1)
    query, gallery = (part + rng.standard_normal(part.shape).astype(np.float32) for part in (query, gallery))
    near = ranking.hit_ranks(query, gallery, *labels)
    far = ranking.hit_ranks(query + 4096, gallery + 4096, *labels)
    assert np.mean(far.ranks != near.ranks) < 0.01
    assert metrics.scores(far)["mAP"] == pytest.approx(metrics.scores(near)["mAP"], abs=1e-3)


def test_whole_numbers_far_from_the_origin_tie_as_near_it():
    query, gallery, *labels = drawn(40, 200, 4)
    near = ranking.hit_ranks(query, gallery, *labels)
    np.testing.assert_array_equal(ranking.hit_ranks(query + 1000, gallery + 1000, *labels).ranks, near.ranks)


def test_only_junk_in_the_middle_costs_a_copy():
    embedding = np.arange(10, dtype=np.float32).reshape(5, 2)
    for rows in ([0, 1, 2, 3, 4], [2, 3, 4], [0, 1], [3]):
        kept = blocks.run_of_rows(embedding, np.array(rows))
        np.testing.assert_array_equal(kept, embedding[rows])
        assert np.shares_memory(kept, embedding)
    np.testing.assert_array_equal(blocks.run_of_rows(embedding, np.array([0, 3, 4])), embedding[[0, 3, 4]])


def with_value(array, index, value):
    array = array.copy()
    array[index] = value
    return array


BAD_INPUTS = {
    "query embeddings are float64 [3, 1]: they must be float32 [images, width]": {"query": QUERY.astype(float)},
    "gallery embeddings are float32 [9]: they must be float32 [images, width]": {"gallery": GALLERY[:, 0]},
    "query embeddings are empty, [0, 1]: there is nothing to rank": {"query": QUERY[:0]},
    "gallery embeddings are empty, [9, 0]: there is nothing to rank": {"gallery": GALLERY[:, :0]},
    "query pids are float32: they must be integers": {"query_pid": np.float32([1, 3, 2])},
    "gallery camids are float64: they must be integers": {"gallery_camid": GALLERY_CAMID / 1},
    "query camids have shape [2], but there are 3 query images": {"query_camid": QUERY_CAMID[:2]},
    "gallery pids have shape [9, 1], but there are 9 gallery images": {"gallery_pid": GALLERY_PID[:, None]},
    "query pids do not fit int32: number them anew": {"query_pid": np.array([2**40, 3, 2])},
    "gallery image 8 has pid -2: pids are -1 (junk), 0 (distractor) or above": {
        "gallery_pid": with_value(GALLERY_PID, 8, -2)
    },
    "every gallery image has pid -1 (junk): there is nothing to rank": {"gallery_pid": np.full(9, -1)},
    "query 1 has pid 0, which is no person: leave it out, or, if people are numbered from 0, add 1 to every pid "
    "above -1 of query and gallery": {"query_pid": np.array([1, 0, 2])},
    "query embeddings are 1 wide, gallery embeddings 2: take both from the same model": {
        "gallery": np.repeat(GALLERY, 2, axis=1)
    },
    "query embedding 2 has NaN or infinite values: check the model (1 of 3 are so)": {
        "query": with_value(QUERY, 2, np.nan)
    },
    "gallery embedding 3 has NaN or infinite values: check the model (2 of 9 are so)": {
        "gallery": with_value(GALLERY, [3, 5], np.inf)
    },
    "gallery embedding 0 has a norm above 1e18: scale the embeddings (1 of 9 are so)": {
        "gallery": with_value(GALLERY, 0, 1e30)
    },
    "query embedding 0 has norm 0 (below 1e-18), so no cosine distance: check the model (1 of 3 are so)": {
        "distance": "cosine"
    },
    "query embeddings all have norms below 1e-18: scale them": {"query": QUERY * np.float32(1e-20)},
    "unknown distance 'manhattan': use one of euclidean, cosine": {"distance": "manhattan"},
}


@pytest.mark.parametrize("message", BAD_INPUTS)
def test_bad_input_gets_one_clear_line(message):
    names = ("query", "gallery", "query_pid", "query_camid", "gallery_pid", "gallery_camid")
    with pytest.raises(ValueError) as caught:
        ranking.hit_ranks(**dict(zip(names, LITERAL, strict=True)) | BAD_INPUTS[message])
    assert str(caught.value) == message


def test_large_but_allowed_embeddings_stay_finite():
    gallery = np.float32([[-7e17, -7e17], [7e17, 7e17], [0, 0]])
    hits = ranking.hit_ranks(gallery[1:2], gallery, [1], [1], [1, 1, 1], [2, 2, 2])
    assert hits.ranks.tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    "hits, cmc_length, message",
    [
        (metrics.HitRanks(np.int32([[1]]), np.int32([1])), 0, "cmc_length is 0"),
        (metrics.HitRanks(np.zeros((0, 1), np.int32), np.int32([])), 50, "there are no queries to score"),
    ],
)
def test_metrics_of_nothing_are_refused(hits, cmc_length, message):
    with pytest.raises(ValueError, match=message):
        metrics.scores(hits, cmc_length=cmc_length)


def drawn(num_queries, num_gallery, width, seed=0):
    """Embeddings on a coarse grid, so that many distances are equal, and labels of all kinds."""
    rng = np.random.default_rng(seed)
    embeddings = [rng.integers(-2, 3, (n, width)).astype(np.float32) for n in (num_queries, num_gallery)]
    query_labels = [rng.integers(1, 9, num_queries), rng.integers(1, 4, num_queries)]
    return *embeddings, *query_labels, rng.integers(-1, 9, num_gallery), rng.integers(1, 4, num_gallery)


@pytest.mark.parametrize("distance", checks.DISTANCES)
def test_tiles_of_a_gallery_in_a_file_rank_as_the_whole(tmp_path, monkeypatch, distance):
    query, gallery, *labels = drawn(40, 333, 4)
    gallery += 1 - (np.abs(gallery).max(axis=1, keepdims=True) > 0)  # no norm of 0
    query += 1 - (np.abs(query).max(axis=1, keepdims=True) > 0)
    whole = ranking.hit_ranks(query, gallery, *labels, distance=distance)
    np.save(tmp_path / "gallery.npy", gallery)
    monkeypatch.setattr(blocks, "TILE_BYTES", 4 * 4 * 64)  # 64 images
    assert len(blocks.tiles(333, 4)) == 6
    tiled = ranking.hit_ranks(query, np.load(tmp_path / "gallery.npy", mmap_mode="r"), *labels, distance=distance)
    np.testing.assert_array_equal(tiled.ranks, whole.ranks)
    np.testing.assert_array_equal(tiled.counts, whole.counts)


def test_devices_share_the_queries_and_change_nothing(monkeypatch):
    inputs_of_all = drawn(100, 70, 4)
    monkeypatch.setattr(blocks, "MIN_ROWS", 8)
    assert blocks.mesh(None, 100).size == 8
    one, all_of_them = (ranking.hit_ranks(*inputs_of_all, devices=jax.devices()[:n]) for n in (1, 8))
    np.testing.assert_array_equal(all_of_them.ranks, one.ranks)


@settings(max_examples=20)
@given(labels=LABELS, distances=hnp.arrays(np.float32, (20, 29), elements=st.integers(0, 6).map(float)))
def test_given_distances_are_ranked_by_the_official_rules(labels, distances):
    assert_same_scores(
        metrics.scores(ranking.hit_ranks_by(distances.__getitem__, *labels)), official_evaluation(distances, *labels)
    )


@pytest.mark.parametrize(
    "distances, message",
    [
        (np.zeros((3, 8)), "have shape [8, 8], not [8, 9]"),
        (np.full((3, 9), np.nan), "some distances are NaN or infinite"),
        (np.where(np.eye(3, 9), np.inf, 0), "some distances are NaN or infinite"),
        (np.where(np.eye(3, 9), -np.inf, 0), "some distances are NaN or infinite"),
    ],
)
def test_given_distances_that_do_not_fit_are_refused(distances, message):
    with pytest.raises(ValueError) as caught:
        ranking.hit_ranks_by(distances.__getitem__, *LITERAL[2:])
    assert message in str(caught.value)
