"""Scores of tracks in a video by TrackEval: MOTA and identity switches (CLEAR-MOT), and IDF1.

Bernardin and Stiefelhagen (2008), "Evaluating multiple object tracking performance"; Ristani et al. (2016),
"Performance measures and a data set for multi-target, multi-camera tracking".
"""

from typing import Any

import numpy as np
from mot import Tracks, overlaps


def score_tracks(truth: Tracks, tracks: Tracks) -> dict[str, Any]:
    """Scores tracks against the true ones.

    A box can be paired with a true box from an intersection over union of 0.5. MOTChallenge's own evaluation first
    removes boxes on people who are not scored; here such boxes count as false.

    Args:
        truth: true tracks; boxes of confidence 0 are left out.
        tracks: tracks to score.

    Returns:
      `idf1` and `mota` as fractions, `switches`, `missed` (true boxes without a pair), `false` (boxes of
      `tracks` without one), `num_boxes` (true ones), `num_tracks` (true ones) and `num_found` (tracks in `tracks`).

    Raises:
      ImportError: TrackEval is not installed.
      ValueError: one line: no true boxes, or a track has two boxes in a frame.
    """
    try:
        from trackeval.metrics import CLEAR, Identity
    except ImportError as error:
        raise ImportError(
            f"scores need TrackEval ({error}): pip install --no-deps -r examples/tracking/requirements.txt"
        ) from None
    truth = Tracks(*(field[truth.confidence != 0] for field in truth))
    if not len(truth.frame):
        raise ValueError("there are no true boxes to score against")
    _check_one_box_a_frame("truth", truth)
    _check_one_box_a_frame("tracks to score", tracks)
    sequence = _as_sequence(truth, tracks)
    clear, identity = (metric({"PRINT_CONFIG": False}).eval_sequence(sequence) for metric in (CLEAR, Identity))
    return {
        "idf1": float(identity["IDF1"]),
        "mota": float(clear["MOTA"]),
        "switches": int(clear["IDSW"]),
        "missed": int(clear["CLR_FN"]),
        "false": int(clear["CLR_FP"]),
        "num_boxes": sequence["num_gt_dets"],
        "num_tracks": sequence["num_gt_ids"],
        "num_found": sequence["num_tracker_ids"],
    }


def _as_sequence(truth: Tracks, tracks: Tracks) -> dict[str, Any]:
    """Returns the dictionary that TrackEval's metrics take: per frame, numbers of tracks from 0 and overlaps [T, N]."""
    frames = np.union1d(truth.frame, tracks.frame)
    true_ids, true_number = np.unique(truth.number, return_inverse=True)
    ids, number = np.unique(tracks.number, return_inverse=True)
    rows = [(truth.frame == frame, tracks.frame == frame) for frame in frames]
    return {
        "num_timesteps": len(frames),
        "num_gt_ids": len(true_ids),
        "num_tracker_ids": len(ids),
        "num_gt_dets": len(truth.frame),
        "num_tracker_dets": len(tracks.frame),
        "gt_ids": [true_number[true] for true, _ in rows],
        "tracker_ids": [number[own] for _, own in rows],
        "similarity_scores": [overlaps(truth.box[true], tracks.box[own]) for true, own in rows],
    }


def _check_one_box_a_frame(name: str, tracks: Tracks) -> None:
    pairs, counts = np.unique(np.stack([tracks.frame, tracks.number]), axis=1, return_counts=True)
    if (counts > 1).any():
        frame, number = pairs[:, np.argmax(counts > 1)].tolist()
        raise ValueError(f"{name}: id {number} has {counts.max()} boxes in frame {frame}; a track has one at most")
