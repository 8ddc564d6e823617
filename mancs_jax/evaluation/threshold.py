"""A decision threshold with the distance and the embeddings that it was calibrated for."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mancs_jax.common.local_path import local_path
from mancs_jax.evaluation.bootstrap import FEW_PAIRS
from mancs_jax.evaluation.results import significant

LARGEST = {"euclidean": float("inf"), "cosine": 2.0}  # distance that two embeddings may have
LARGEST_OF_NORM_1 = 2.0  # by either distance
UNIT = 1e-3  # a norm that differs from 1 by less is taken for one of normalised embeddings
MAX_FPR = 1e-3  # false positive rate whose threshold is taken by default
CALIBRATE = "calibrate one with images of your own people: mancs embed --csv, then mancs evaluate (docs/verify.md)"


class Threshold(NamedTuple):
    """A decision threshold: two images show the same person where their distance is at most `max_distance`."""

    max_distance: float
    distance: str  # "euclidean" or "cosine"
    normalize: bool = False  # of the embeddings that it was calibrated on
    flip: bool = False  # likewise
    network: str = ""  # fingerprint of their model; "" where it is not known
    max_fpr: float | None = None  # the false positive rate that it was calibrated for
    within_frames: bool = False  # it was calibrated on pairs within a frame: between cameras the rate is another
    few_pairs: int | None = None  # pairs of two people that were accepted there, where these are fewer than ten

    def words(self) -> str:
        """The threshold and its rate, for a sentence."""
        if self.max_fpr is None:
            return f"{self.max_distance:.4g}"
        where = " within a frame" if self.within_frames else ""
        plural = "" if self.few_pairs == 1 else "s"
        few = "" if self.few_pairs is None else f", uncertain: it rests on {self.few_pairs} pair{plural}"
        return f"{self.max_distance:.4g} (false positive rate {100 * self.max_fpr:g} %{where}{few})"


Limit = float | Threshold | None


def number_of(limit: Limit) -> float | None:
    """Returns the distance of a threshold."""
    return limit.max_distance if isinstance(limit, Threshold) else limit


def words_of(limit: Limit, gallery_size: int) -> str:
    """Returns a threshold for a table of facts; where its rate is known, with the rate and the false alarms per query
    that it lets expect in a gallery of so many images of other people."""
    if limit is None:
        return "none"
    if not isinstance(limit, Threshold):
        return f"{limit:.4g}"
    if limit.max_fpr is None:
        return limit.words()
    alarms = significant(limit.max_fpr * gallery_size, 2)
    if_so = ", if the rate within frames held across cameras" if limit.within_frames else ""
    return (
        f"{limit.words()}: {alarms} false alarms per query are expected in {gallery_size:,} images of other "
        f"people{if_so}"
    )


def described(limit: Limit) -> dict[str, Any]:
    """Returns a threshold as JSON results have it: `max_distance`, and `max_fpr` where it is known."""
    max_fpr = limit.max_fpr if isinstance(limit, Threshold) else None
    return {"max_distance": number_of(limit)} | ({} if max_fpr is None else {"max_fpr": max_fpr})


def checked_limit(
    limit: Limit, distance: str, *, normalize: bool | None = None, flip: bool | None = None, network: str = ""
) -> float | None:
    """Returns the number of a threshold, where it belongs to these distances.

    Args:
      limit: a threshold; a number, of which only the range can be checked; or None.
      distance: "euclidean" or "cosine".
      normalize: whether the embeddings have norm 1; None if unknown.
      flip: whether they are means over an image and its mirror image; None if unknown.
      network: fingerprint of their model; "" if unknown.

    Raises:
      ValueError: one line: the threshold was calibrated for other distances, or is none of these distances.
    """
    if isinstance(limit, Threshold):
        for what, calibrated, used in (
            ("distance", limit.distance, distance),
            ("normalize", limit.normalize, normalize),
            ("flip", limit.flip, flip),
        ):
            if used is not None and calibrated != used:
                raise ValueError(
                    f"the threshold was calibrated with {what}={calibrated}, and these distances have {what}={used}: "
                    "they are other numbers, so calibrate a threshold for them"
                )
        if network and limit.network and network != limit.network:
            raise ValueError(
                "the threshold was calibrated with another model, or with another step of its training: calibrate one "
                "for this model"
            )
        limit = limit.max_distance
    largest = min(LARGEST[distance], LARGEST_OF_NORM_1 if normalize else float("inf"))
    if limit is not None and not 0 <= limit <= largest:
        of = f"{distance} distance" + (" of embeddings of norm 1" if normalize and distance == "euclidean" else "")
        most = "" if largest == float("inf") else f" to {largest:g}, the largest {of}"
        raise ValueError(f"max_distance is {limit}: it must be a number from 0{most}, or None")
    return None if limit is None else float(limit)


def are_normalized(embedding: np.ndarray) -> bool:
    """Returns whether embeddings [N, D] have norm 1, as normalised ones have."""
    norms = np.sqrt(np.vecdot(embedding, embedding, dtype=np.float64))
    return bool(len(norms)) and bool(np.abs(norms - 1).max() < UNIT)


def threshold_at(points: Sequence[Mapping[str, Any]], max_fpr: float, where: str) -> float:
    """Returns the distance that belongs to a false positive rate, of `max_fpr` and `max_distance` of each point.

    Raises:
      ValueError: one line: there is none for this rate.
    """
    known = {point["max_fpr"]: point["max_distance"] for point in points if point.get("max_distance") is not None}
    for rate, limit in known.items():
        if abs(rate - max_fpr) <= 1e-9:
            return float(limit)
    if not known:
        raise ValueError(f"{where} has no decision thresholds: it has too few pairs; evaluate images of more people")
    rates = ", ".join(f"{rate:g}" for rate in known)
    raise ValueError(f"{where} has no threshold for a false positive rate of {max_fpr:g}; it has those for {rates}")


def few_pairs_at(points: Sequence[Mapping[str, Any]], max_fpr: float, num_pairs: int | None) -> int | None:
    """Returns how many of the negative pairs a threshold accepted when it was calibrated, where fewer than FEW_PAIRS.

    Args:
      points: with `max_fpr` and, where it is known, the rate `fpr` that was reached.
      max_fpr: of one of them.
      num_pairs: all negative pairs; None, as in cards of earlier versions, if unknown: the number is None then.
    """
    reached = next((point.get("fpr") for point in points if abs(point["max_fpr"] - max_fpr) <= 1e-9), None)
    if num_pairs is None or reached is None:
        return None
    accepted = round(reached * num_pairs)
    return accepted if accepted < FEW_PAIRS else None


def read_threshold(path: str | Path, max_fpr: float = MAX_FPR, distance: str | None = None) -> Threshold:
    """Reads a threshold from a result that `mancs evaluate --json` wrote.

    Args:
      path: of the result; where it holds several, the first one with verification rates is taken.
      max_fpr: false positive rate, one of those of the result.
      distance: that the threshold has to belong to; None takes that of the result.

    Raises:
      FileNotFoundError: no such file.
      ValueError: one line: no such result, or it has no threshold for this rate or distance.
    """
    path = local_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; mancs evaluate --json writes one")
    try:
        content = json.loads(path.read_bytes())
        results = [content, *content.values()]
        result = next((of for of in results if isinstance(of, dict) and of.get("verification")), None)
        if result is None:
            raise ValueError(
                f"{path} has no verification rates: none of its people has images under two cameras (leave camid out "
                "where cameras are unknown), or it is re-ranked, or no result of mancs evaluate --json"
            )
        rates = result["verification"]
        embedded = result.get("embedded") or {name: result.get(name, False) for name in ("flip", "network")}
        points = [
            {"max_fpr": at["max_fpr"], "max_distance": at["distance"]}
            for at in rates["at"]
            if at["max_fpr"] * rates["num_negative_pairs"] >= 1  # a rate of less than one pair would be a guess
        ]
        threshold = Threshold(
            threshold_at(points, max_fpr, str(path)),
            str(result["distance"]),
            bool(result["normalize"] or embedded.get("normalize")),
            bool(embedded.get("flip")),
            str(embedded.get("network") or ""),
            max_fpr,
            few_pairs=few_pairs_at(rates["at"], max_fpr, rates["num_negative_pairs"]),
        )
    except (AttributeError, KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a result of mancs evaluate --json, or is cut off") from error
    if distance is not None:
        checked_limit(threshold, distance)
    return threshold
