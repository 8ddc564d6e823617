"""What a query finds, against a sort of each row."""

import numpy as np
import pytest

from mancs_jax.reporting.nearest_lists import histograms, nearest_answers


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


def test_answers_are_the_nearest_that_count(drawn):
    distances, labels = drawn
    found = nearest_answers(distances.__getitem__, *labels, depth=7)
    for row in range(300):
        counts = counting(row, labels)
        expected = np.sort(distances[row][counts])[:7]
        np.testing.assert_array_equal(found.distance[row], expected)
        np.testing.assert_array_equal(distances[row][found.index[row]], expected)
        assert set(found.index[row]) <= set(counts) and len(set(found.index[row])) == 7


def test_fewer_images_than_answers_end_in_minus_one():
    found = nearest_answers(
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
