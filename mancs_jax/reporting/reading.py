"""Texts that explain the numbers of a report to readers who know no statistics."""

from collections.abc import Mapping
from typing import Any

from mancs_jax.evaluation.bootstrap import LEAST_IDENTITIES
from mancs_jax.evaluation.results import significant, verification_cells, verification_note, with_interval
from mancs_jax.reporting.report import Section

FEW_IDENTITIES = 50  # with fewer, intervals contain the true score in about 90 of 100 sets, see docs/benchmarks.md
FPR_INTERVAL = (
    "The interval of the FPR is about other people: it says how many false alarms this threshold gives for them, under "
    "the same cameras. "
)


def score_paragraphs(result: Mapping[str, Any]) -> list[str]:
    """Explains the confidence intervals of a result, or why it has none; no paragraphs of CUHK03's classic protocol."""
    if "bootstrap" not in result:
        return []
    if not result["intervals"]:
        return [
            f"The queries show {result['bootstrap']['num_identities']} people only. The scores have no confidence "
            f"intervals, because intervals of fewer than {LEAST_IDENTITIES} people would be too narrow: with other "
            "people, the scores may be very different."
        ]
    score, ends = result["cmc"][0], result["intervals"]["rank-1"]
    low, high = (f"{100 * end:.1f}" for end in ends)
    people = f"{result['bootstrap']['num_identities']:,}"
    sets = "about 90 of 100" if result["bootstrap"]["num_identities"] < FEW_IDENTITIES else "95 of 100"
    return [
        f"How to read {with_interval(score, ends)}: for {100 * score:.1f} % of the queries of these {people} people, "
        "the first image found shows the right person. Some people are harder to recognize than others, so "
        f"{people} other people would give another score. The brackets are the 95 % confidence interval: by a method "
        f"that is right in {sets} test sets, the score over all such people lies between {low} and {high} %.",
        "The interval says how much depends on the choice of people, and nothing else. Other cameras, other light, a "
        "larger gallery or a second training run can change a score by more.",
        "Whether one model is better than another is a different question. Both are tested on the same people, so even "
        "models whose intervals overlap can differ significantly: mancs compare A.json B.json answers this.",
    ]


def threshold_sections(results: Mapping[str, Mapping[str, Any]], name: str) -> list[Section]:
    """The table of decision thresholds, explained by the result of one name; empty without thresholds."""
    if not (rows := verification_cells(results)):
        return []
    size, at = results[name]["num_gallery"], results[name]["verification"]["at"][0]
    tpr, fpr, alarms = f"{100 * at['tpr']:.1f}", f"{100 * at['fpr']:.2g}", significant(at["fpr"] * size, 3)
    paragraphs = [
        "Two images count as the same person if their distance is at most the threshold. At the first threshold, "
        f"{tpr} % of the pairs of images of one person are accepted (TPR, true positive rate), and so are {fpr} % of "
        "the pairs of two different people (FPR, false positive rate).",
        f"The FPR is a rate per pair, and one query is compared with the whole gallery: {fpr} % of {size:,} images of "
        f"other people are {alarms} false alarms per query.",
        f"{FPR_INTERVAL if _has_fpr_interval(results) else ''}EER, the equal error rate: as many pairs of two people "
        "are accepted there as pairs of one person are rejected, in per cent.",
    ]
    return [Section("Decision thresholds", rows, [*paragraphs, *verification_note(results).splitlines()[1:]])]


def _has_fpr_interval(results: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the table of decision thresholds has an interval of any FPR."""
    with_pairs = (result["verification"] for result in results.values() if result.get("verification"))
    return any(at.get("fpr_interval") for pairs in with_pairs for at in pairs["at"])
