"""Thresholds from people in one frame, against values by hand and a loop over all pairs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mancs_jax.evaluation.frames import frame_distances, frame_thresholds

# Three people in frame 7 at 0, 3 and 7 on a line, two in frame 2 at 10 and 11, one alone, one in an unknown frame.
LINE = np.array([[0], [10], [3], [7], [11], [100], [200], [300]], np.float32)
FRAME = np.array([7, 2, 7, 7, 2, 5, -1, -1])


def test_pairs_are_those_of_one_frame():
    found = frame_distances(LINE, FRAME)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [1, 3, 4, 7])
    assert frame_distances(LINE, np.full(8, -1)).shape == frame_distances(LINE[:0], FRAME[:0]).shape == (0,)


def test_cosine_distances():
    embedding = np.array([[1, 0], [0, 5], [-2, 0]], np.float32)
    np.testing.assert_allclose(frame_distances(embedding, np.zeros(3, int), "cosine"), [1, 1, 2], atol=1e-6)


def test_thresholds_by_hand():
    distances = np.array([1, 3, 4, 7], np.float32)
    points = frame_thresholds(distances, [0.24, 0.25, 0.6, 1.0])
    assert points == [
        {"max_fpr": 0.24, "max_distance": None, "fpr": None, "pairs": 4},  # less than one pair
        {"max_fpr": 0.25, "max_distance": 1.0, "fpr": 0.25, "pairs": 4},
        {"max_fpr": 0.6, "max_distance": 3.0, "fpr": 0.5, "pairs": 4},
        {"max_fpr": 1.0, "max_distance": 7.0, "fpr": 1.0, "pairs": 4},
    ]
    assert [point["max_distance"] for point in frame_thresholds(distances[:0])] == [None] * 3


def test_pairs_at_one_distance_are_accepted_together_or_not_at_all():
    distances = np.array([1, 2, 2, 5], np.float32)
    found = [point["max_distance"] for point in frame_thresholds(distances, [0.25, 0.5, 0.75])]
    assert found == [1.0, 1.0, 2.0]
    assert frame_thresholds(np.array([2, 2, 3], np.float32), [0.34])[0]["max_distance"] is None


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=40), st.sampled_from([0.01, 0.05, 0.1, 0.125, 0.3, 1 / 3, 0.9, 1])
)
def test_no_larger_threshold_keeps_the_rate(values, rate):
    distances = np.sort(np.array(values, np.float32))
    [point] = frame_thresholds(distances, [rate])
    kept = [value for value in range(7) if np.count_nonzero(distances <= value) <= rate * len(distances) + 1e-9]
    accepted = max((value for value in kept if value in distances), default=None)
    assert point["max_distance"] == accepted
    assert point["fpr"] == (None if accepted is None else np.count_nonzero(distances <= accepted) / len(distances))


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_pairs_equal_a_loop(distance):
    rng = np.random.default_rng(0)
    embedding, frame = rng.normal(size=(60, 5)).astype(np.float32), rng.integers(-1, 15, 60)
    expected = []
    for i in range(60):
        for j in range(i):
            if frame[i] == frame[j] >= 0:
                one, other = np.float64(embedding[i]), np.float64(embedding[j])
                cosine = 1 - one @ other / np.sqrt((one @ one) * (other @ other))
                expected.append(cosine if distance == "cosine" else np.sqrt(((one - other) ** 2).sum()))
    np.testing.assert_allclose(frame_distances(embedding, frame, distance), np.sort(expected), rtol=1e-5)
