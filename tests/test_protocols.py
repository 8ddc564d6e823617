import numpy as np
import pytest
from numpy.testing import assert_allclose

from mancs_jax.evaluation import distances, protocols, reranking, single_shot
from mancs_jax.evaluation.labelled import Labelled
from mancs_jax.evaluation.protocols import Options
from mancs_jax.evaluation.ranking import nearest
from mancs_jax.evaluation.single_shot import SingleShot

pytestmark = pytest.mark.quick

# On a line; one gallery image of each kind: wrong, hit, junk, own camera, distractor.
QUERY = Labelled(np.float32([[1], [9]]), np.int32([1, 2]), np.int32([1, 1]))
GALLERY = Labelled(np.float32([[2], [3], [1], [1], [-9]]), np.int32([5, 1, -1, 1, 0]), np.int32([1, 2, 2, 1, 3]))


def drawn(number, seed, people=6):
    rng = np.random.default_rng(seed)
    pid = rng.integers(1, people + 1, number)
    centre = np.random.default_rng(0).standard_normal((people + 1, 8))
    embedding = (centre[pid] + 0.7 * rng.standard_normal((number, 8))).astype(np.float32)
    return Labelled(embedding, pid, rng.integers(1, 4, number))


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_single_query_by_hand():
    result = protocols.single_query(QUERY, GALLERY)
    assert result.pop("verification")["num_positive_pairs"] == 1  # tests/test_roc.py has the rest
    assert result.pop("bootstrap") == {"confidence": 0.95, "draws": 2000, "seed": 0, "num_identities": 2}
    assert result.pop("intervals") is None  # of two people
    # Query 0: the wrong image at distance 1, the hit at 2: rank 2. Query 1 has no match.
    assert result == {
        "protocol": "single_query",
        "distance": "euclidean",
        "normalize": False,
        "rerank": None,
        "num_queries": 2,
        "num_matched_queries": 1,
        "num_gallery": 4,
        "num_distractors": 1,
        "num_junk": 1,
        "cameras_known": True,
        "mAP": 0.125,
        "mAP_plain": 0.25,
        "mINP": 0.25,
        "cmc": [0.0] + [0.5] * 49,
    }


def test_without_cameras_no_image_is_left_out_as_own_view():
    query, gallery = QUERY._replace(camid=np.int32([0, 1])), GALLERY._replace(camid=np.arange(2, 7))
    result = protocols.single_query(query, gallery)
    # The image at distance 0, of the query's own camera before, is a hit now.
    assert (result["cameras_known"], result["cmc"][0], result["num_matched_queries"]) == (False, 0.5, 1)
    assert protocols.single_query(query, gallery._replace(camid=np.int32([2, 3, 4, 5, 0])))["cameras_known"]


def test_queries_that_are_in_the_gallery_have_no_cameras_either():
    """As where a folder without cameras is searched for each of its own images."""
    images = Labelled(np.float32([[1], [2], [8], [9]]), np.int32([1, 1, 2, 2]), np.arange(4, dtype=np.int32))
    result = protocols.single_query(images, images)
    assert (result["cameras_known"], result["cmc"][0]) == (False, 1.0)
    # Two cameras: another image of the same person under camera 0 is no copy of the query.
    query = Labelled(np.float32([[1.5]]), np.int32([1]), np.int32([0]))
    gallery = Labelled(*(field[:2] for field in images))
    assert protocols.single_query(query, gallery)["cameras_known"]


def test_single_query_hands_the_distance_on():
    result = protocols.single_query(QUERY, GALLERY, Options(distance="cosine"))
    # On a line all images on the query's side tie; the wrong one has the lower index.
    assert result["distance"] == "cosine"
    assert result["mAP_plain"] == 0.25
    hit_first = GALLERY._replace(embedding=np.float32([[-2], [3], [1], [1], [-9]]))
    assert protocols.single_query(QUERY, hit_first, Options(distance="cosine"))["mAP_plain"] == 0.5


