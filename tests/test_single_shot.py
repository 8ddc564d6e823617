"""The single-shot protocol: which images are drawn, and their scores, against loops over queries and gallery."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mancs_jax.evaluation import reranking, single_shot
from mancs_jax.evaluation.labelled import Labelled
from mancs_jax.evaluation.protocols import Options
from mancs_jax.evaluation.single_shot import SingleShot, draw, evaluate

pytestmark = pytest.mark.quick


def labelled(rows):
    """(coordinates, pid, camid) of each image."""
    embedding, pid, camid = zip(*rows, strict=True)
    return Labelled(np.array(embedding, np.float32).reshape(len(rows), -1), np.array(pid), np.array(camid))


def test_ranks_that_can_be_counted_by_hand():
    images = labelled(
        [
            (0, 1, 1),
            (1, 1, 2),  # rank 1 for person 1
            (10, 2, 1),
            (12, 2, 2),  # rank 2 for person 2: the distractor at 9 is nearer
            (20, 3, 1),
            (15, 3, 2),  # rank 2 for person 3: person 4 at 19 is nearer
            (19, 4, 2),  # without a query
            (9, 0, 2),  # a distractor
            (20, 0, 1),  # one of the other view: not in the gallery
            (20, 5, 1),  # seen by the query view only: nowhere
            (20, -1, 2),  # junk: nowhere
        ]
    )
    protocol = SingleShot(splits=3)
    draws = draw(images.pid, images.camid, protocol)
    for query, gallery in draws:
        assert query.tolist() == [0, 2, 4] and gallery.tolist() == [1, 3, 5, 6, 7]
    result = evaluate(images, protocol).result
    assert result["cmc"][:3] == pytest.approx([1 / 3, 1, 1])
    assert result["mAP_plain"] == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)
    assert result["mAP"] == pytest.approx((1 + 1 / 4 + 1 / 4) / 3)
    assert result["mean"] == pytest.approx(
        {"rank-1": 1 / 3, "rank-5": 1, "rank-10": 1, "rank-20": 1, "mAP": 1 / 2, "mAP_plain": 2 / 3}
    )
    assert set(result["sd"].values()) == {0}
    counts = ("num_splits", "num_queries", "num_matched_queries", "num_gallery", "num_gallery_only", "num_distractors")
    assert [result[name] for name in counts] == [3, 3, 3, 5, 1, 1] and result["num_identities"] == 3
    assert (result["query_camera"], result["gallery_camera"], result["split_seed"]) == (1, 2, 0)
    assert result["protocol"] == "single_shot" and result["cameras_known"] and len(result["splits"]) == 3


def test_of_equal_distances_the_lower_row_comes_first():
    distances = np.array([[2.0, 1, 1], [1, 1, 1], [0, 0, 5]])
    match = np.array([2, 0, 2])
    assert single_shot.match_ranks(distances, match, np.array([4, 7, 9])).tolist() == [2, 1, 3]
    assert single_shot.match_ranks(distances, match, np.array([9, 7, 4])).tolist() == [1, 3, 3]


def test_the_deviation_over_splits_has_n_minus_1():
    # Person 1 is found at rank 1 from row 0, at rank 2 from row 1: each split has one of both.
    images = labelled([(0, 1, 1), (10, 1, 1), (1, 1, 2), (9, 2, 2)])
    protocol = SingleShot(splits=40)
    draws = draw(images.pid, images.camid, protocol)
    result = evaluate(images, protocol).result
    first = [float(query[0] == 0) for query, _ in draws]
    assert 0 < sum(first) < 40
    assert result["mean"]["rank-1"] == pytest.approx(np.mean(first))
    assert result["sd"]["rank-1"] == pytest.approx(np.sqrt(np.sum((first - np.mean(first)) ** 2) / 39))
    assert result["sd"]["mAP"] == pytest.approx(0.75 * result["sd"]["rank-1"])  # 1 or 1/4
    assert [split["rank-1"] for split in result["splits"]] == first


@st.composite
def data_sets(draw):
    """Images with many equal distances, of up to 4 cameras; the first two identities are seen by all of them."""
    num_cameras = draw(st.integers(2, 4))
    sure = [(pid, camid) for pid in (1, 2) for camid in range(1, num_cameras + 1)]
    others = draw(st.lists(st.tuples(st.integers(-1, 6), st.integers(1, num_cameras)), max_size=25))
    labels = draw(st.permutations(sure + others))
    point = st.lists(st.integers(-2, 2), min_size=2, max_size=2).filter(any)
    points = draw(st.lists(point, min_size=len(labels), max_size=len(labels)))
    return labelled([(xy, *label) for xy, label in zip(points, labels)])


@settings(max_examples=50)
@given(data_sets(), st.booleans(), st.sampled_from(["euclidean", "cosine"]), st.integers(0, 2), st.integers(0, 99))
def test_every_draw_and_score_is_that_of_the_definition(images, is_named, distance, identities, seed):
    embedding, pid, camid = images
    cameras = (2, 1) if is_named else (1, 2) if len(set(camid[pid > 0])) == 2 else None
    named = dict(zip(("query_camera", "gallery_camera"), cameras)) if is_named else {}
    protocol = SingleShot(splits=3, identities=identities, seed=seed, **named)
    draws = draw(pid, camid, protocol)
    assert len(draws) == 3
    seen_by = {int(person): set(camid[pid == person].tolist()) for person in np.unique(pid[pid > 0])}
    if cameras:
        testable = {person for person, seen in seen_by.items() if set(cameras) <= seen}
        only_gallery = {person for person, seen in seen_by.items() if cameras[1] in seen and cameras[0] not in seen}
        distractors = {row for row in range(len(pid)) if pid[row] == 0 and camid[row] == cameras[1]}
    else:
        testable = {person for person, seen in seen_by.items() if len(seen) > 1}
        only_gallery = {person for person, seen in seen_by.items() if len(seen) == 1}
        distractors = {row for row in range(len(pid)) if pid[row] == 0}
    of_splits = []
    for query, gallery in draws:
        people = pid[query].tolist()
        assert people == sorted(set(people)) and set(people) <= testable
        assert len(people) == (identities or len(testable))
        assert pid[gallery[: len(query)]].tolist() == people
        assert sorted(pid[gallery[len(query) :]].tolist()) == sorted([*only_gallery, *[0] * len(distractors)])
        assert {row for row in gallery.tolist() if pid[row] == 0} == distractors
        for asked, found in zip(query, gallery):
            assert camid[asked] != camid[found]
        if cameras:
            assert set(camid[query]) == {cameras[0]} and set(camid[gallery]) == {cameras[1]}
        of_splits.append([by_loop(embedding, pid, row, gallery, distance) for row in query.tolist()])
    result = evaluate(images, protocol, Options(distance=distance)).result
    for rank in (1, 5, 10, 20):
        shares = [np.mean([found <= rank for found in ranks]) for ranks in of_splits]
        assert result["mean"][f"rank-{rank}"] == pytest.approx(np.mean(shares))
        assert result["sd"][f"rank-{rank}"] == pytest.approx(np.std(shares, ddof=1))
    plain = [np.mean([1 / rank for rank in ranks]) for ranks in of_splits]
    official = [np.mean([1 if rank == 1 else (0 + 1 / rank) / 2 for rank in ranks]) for ranks in of_splits]
    assert result["mAP_plain"] == pytest.approx(np.mean(plain)) and result["mAP"] == pytest.approx(np.mean(official))
    assert result["num_identities"] == len(testable)
    assert (result["num_queries"], result["num_gallery"]) == (len(draws[0].query), len(draws[0].gallery))
    assert (result["num_gallery_only"], result["num_distractors"]) == (len(only_gallery), len(distractors))
    assert (result["query_camera"], result["gallery_camera"]) == (cameras or (None, None))


def by_loop(embedding, pid, query, gallery, distance):
    """The rank of the query's match, by sorting (distance, row); directions of equal angle are told apart exactly."""

    def apart(row):
        a, b = embedding[query].astype(int).tolist(), embedding[row].astype(int).tolist()
        if distance == "euclidean":
            return sum((x - y) ** 2 for x, y in zip(a, b))
        dot = sum(x * y for x, y in zip(a, b))
        return -np.sign(dot) * dot**2 / (sum(x * x for x in a) * sum(x * x for x in b))

    order = sorted(gallery.tolist(), key=lambda row: (round(apart(row), 9), row))
    return 1 + [pid[row] for row in order].index(pid[query])


