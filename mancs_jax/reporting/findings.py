"""The sections of a report that explain open-set rates, likelihood ratios, pairs of cameras and groups of people."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from mancs_jax.common.quoted import shortened
from mancs_jax.evaluation.calibration import log_likelihood_ratio, probability
from mancs_jax.evaluation.distances import DISTANCES
from mancs_jax.evaluation.further_tables import group_cells, named_cameras
from mancs_jax.evaluation.results import significant, with_interval
from mancs_jax.reporting import chart
from mancs_jax.reporting.matrix import matrix_svg
from mancs_jax.reporting.reliability import reliability_svg

INTERVAL = (
    "[low, high] is the 95 % confidence interval: how far the number may be off because the test has these people and "
    "not others."
)
LONGEST_LABEL = 12  # characters of a camera's name that fit over a cell of a matrix


def findings(result: Mapping[str, Any]) -> dict[str, str]:
    """Writes a section of HTML for each analysis that a result has, by its name."""
    ways = {"open_set": _open_set, "calibration": _calibration, "cameras": _cameras, "groups": _groups}
    return {name: way(_named(result)[name]) for name, way in ways.items() if result.get(name)}


def _named(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """A result whose cameras have their names."""
    names = result.get("names", {}).get("cameras", {})
    return {**result, "cameras": named_cameras(result["cameras"], names)} if result.get("cameras") else result


def finding_charts(result: Mapping[str, Any]) -> dict[str, str]:
    """Draws the charts of these sections, by the names that their files have."""
    charts = {}
    if result.get("open_set") and any(row[1] is not None for row in result["open_set"]["curve"]):
        charts["open_set"] = open_set_svg(result["open_set"]["curve"])
    if (calibration := _mapping_of(result.get("calibration"))) and calibration["measured_on"]:
        charts["reliability"] = reliability_svg(calibration["measured_on"]["reliability"])
    if cameras := _named(result).get("cameras"):
        charts["cameras"] = _camera_svg(cameras, "rank1", "queries")
        if cameras["threshold"] is not None:
            charts["cameras_tpr"] = _camera_svg(cameras, "tpr", "pairs")
    return charts


def open_set_svg(curve: Sequence[Sequence[float | None]]) -> str:
    """Draws misses over false alarms, with the interval, where there is one, as a band."""
    points = np.array([row for row in curve if row[1] is not None], np.float64)
    first = np.floor(np.log10(curve[0][0] or 1))
    points[:, 0] = np.log10(points[:, 0]) - first
    band = points[~np.isnan(points).any(axis=1)][:, [0, 2, 3]]
    ticks = {power: f"{100 * 10.0 ** (power + first):g} %" for power in np.arange(0, -first + 1)}
    return chart.document(
        [
            chart.lines(
                "misses (FNIR)",
                {"with 95 % interval" if len(band) else "without interval": points[:, :2]},
                -first,
                "false alarms (FPIR)",
                ticks=ticks,
                band=band if len(band) else None,
            )
        ]
    )


def _explained(has_intervals: bool, text: str) -> str:
    """A text, after the one that says what brackets are where there are any."""
    return f"{INTERVAL} {text}" if has_intervals else text


def _open_set(of: Mapping[str, Any]) -> str:
    lines = []
    for at in of["at"]:
        one_in = f"at most 1 in {1 / at['max_fpir']:g}"
        if at["fnir"] is None:
            lines.append(
                f"There are too few searches for absent people to find a threshold where {one_in} returns a match."
            )
        elif at["distance"] is None:
            lines.append(f"If {one_in} searches for absent people may return a match, no threshold is needed.")
        else:
            lines.append(
                f"If {one_in} searches for absent people may return a match, the threshold is "
                f"{significant(at['distance'], 4)}, and {with_interval(at['fnir'], at['fnir_interval'])} % of the "
                "searches for people who are present do not return them."
            )
    return _section(
        "If the person is not in the gallery",
        [
            "A ranked list always has a first place, even if the gallery has no image of the person. To see how often "
            f"this misleads, {of['num_removed']:,} of {of['num_identities']:,} people were removed from the gallery, "
            f"in {of['repeats']} random repeats. With a threshold on the distance, a search can fail in two ways. "
            "False alarm (FPIR): the search for an absent person returns a match. Miss (FNIR): the search for a "
            "person who is present does not return this person. A stricter threshold has fewer false alarms and more "
            "misses.",
            *lines,
            _explained(
                any(at["fnir_interval"] for at in of["at"]),
                "More people in the gallery mean more false alarms at the same threshold.",
            ),
        ],
        finding_charts({"open_set": of}).values(),
    )


def _calibration(of: Mapping[str, Any]) -> str:
    mapping = _mapping_of(of)
    if not mapping or not mapping["measured_on"]:
        return ""
    quality, knots = mapping["measured_on"], mapping["knots"]
    distance = (knots[0][0] + knots[-1][0]) / 2
    [ratio] = np.exp(log_likelihood_ratio(knots, np.array([distance])))
    rows = [["likelihood ratio", "one of 2 people", "one of 200 people", "one of 20,000 people"]]
    for stated in (0.01, 1.0, 100.0, 10000.0):
        chances = [float(probability(np.log([stated]), 1 / number)[0]) for number in (2, 200, 20000)]
        rows.append([f"{stated:,g}", *map(_chance, chances)])
    return _section(
        "How much a distance says",
        [
            "The likelihood ratio of a distance says how many times more often it occurs between two images of the "
            f"same person than between two people. Here, distance {significant(distance, 4)} has ratio "
            f"{significant(float(ratio), 3)}. A ratio above 1 speaks for the same person, below 1 against it.",
            "A ratio is not a probability. The probability also depends on how many people it could have been before "
            "the images were compared. The table shows the probability of the same person:",
        ],
        finding_charts({"calibration": of}).values(),
        rows,
        [
            "The diagram compares the ratios that the model states with the ratios in this test. Dots on the dashed "
            "line are right. A dot below the line means that the model overstates how much its distance says for the "
            "same person; a dot above it, that the model understates it.",
            f"Cllr, the cost of all ratios, is {quality['cllr']:.3f}; with the best possible calibration of this model "
            f"it would be {quality['min_cllr']:.3f}. 0 is a perfect model, and 1 is one that says nothing. The "
            f"ratios were calibrated on {of['set_on']}. They are valid only for the cameras they were calibrated "
            "under. Pairs of the same person and pairs of two people have equal weight in Cllr, although there are far "
            "more of the latter.",
        ],
    )


def _cameras(of: Mapping[str, Any]) -> str:
    worst = of["worst"]
    text = [
        "The first matrix shows rank-1 for each pair of cameras: of the queries of one camera, the share whose nearest "
        "image under the other camera shows the right person. Only queries whose person was seen under the other "
        "camera count (their number is below the share). The gallery has one camera here, so these numbers cannot be "
        "compared with the rank-1 of the whole gallery.",
    ]
    if worst:
        text.append(
            f"The worst pair: queries of camera {worst['query_camera']} in the images of camera "
            f"{worst['gallery_camera']}, rank-1 {with_interval(worst['rank1'], worst['rank1_interval'])} % "
            f"({worst['queries']:,} queries of {worst['identities']:,} people). {INTERVAL} Among many pairs, the worst "
            "looks a little worse than it is."
        )
    if of["threshold"] is not None:
        text.append(
            "The second matrix shows the share of pairs of images of the same person that are accepted at distance "
            f"{significant(of['threshold'], 4)}, where 1 in 1,000 pairs of two people is accepted over all cameras."
        )
    return _section("Where it fails: pairs of cameras", text, finding_charts({"cameras": of}).values(), scrolls=True)


def _groups(of: Mapping[str, Any]) -> str:
    shares = (
        "Rank-1 over the whole gallery. There are too few pairs of two people for shares of accepted pairs."
        if of["threshold"] is None
        else "Rank-1 over the whole gallery, and the shares of accepted pairs at the threshold where 1 in 1,000 pairs "
        "of two people is accepted over all queries: TPR of pairs of the same person (higher is better), FPR of "
        "pairs of a person of the group with any other person (lower is better)."
    )
    return _section(
        "Where it fails: groups of people",
        [
            shares,
            _explained(
                any(row["rank1_interval"] for row in of["rows"]),
                "Among 20 groups that do not differ at all, one looks different by chance. The groups overlap, and "
                "the attributes were annotated by hand; a difference does not show its cause.",
            ),
        ],
        (),
        group_cells(of),
    )


def _chance(chance: float) -> str:
    """A probability in per cent, which is never rounded to 0 or 100."""
    if chance > 0.999:
        return "above 99.9 %"
    return "below 0.01 %" if chance < 1e-4 else f"{significant(100 * chance, 2)} %"


def _mapping_of(calibration: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return (
        next((calibration[distance] for distance in DISTANCES if distance in calibration), None)
        if calibration
        else None
    )


def _camera_svg(cameras: Mapping[str, Any], rate: str, count: str) -> str:
    return matrix_svg(
        [shortened(str(camera), LONGEST_LABEL) for camera in cameras["query_cameras"]],
        [shortened(str(camera), LONGEST_LABEL) for camera in cameras["gallery_cameras"]],
        cameras[rate],
        cameras[count],
        "query camera",
        f"gallery camera: {'rank-1' if rate == 'rank1' else 'accepted pairs (TPR)'}",
    )


def _section(
    title: str,
    text: Sequence[str],
    pictures: Any = (),
    table: Sequence[Sequence[str]] = (),
    more: Sequence[str] = (),
    scrolls: bool = False,
) -> str:
    """HTML, with every text escaped: paragraphs, a table, images and more paragraphs.

    Images shrink to the width of the screen, or scroll where their text would become too small.
    """
    parts = [f"<h2>{escape(title)}</h2>", *_paragraphs(text)]
    if table:
        head, *rows = table
        lines = ["".join(f"<th>{escape(cell)}</th>" for cell in head)]
        lines += ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
        parts.append(f'<div class="wide"><table>{"".join(f"<tr>{line}</tr>" for line in lines)}</table></div>')
    parts += [f'<div class="{"wide" if scrolls else "fits"}">{picture}</div>' for picture in pictures]
    return f'<section class="finding scored">{"".join([*parts, *_paragraphs(more)])}</section>'


def _paragraphs(text: Sequence[str]) -> list[str]:
    return [f"<p>{escape(line)}</p>" for line in text]