def test_normalised_euclidean_ranks_as_cosine():
    query, gallery = drawn(30, 1), drawn(80, 2)
    normalized = protocols.single_query(query, gallery, Options(normalize=True))
    cosine = protocols.single_query(query, gallery, Options(distance="cosine"))
    assert normalized["normalize"] and normalized["distance"] == "euclidean"
    assert normalized["cmc"] == cosine["cmc"] and normalized["mAP"] == pytest.approx(cosine["mAP"], abs=1e-12)
    assert normalized["cmc"] != protocols.single_query(query, gallery)["cmc"]


def test_re_ranking_never_sees_junk():
    query, gallery = drawn(10, 3), drawn(50, 4)
    junk = Labelled(query.embedding[:5] + 0.01, np.full(5, -1), np.full(5, 2))
    with_junk = Labelled(*(np.concatenate([mine, theirs]) for mine, theirs in zip(junk, gallery)))
    options = Options(rerank=True, k1=6, k2=3, weight=0.2)
    clean, dirty = (protocols.single_query(query, part, options) for part in (gallery, with_junk))
    assert dirty | {"num_junk": 0} == clean
    assert clean["rerank"] == {"k1": 6, "k2": 3, "lambda": 0.2}
    assert clean["cmc"] != protocols.single_query(query, gallery)["cmc"]


def test_the_distances_of_a_comparison():
    query, gallery = drawn(10, 3), drawn(40, 4)
    gallery.pid[:3] = -1

    def apart(one, other):
        return np.linalg.norm(one[:, None] - other, axis=2)

    units = unit(query.embedding), unit(gallery.embedding)
    counts = distances.counts_for(query.pid, query.camid, gallery.pid, gallery.camid)
    reranked = reranking.reranked_distances(query.embedding, gallery.embedding[3:], k1=6, k2=3)(np.arange(10))
    for options, expected in [
        (Options(), apart(query.embedding, gallery.embedding)),
        (Options(normalize=True), apart(*units)),
        (Options(distance="cosine"), 1 - units[0] @ units[1].T),
        (Options(rerank=True, k1=6, k2=3), np.pad(reranked, ((0, 0), (3, 0)))),
    ]:
        comparison = protocols.compared(query, gallery, options)
        lists = nearest(comparison, 40)
        for row, (index, distance) in enumerate(zip(lists.index, lists.distance)):
            assert set(index[index >= 0]) == set(np.flatnonzero(counts[row]))
            assert_allclose(distance[index >= 0], expected[row][index[index >= 0]], rtol=0, atol=1e-5)
        result = protocols.single_query(query, gallery, options)
        assert protocols.single_query(query, gallery, options, comparison=comparison) == result


