"""Identity switches, misses, false boxes and IDF1: what TrackEval is given, by cases worked by hand."""

import sys

import numpy as np
import pytest
from mot import Tracks
from scores import score_tracks

pytestmark = pytest.mark.quick

SIDE = 10


def tracks(*rows, confidence=1.0):
    """Rows (frame, number, x): boxes of 10 x 10 at (x, 0)."""
    frame, number, x = np.array(rows, float).reshape(-1, 3).T
    box = np.stack([x, 0 * x, x + SIDE, 0 * x + SIDE], axis=1)
    return Tracks(frame.astype(int), number.astype(int), box, np.full(len(x), confidence))


def figures(truth, found):
    scores = score_tracks(truth, found)
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


def test_boxes_pair_from_an_overlap_of_a_half():
    truth = tracks((1, 1, 0))
    assert figures(truth, tracks((1, 5, 3.3))) == (0, 0, 0, 1.0)  # 6.7 of 13.3 pixels a row
    assert figures(truth, tracks((1, 5, 3.4))) == (0, 1, 1, 0.0)


def test_true_boxes_of_confidence_0_are_left_out():
    truth = Tracks(*(np.concatenate(fields) for fields in zip(tracks(*A), tracks(*B, confidence=0.0))))
    scores = score_tracks(truth, tracks(*A))
    assert (scores["num_boxes"], scores["num_tracks"], scores["idf1"]) == (6, 1, 1.0)


def test_what_cannot_be_scored():
    with pytest.raises(ValueError, match="^there are no true boxes to score against$"):
        score_tracks(tracks(), tracks(*A))
    line = "id 1 has 2 boxes in frame 3; a track has one at most$"
    with pytest.raises(ValueError, match=f"^truth: {line}"):
        score_tracks(tracks(*A, (3, 1, 50)), tracks(*A))
    with pytest.raises(ValueError, match=f"^tracks to score: {line}"):
        score_tracks(tracks(*A), tracks(*A, (3, 1, 50)))


def test_without_trackeval(monkeypatch):
    monkeypatch.setitem(sys.modules, "trackeval.metrics", None)
    with pytest.raises(ImportError, match=r"^scores need TrackEval \(.*\): pip install --no-deps -r examples/"):
        score_tracks(tracks(*A), tracks(*A))
