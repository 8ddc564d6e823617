"""What a result says beyond its scores: open-set rates, where the model fails, and calibrated likelihood ratios."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Integer

from mancs_jax.evaluation import calibration, open_set
from mancs_jax.evaluation.breakdown import MAX_FPR, by_cameras, by_groups, find_false_accepts, find_outcomes
from mancs_jax.evaluation.comparison import Comparison
from mancs_jax.evaluation.groups import numbered
from mancs_jax.evaluation.protocols import Evaluated


class Analyses(NamedTuple):
    """What to compute; rates for pairs of cameras are computed whenever the distances of all pairs fit into memory."""

    open_set: bool = False
    groups: Mapping[str, Mapping[Any, str]] | None = None  # attribute -> name or pid of a person -> value
    calibrate: bool = False  # fit a mapping to likelihood ratios

    def named(self) -> list[str]:
        """The flags of those that were asked for."""
        asked = {"--open_set": self.open_set, "--groups": self.groups is not None, "--calibrate": self.calibrate}
        return [flag for flag, is_asked in asked.items() if is_asked]

    def by_pid(self, people: Mapping[int, str]) -> "Analyses":
        """The same with groups by pid, for a data set with names of people, see `groups.numbered`."""
        return self if self.groups is None else self._replace(groups=numbered(self.groups, people))


NONE = Analyses()


def check_analyses(analyses: Analyses, query_pid: Integer[np.ndarray, " Q"]) -> None:
    """Raises ValueError, one line, where the queries have too few people for what was asked for."""
    people = np.unique(query_pid)
    if analyses.open_set and len(people) < 2:
        raise ValueError(
            "--open_set needs queries of at least two people, because half of them leave the gallery: leave it out"
        )
    if analyses.groups is not None and not any(
        value_of.keys() & people.tolist() for value_of in numbered(analyses.groups, {}).values()
    ):
        raise ValueError("--groups: no query shows a person of this file; give attributes of the test identities")


def analyse(
    comparison: Comparison, evaluated: Evaluated, analyses: Analyses, card: Mapping[str, Any] | None = None
) -> Evaluated:
    """Adds to a result what was asked for.

    Args:
      comparison: of embeddings.
      evaluated: of this comparison.
      analyses: what to compute. `calibrate` is left to the caller, who knows on whom.
      card: that has a calibration, see `calibration.calibrated`, or None.

    Returns:
      The same with a result that has, where it was computed, `open_set` (see `open_set.described`), `cameras` and
      `groups` (see `breakdown`) and `calibration` (`set_on`, and for the distance of the result `knots` and
      `measured_on`, the quality of the mapping on these pairs).

    Raises:
      ValueError: one line: as `check_analyses`, which can be asked before anything is computed; or a damaged
        calibration.
    """
    check_analyses(analyses, comparison.query.pid)
    added: dict[str, Any] = {}
    threshold = _threshold(evaluated.result["verification"])
    has_cameras = evaluated.result["cameras_known"] and comparison.memory is not None
    if analyses.open_set:
        added["open_set"] = open_set.described(open_set.search_open_set(comparison))
    if has_cameras or analyses.groups is not None:
        outcomes = find_outcomes(comparison, threshold)
        if has_cameras:
            added["cameras"] = by_cameras(outcomes, comparison, threshold)
        if analyses.groups is not None:
            false_accepts, is_first = find_false_accepts(comparison, threshold), evaluated.queries.first_rank == 1
            groups = numbered(analyses.groups, {})
            added["groups"] = by_groups(outcomes, false_accepts, comparison, is_first, groups, threshold)
    knots = calibration.knots_of(card, comparison.distance)
    if card and knots:
        mapping = {"knots": knots, "measured_on": calibration.quality(comparison, knots)}
        who = str(card["calibration"].get("set_on", "unknown"))
        added["calibration"] = {"set_on": who, comparison.distance: mapping}
    return evaluated._replace(result=evaluated.result | added)


def _threshold(verification: Mapping[str, Any] | None) -> float | None:
    """The threshold at a false positive rate of MAX_FPR over all pairs; None where that is less than one pair."""
    if verification is None or MAX_FPR * verification["num_negative_pairs"] < 1:
        return None
    return next((point["distance"] for point in verification["at"] if point["max_fpr"] == MAX_FPR), None)
