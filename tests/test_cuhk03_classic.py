import numpy as np
import pytest

from mancs_jax.evaluation import cuhk03_classic
from mancs_jax.evaluation.single_shot import distance_matrix

pytestmark = pytest.mark.quick


def by_loops(distances, query_pid, gallery_pid, repeats, seed):
    """One query, one repeat, one gallery image at a time."""
    hits = np.zeros(50)
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, repeat])
        shots = []
        for pid in sorted(set(gallery_pid)):
            images = [i for i, of in enumerate(gallery_pid) if of == pid]
            shots.append(images[rng.integers(len(images))])
        for row, pid in zip(distances, query_pid):
            order = sorted(shots, key=lambda image: (row[image], image))
            ranks = [r for r, image in enumerate(order) if gallery_pid[image] == pid]
            if ranks:
                hits[ranks[0] :] += 1
    return hits / (repeats * len(query_pid))


@pytest.mark.parametrize("seed", [0, 7])
def test_it_is_a_loop_over_queries_and_repeats(seed):
    rng = np.random.default_rng(seed)
    gallery_pid = rng.permutation(np.repeat([3, 5, 8, 9, 12, 40], [1, 2, 3, 4, 5, 3]))
    query_pid = rng.choice([3, 5, 8, 9, 12, 40, 41], 25)  # 41 is not in the gallery
    distances = rng.integers(0, 6, (25, 18)).astype(float)  # many ties
    result = cuhk03_classic.evaluate(distances, query_pid, gallery_pid, repeats=9, seed=seed)
    np.testing.assert_allclose(result["cmc"], by_loops(distances, query_pid, gallery_pid, 9, seed), rtol=0, atol=1e-12)
    assert (result["num_queries"], result["num_gallery"], result["repeats"]) == (25, 6, 9)
    assert result["num_matched_queries"] == np.sum(query_pid != 41)


def test_perfect_and_random_embeddings():
    rng = np.random.default_rng(0)
    pid = np.repeat(np.arange(1, 101), 5)
    perfect = np.eye(101, dtype=np.float32)[pid]
    distances = distance_matrix(perfect, perfect)
    assert cuhk03_classic.evaluate(distances, pid, pid, repeats=3)["cmc"] == [1.0] * 50
    random = [rng.standard_normal((500, 32)).astype(np.float32) for _ in range(2)]
    result = cuhk03_classic.evaluate(distance_matrix(*random), pid, pid, repeats=50)
    assert 0.005 < result["cmc"][0] < 0.015  # one in a hundred
    assert result["cmc"][49] == pytest.approx(0.5, abs=0.05)


def test_mean_and_deviation_over_the_splits():
    cmcs = [[0.2] * 4 + [0.5] * 5 + [0.9] * 41, [0.4] * 4 + [0.5] * 5 + [0.7] * 41]
    result = cuhk03_classic.over_splits([{"cmc": cmc} for cmc in cmcs])
    assert result["num_splits"] == 2 and result["protocol"] == "cuhk03_classic"
    assert result["mean"] == pytest.approx({"rank-1": 0.3, "rank-5": 0.5, "rank-10": 0.8, "rank-20": 0.8})
    assert result["sd"] == pytest.approx({"rank-1": 0.02**0.5, "rank-5": 0, "rank-10": 0.02**0.5, "rank-20": 0.02**0.5})
    of_one = cuhk03_classic.over_splits([{"cmc": cmcs[0]}])["sd"]
    assert of_one == {"rank-1": 0, "rank-5": 0, "rank-10": 0, "rank-20": 0}


@pytest.mark.parametrize(
    "distances, options, message",
    [
        (np.zeros((2, 2)), {}, r"distances are \[2, 2\]: they must be numbers, \[2, 3\]"),
        (np.full((2, 3), np.nan), {}, r"distances are \[2, 3\] with NaN"),
        (np.zeros((2, 3)), {"repeats": 0}, "repeats is 0 and cmc_length 50: both must be at least 1"),
    ],
)
def test_bad_input_gets_one_line(distances, options, message):
    with pytest.raises(ValueError, match=message):
        cuhk03_classic.evaluate(distances, np.array([1, 2]), np.array([1, 2, 2]), **options)
