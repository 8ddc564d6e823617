"""Scores of tracks in a video: identity switches and MOTA (CLEAR-MOT), IDF1.

Bernardin and Stiefelhagen (2008), "Evaluating multiple object tracking performance"; Ristani et al. (2016),
"Performance measures and a data set for multi-target, multi-camera tracking". Details are those of MOTChallenge's
TrackEval, but that found boxes on people who are not scored count as false.
"""

from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from mancs_jax.data.boxes import overlaps
from mancs_jax.data.mot import Tracks

MIN_OVERLAP = 0.5  # intersection over union, from which a box may show a true box
KEPT = 1000.0  # more than any sum of overlaps: pairs of the frame before go first


def score_tracks(truth: Tracks, found: Tracks, *, min_overlap: float = MIN_OVERLAP) -> dict[str, Any]:
    """Scores tracks against the true ones.

    In each frame, true boxes and found boxes are paired: first the pairs of the frame before that still overlap
    enough, then the others, by the largest sum of overlaps. A true track that is paired with another found track than
    the last time is a switch. IDF1 pairs whole tracks, so that most boxes agree.

    Args:
      truth: true tracks; boxes of confidence 0 are left out.
      found: tracks to score.
      min_overlap: intersection over union from which two boxes can be paired, in (0, 1].

    Returns:
      `idf1` and `mota` as fractions, `switches`, `missed` (true boxes without a pair), `false` (found boxes without
      one), `num_boxes` (true ones), `num_tracks` (true ones) and `num_found` (found tracks).

    Raises:
      ValueError: one line: no true boxes, or a track has two boxes in a frame.
    """
    truth = Tracks(*(field[truth.confidence != 0] for field in truth))
    if not len(truth.frame):
        raise ValueError("there are no true boxes to score against")
    _check_one_box_a_frame("truth", truth)
    _check_one_box_a_frame("found tracks", found)
    frames = np.union1d(truth.frame, found.frame).tolist()
    per_frame = [_of_frame(truth, found, frame, min_overlap) for frame in frames]
    matched, switches = _clear(per_frame)
    missed, false = len(truth.frame) - matched, len(found.frame) - matched
    return {
        "idf1": 2 * _agreeing(per_frame) / (len(truth.frame) + len(found.frame)),
        "mota": 1 - (missed + false + switches) / len(truth.frame),
        "switches": switches,
        "missed": missed,
        "false": false,
        "num_boxes": len(truth.frame),
        "num_tracks": len(np.unique(truth.number)),
        "num_found": len(np.unique(found.number)),
    }


def _of_frame(truth: Tracks, found: Tracks, frame: int, min_overlap: float) -> tuple[list[int], list[int], np.ndarray]:
    """(true numbers [T], found numbers [F], overlaps [T, F]: 0 where two boxes cannot be paired)."""
    true_rows, found_rows = truth.frame == frame, found.frame == frame
    overlap = overlaps(truth.box[true_rows], found.box[found_rows])
    overlap[overlap < min_overlap - np.finfo(float).eps] = 0
    return truth.number[true_rows].tolist(), found.number[found_rows].tolist(), overlap


def _clear(per_frame) -> tuple[int, int]:
    """(pairs of boxes, switches), by the rules of CLEAR-MOT."""
    last: dict[int, int] = {}  # true track -> the found track that it was paired with the last time
    before: dict[int, int] = {}  # the pairs of the frame before
    matched = switches = 0
    for true_numbers, found_numbers, overlap in per_frame:
        if not overlap.size:
            continue
        kept = np.array([[before.get(true) == found for found in found_numbers] for true in true_numbers])
        score = np.where(overlap > 0, KEPT * kept + overlap, 0)
        before = {
            true_numbers[i]: found_numbers[j]
            for i, j in zip(*linear_sum_assignment(score, maximize=True), strict=True)
            if score[i, j] > 0
        }
        matched += len(before)
        switches += sum(last.get(true, found) != found for true, found in before.items())
        last |= before
    return matched, switches


def _agreeing(per_frame) -> int:
    """Boxes that agree under the best pairing of whole tracks: true positives of IDF1."""
    trues = {number: row for row, number in enumerate(sorted({n for numbers, _, _ in per_frame for n in numbers}))}
    founds = {number: row for row, number in enumerate(sorted({n for _, numbers, _ in per_frame for n in numbers}))}
    counts = np.zeros((len(trues), len(founds)), np.int64)
    for true_numbers, found_numbers, overlap in per_frame:
        for i, j in np.argwhere(overlap > 0).tolist():
            counts[trues[true_numbers[i]], founds[found_numbers[j]]] += 1
    return int(counts[linear_sum_assignment(counts, maximize=True)].sum())


def _check_one_box_a_frame(what: str, tracks: Tracks) -> None:
    pairs, counts = np.unique(np.stack([tracks.frame, tracks.number]), axis=1, return_counts=True)
    if (counts > 1).any():
        frame, number = pairs[:, np.argmax(counts > 1)].tolist()
        raise ValueError(f"{what}: id {number} has {counts.max()} boxes in frame {frame}; a track has one at most")
