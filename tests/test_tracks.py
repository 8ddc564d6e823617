"""Identity switches, MOTA and IDF1: cases worked by hand, and every pairing of tracks by force.

The figures were also compared once with motmetrics 1.4.0 and TrackEval 1.3.0, see docs/use.md.
"""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mancs_jax.data.mot import Tracks
from mancs_jax.evaluation.tracks import score_tracks

SIDE = 10


def tracks(*rows, confidence=1.0):
    """Rows (frame, number, x): boxes of 10 x 10 at (x, 0)."""
    frame, number, x = np.array(rows, float).reshape(-1, 3).T
    box = np.stack([x, 0 * x, x + SIDE, 0 * x + SIDE], axis=1)
    return Tracks(frame.astype(int), number.astype(int), box, np.full(len(x), confidence))


def figures(truth, found, **options):
    scores = score_tracks(truth, found, **options)
    return scores["switches"], scores["missed"], scores["false"], round(scores["idf1"], 6)


A = [(frame, 1, 0) for frame in range(1, 7)]  # stands at 0 for six frames
B = [(frame, 2, 100) for frame in range(1, 7)]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        # All right, under other numbers.
        ([(f, 9, 0) for f in range(1, 7)] + [(f, 8, 100) for f in range(1, 7)], (0, 0, 0, 1.0)),
        # A's track changes its number after four frames: 10 of 12 boxes agree.
        (
            [(f, 9, 0) for f in range(1, 5)] + [(f, 7, 0) for f in (5, 6)] + [(f, 8, 100) for f in range(1, 7)],
            (1, 0, 0, round(2 * 10 / 24, 6)),
        ),
        # Both change numbers after three frames, with each other: two switches; 6 boxes agree.
        (
            [(f, 9 if f < 4 else 8, 0) for f in range(1, 7)] + [(f, 8 if f < 4 else 9, 100) for f in range(1, 7)],
            (2, 0, 0, 0.5),
        ),
        # A is lost in frames 3 and 4 and found again: no switch under the old number, one under a new number.
        ([(f, 9, 0) for f in (1, 2, 5, 6)], (0, 8, 0, round(2 * 4 / 16, 6))),
        ([(f, 9 if f < 3 else 7, 0) for f in (1, 2, 5, 6)], (1, 8, 0, round(2 * 2 / 16, 6))),
        # So it is while somebody else is found without a gap.
        (
            [(f, 9 if f < 3 else 7, 0) for f in (1, 2, 5, 6)] + [(f, 8, 100) for f in range(1, 7)],
            (1, 2, 0, round(2 * 8 / 22, 6)),
        ),
        # A box that is too far, and one of nobody.
        ([(1, 9, 0), (2, 9, 6), (3, 9, 500)], (0, 11, 2, round(2 * 1 / 15, 6))),
        ([], (0, 12, 0, 0.0)),
    ],
    ids=["right", "broken", "swapped", "lost", "lost for good", "lost beside another", "false", "nothing"],
)
def test_by_hand(found, expected):
    assert figures(tracks(*A, *B), tracks(*found)) == expected


def test_a_pair_of_the_frame_before_goes_first():
    """In frame 2, a second track lies nearer to A; the pair of frame 1 still overlaps enough and is kept."""
    truth = tracks((1, 1, 0), (2, 1, 0), (3, 1, 0))
    found = tracks((1, 9, 0), (2, 9, 3), (2, 8, 0), (3, 9, 0))
    assert figures(truth, found) == (0, 0, 1, round(2 * 3 / 7, 6))  # by the nearest of each frame: two switches
    found = tracks((1, 9, 0), (2, 9, 3), (2, 8, 0), (3, 8, 0))
    assert figures(truth, found) == (1, 0, 1, round(2 * 2 / 7, 6))  # the switch is in frame 3
    assert score_tracks(truth, found)["mota"] == pytest.approx(1 - 2 / 3)


def test_the_overlap_that_is_asked_for():
    truth, found = tracks((1, 1, 0)), tracks((1, 5, 10 / 3))  # 20/3 of 40/3 pixels a row: a half
    assert figures(truth, found) == (0, 0, 0, 1.0)
    assert figures(truth, found, min_overlap=0.51) == (0, 1, 1, 0.0)


def test_true_boxes_of_confidence_0_are_left_out():
    truth = Tracks(*(np.concatenate(fields) for fields in zip(tracks(*A), tracks(*B, confidence=0.0))))
    scores = score_tracks(truth, tracks(*A))
    assert (scores["num_boxes"], scores["num_tracks"], scores["idf1"]) == (6, 1, 1.0)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=14))
def test_idf1_by_force(entries):
    """Of all one-to-one pairings of true and found tracks, the best."""
    true = {(frame, number): 20 * number for frame, number, _ in entries}
    found = {(frame, label): 20 * number for frame, number, label in entries}
    truth, tracked = (tracks(*((f, n, x) for (f, n), x in sorted(rows.items()))) for rows in (true, found))
    labels = [0, 1, 2, 3]
    best = max(
        sum(found.get((frame, pairing[number])) == x for (frame, number), x in true.items())
        for pairing in permutations(labels, 3)
    )
    assert score_tracks(truth, tracked)["idf1"] == pytest.approx(2 * best / (len(true) + len(found)))


def test_what_cannot_be_scored():
    with pytest.raises(ValueError, match="^there are no true boxes to score against$"):
        score_tracks(tracks(), tracks(*A))
    line = "id 1 has 2 boxes in frame 3; a track has one at most$"
    with pytest.raises(ValueError, match=f"^truth: {line}"):
        score_tracks(tracks(*A, (3, 1, 50)), tracks(*A))
    with pytest.raises(ValueError, match=f"^found tracks: {line}"):
        score_tracks(tracks(*A), tracks(*A, (3, 1, 50)))