def test_multi_query_by_hand():
    # Query 0 has two more images of person 1 under camera 1; those under camera 2 and of person 3 are not pooled.
    # Query 1 has none, and keeps its own image.
    query = Labelled(np.float32([[5, 0], [0, 2]]), np.int32([1, 2]), np.int32([1, 1]))
    more = Labelled(np.float32([[3, 0], [0, 4], [9, 9], [7, -7]]), np.int32([1, 1, 1, 3]), np.int32([1, 1, 2, 1]))
    pooled, counts = protocols._pooled(query, distances.normalized("query", query.embedding), more, "mean")
    assert_allclose(pooled, [[0.5**0.5, 0.5**0.5], [0, 1]], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(counts, [2, 0])


def test_max_takes_the_largest_of_each_element():
    query = Labelled(np.float32([[5, 0]]), np.int32([1]), np.int32([1]))
    more = Labelled(np.float32([[3, 4], [8, 6]]), np.int32([1, 1]), np.int32([1, 1]))  # units (.6, .8) and (.8, .6)
    pooled, _ = protocols._pooled(query, query.embedding, more, "max")
    assert_allclose(pooled, [[0.5**0.5, 0.5**0.5]], rtol=0, atol=1e-6)


def test_multi_query_is_single_query_with_unit_vectors_of_pooled_embeddings():
    query, gallery, more = drawn(20, 5), drawn(90, 6), drawn(60, 7)
    result = protocols.multi_query(query, gallery, more, "mean")

    pooled, numbers = unit(query.embedding), []
    for row, (pid, camid) in enumerate(zip(query.pid, query.camid)):
        mine = (more.pid == pid) & (more.camid == camid)
        numbers.append(mine.sum())
        if mine.any():
            pooled[row] = unit(more.embedding[mine]).mean(axis=0)
    of_units = Labelled(unit(pooled), *query[1:]), gallery._replace(embedding=unit(gallery.embedding))
    expected = protocols.single_query(*of_units)
    assert result["cmc"] == expected["cmc"] and result["mAP"] == pytest.approx(expected["mAP"], abs=1e-12)
    assert result["protocol"] == "multi_query" and result["pooling"] == "mean"
    assert result["num_pooled"] == np.mean(numbers) and result["num_unpooled"] == np.sum(np.array(numbers) == 0)


def test_more_images_of_the_query_find_more_of_its_matches():
    query, gallery, more = drawn(40, 8), drawn(200, 9), drawn(400, 10)
    single = protocols.single_query(query, gallery)["mAP"]
    assert protocols.multi_query(query, gallery, more, "mean")["mAP"] > single + 0.03


def test_bad_options_get_one_line():
    with pytest.raises(ValueError, match="unknown distance 'l1'"):
        protocols.single_query(QUERY, GALLERY, Options(distance="l1"))
    with pytest.raises(ValueError, match="k1 is 20: it must be from 1 to 5"):
        protocols.single_query(QUERY, GALLERY, Options(rerank=True))
    with pytest.raises(ValueError, match="unknown pooling 'sum': use one of mean, max"):
        protocols.multi_query(QUERY, GALLERY, GALLERY, "sum")
    with pytest.raises(ValueError, match="multi-query embeddings are 2 wide, query embeddings 1"):
        protocols.multi_query(QUERY, GALLERY, drawn(4, 0)._replace(embedding=np.ones((4, 2), np.float32)), "mean")
    zero = QUERY._replace(embedding=np.zeros((2, 1), np.float32))
    with pytest.raises(ValueError, match="query embedding 0 has norm 0"):
        protocols.single_query(zero, GALLERY, Options(normalize=True))


def test_all_protocols_have_intervals_that_contain_their_scores():
    rng = np.random.default_rng(0)
    pid, image = np.repeat(np.arange(1, 13), 6), np.tile(np.arange(6), 12)
    embedding = (rng.normal(size=(13, 8))[pid] + 0.9 * rng.normal(size=(72, 8))).astype(np.float32)
    images = Labelled(embedding, pid, image // 2)
    query, more, gallery = (Labelled(*(of[rows] for of in images)) for rows in (image == 0, image == 1, image > 1))
    reranked = Options(rerank=True, k1=4, k2=2)
    results = [
        protocols.single_query(query, gallery),
        protocols.single_query(query, gallery, reranked),
        *(protocols.multi_query(query, gallery, more, pooling) for pooling in protocols.POOLINGS),
        protocols.multi_query(query, gallery, more, "mean", reranked),
        single_shot.evaluate(images, SingleShot(splits=5)).result,
        single_shot.evaluate(images, SingleShot(splits=5), reranked).result,
    ]
    for result in results:
        assert result["bootstrap"]["num_identities"] == 12
        scores = {name: result[name] for name in ("mAP", "mAP_plain")}
        for name, score in (scores | {f"rank-{rank}": result["cmc"][rank - 1] for rank in (1, 5)}).items():
            low, high = result["intervals"][name]
            assert low <= score <= high and low < high