def test_draws_depend_on_the_seed_and_the_labels_only():
    rng = np.random.default_rng(0)
    pid, camid = np.repeat(np.arange(1, 31), 4), np.tile([1, 1, 2, 2], 30)
    ten, three, other = (
        draw(pid, camid, SingleShot(splits, identities=9, seed=seed)) for splits, seed in ((10, 5), (3, 5), (10, 6))
    )
    assert [(q.tolist(), g.tolist()) for q, g in ten[:3]] == [(q.tolist(), g.tolist()) for q, g in three]
    assert [q.tolist() for q, _ in ten] != [q.tolist() for q, _ in other]
    assert len({tuple(q.tolist()) for q, _ in ten}) == 10
    embedding = rng.standard_normal((120, 4)).astype(np.float32)
    protocol = SingleShot(3, identities=9, seed=5)
    assert (
        evaluate(Labelled(embedding, pid, camid), protocol).result
        == evaluate(Labelled(2 * embedding, pid, camid), protocol).result
    )


def test_every_identity_image_and_pair_of_cameras_is_drawn_as_often():
    pid, camid = np.repeat([1, 2, 3], 6), np.tile([1, 1, 2, 2, 3, 3], 3)
    draws = draw(pid, camid, SingleShot(splits=3000, identities=1))
    queries = Counter(int(query[0]) for query, _ in draws)
    pairs = Counter((int(camid[query[0]]), int(camid[gallery[0]])) for query, gallery in draws)
    # Binomial: 3,000 draws with p = 1 / 18 and 1 / 6; five deviations.
    assert set(queries) == set(range(18)) and all(abs(count - 3000 / 18) < 63 for count in queries.values())
    assert len(pairs) == 6 and all(abs(count - 500) < 103 for count in pairs.values())


@pytest.mark.parametrize("options", [Options(normalize=True), Options(distance="cosine", rerank=True, k1=4, k2=2)])
def test_options_reach_the_distances(options):
    rng = np.random.default_rng(3)
    embedding = rng.standard_normal((12, 5)).astype(np.float32) * rng.uniform(1, 9, (12, 1)).astype(np.float32)
    images = Labelled(embedding, np.tile(np.arange(1, 7), 2), np.repeat([1, 2], 6))
    if options.rerank:
        distances = reranking.reranked_distances(embedding[:6], embedding[6:], k1=4, k2=2, distance="cosine")(
            np.arange(6)
        )
    else:
        unit = embedding.astype(float) / np.linalg.norm(embedding.astype(float), axis=1)[:, None]
        distances = np.linalg.norm(unit[:6, None] - unit[None, 6:], axis=2)
    ranks = [1 + sum(row < row[person]) for person, row in enumerate(distances)]
    result = evaluate(images, SingleShot(splits=1), options).result
    assert result["mAP_plain"] == pytest.approx(np.mean([1 / rank for rank in ranks]))
    assert options.described().items() <= result.items()


def test_distances_are_those_of_the_definition():
    rng = np.random.default_rng(1)
    query, gallery = rng.standard_normal((4, 3)).astype(np.float32), rng.standard_normal((5, 3)).astype(np.float32)
    apart = np.linalg.norm(query[:, None].astype(float) - gallery[None], axis=2)
    np.testing.assert_allclose(single_shot.distance_matrix(query, gallery), apart, rtol=0, atol=1e-6)
    cosine = query @ gallery.T / np.linalg.norm(query, axis=1)[:, None] / np.linalg.norm(gallery, axis=1)
    options = Options(distance="cosine")
    np.testing.assert_allclose(single_shot.distance_matrix(query, gallery, options), 1 - cosine, rtol=0, atol=1e-6)


def test_images_without_cameras_are_drawn_in_pairs():
    images = labelled([(row, pid, row) for row, pid in enumerate([1, 1, 2, 2, 2, 3])])
    draws = draw(images.pid, images.camid)
    assert all(query[0] != gallery[0] and gallery[-1] == 5 for query, gallery in draws)
    assert not evaluate(images).result["cameras_known"]


@pytest.mark.parametrize(
    ("pid", "camid", "protocol", "message"),
    [
        ([], [], {}, "single-shot evaluation has no images to draw from"),
        ([1, 1, 2], [4, 4, 4], {}, "needs two cameras, but all people were seen by camera 4"),
        ([1, 2, 0], [1, 1, 2], {}, "needs two cameras, but all people were seen by camera 1"),
        ([1, 2], [1, 2], {}, "of all identities is impossible: 0 of 2 were seen by camera 1 and by camera 2"),
        ([1, 1, 2], [1, 2, 2], {"identities": 2}, "of 2 identities is impossible: 1 of 2 were seen by camera 1 and"),
        ([1, 2, 3], [1, 2, 3], {}, "of all identities is impossible: 0 of 3 were seen by two cameras"),
        ([1, 1], [1, 2], {"query_camera": 1}, "query_camera is 1 and gallery_camera None: name two different"),
        ([1, 1], [1, 2], {"query_camera": 2, "gallery_camera": 2}, "query_camera is 2 and gallery_camera 2: name"),
        ([1, 1], [1, 2], {"query_camera": 2, "gallery_camera": 7}, "no person was seen by camera 7; .* are 1, 2"),
        ([1, 1], [1, 2], {"splits": 0}, "splits is 0, identities 0 and seed 0: splits must be at least 1"),
        ([1, 1], [1, 2], {"identities": -1}, "identities -1 and seed 0: .* the others at least 0"),
        ([1.0, 1], [1, 2], {}, "single-shot pids are float64: they must be integers"),
    ],
)
def test_bad_input_gets_one_line(pid, camid, protocol, message):
    with pytest.raises(ValueError, match=message) as error:
        draw(np.array(pid), np.array(camid), SingleShot(**protocol))
    assert "\n" not in str(error.value)


def test_embeddings_that_are_not_finite_get_one_line():
    images = labelled([(1, 1, 1), (np.nan, 1, 2), (2, 2, 1), (3, 2, 2)])
    with pytest.raises(ValueError, match="single-shot embedding 1 has NaN"):
        evaluate(images)
