"""What `analyses` adds to a result, laid out for the screen."""

from collections.abc import Mapping, Sequence
from typing import Any

from mancs_jax.common.screen import escaped
from mancs_jax.evaluation.breakdown import MAX_FPR
from mancs_jax.evaluation.distances import DISTANCES
from mancs_jax.evaluation.results import aligned, significant, with_interval


def further_tables(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lays out open-set rates, calibration, the worst pair of cameras and groups, each as lines of text.

    Args:
      results: name of the row -> result.
    """
    with_pairs = [(name, result) for name, result in results.items() if "verification" in result]
    texts = [
        open_set_table({name: result["open_set"] for name, result in with_pairs if result.get("open_set")}),
        *(calibration_text(result["calibration"]) for _, result in with_pairs if result.get("calibration")),
        *(
            worst_cameras(named_cameras(result["cameras"], result.get("names", {}).get("cameras", {})))
            for _, result in with_pairs
            if result.get("cameras")
        ),
        *(group_table(result) for _, result in with_pairs if result.get("groups")),
    ]
    return [text for text in texts if text]


def open_set_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Lays out the FNIR at each FPIR, in per cent, with thresholds; "" without results."""
    if not results:
        return ""
    rows = [["open set", "FPIR at most", "threshold", "FNIR (own identity not returned)"]]
    for name, result in results.items():
        for number, at in enumerate(result["at"]):
            cells = ["-", "-"]
            if at["fnir"] is not None:
                cells = [_threshold(at), with_interval(at["fnir"], at["fnir_interval"])]
            rows.append(["" if number else name, f"{100 * at['max_fpir']:g} %", *cells])
    first = next(iter(results.values()))
    return (
        f"{aligned(rows)}\nFPIR: share of the queries of people who are not in the gallery that return a match; means "
        f"over {first['repeats']} repeats, in each of which {first['num_removed']:,} of {first['num_identities']:,} "
        f"identities are removed (seed {first['seed']})"
    )


def _threshold(at: Mapping[str, Any]) -> str:
    if at["distance"] is None:
        return "none needed"
    ends = at["distance_interval"]
    more = f" [{', '.join(significant(end, 4) for end in ends)}]" if ends else ""
    return f"{significant(at['distance'], 4)}{more}"


def calibration_text(calibration: Mapping[str, Any]) -> str:
    """A line on the quality of likelihood ratios."""
    mapping = next(calibration[distance] for distance in DISTANCES if distance in calibration)
    if mapping["measured_on"] is None:
        return ""
    cllr, least = mapping["measured_on"]["cllr"], mapping["measured_on"]["min_cllr"]
    excess = f" ({100 * (cllr / least - 1):.1f} % above it)" if least else ""
    return (
        f"likelihood ratios: Cllr {cllr:.4f}, minimum {least:.4f}{excess}; 0 is perfect, 1 is no information; "
        f"calibrated on {calibration['set_on']}"
    )


def named_cameras(cameras: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The `cameras` of a result with names (camid -> name), on one line each, for the cameras that have some."""

    def name_of(camera: Any) -> str:
        return escaped(names.get(str(camera), str(camera)))

    worst = cameras["worst"]
    named = {of: [name_of(camera) for camera in cameras[of]] for of in ("query_cameras", "gallery_cameras")}
    ends = {of: name_of(worst[of]) for of in ("query_camera", "gallery_camera")} if worst else {}
    return {**cameras, **named, "worst": worst and worst | ends}


def worst_cameras(cameras: Mapping[str, Any]) -> str:
    """A line on the pair of cameras with the lowest rank-1; "" where no pair has enough identities."""
    if not (worst := cameras["worst"]):
        return ""
    return (
        f"worst pair of cameras: queries of camera {worst['query_camera']} in images of camera "
        f"{worst['gallery_camera']}, "
        f"rank-1 {with_interval(worst['rank1'], worst['rank1_interval'])} % "
        f"({worst['queries']:,} queries of {worst['identities']:,} identities)"
    )


def group_table(result: Mapping[str, Any]) -> str:
    """The groups of a result, with the false alarms per query that its threshold lets expect."""
    table = aligned(group_cells(result["groups"]))
    if result["groups"]["threshold"] is None or not (size := result.get("num_gallery")):
        return table
    alarms = significant(MAX_FPR * size, 3)
    return (
        f"{table}\nat this threshold, {100 * MAX_FPR:g} % of {size:,} images of other people are at most {alarms} "
        "false alarms per query"
    )


def group_cells(groups: Mapping[str, Any]) -> list[list[str]]:
    """Rates of each group as rows of text, the head first, in per cent; "-" of groups with too few people."""
    at = "" if groups["threshold"] is None else f" at {significant(groups['threshold'], 4)}"
    rows = [["group", "identities", "queries", "rank-1", f"TPR{at}", f"FPR{at}"]]
    for row in groups["rows"]:
        name = f"{row['attribute']}: {row['value']}" if row["value"] else row["attribute"]
        rates = [_rate(row, rate, digits) for rate, digits in (("rank1", 1), ("tpr", 1), ("fpr", 3))]
        rows.append([name, f"{row['identities']:,}", f"{row['queries']:,}", *rates])
    return rows


def _rate(row: Mapping[str, Any], name: str, digits: int) -> str:
    return "-" if row[name] is None else with_interval(row[name], row[f"{name}_interval"], digits)


def camera_cells(cameras: Mapping[str, Any], rate: str) -> Sequence[Sequence[str]]:
    """A matrix of a rate ("rank1" or "tpr") by query camera (rows) and gallery camera, in per cent, with counts."""
    count = {"rank1": "queries", "tpr": "pairs"}[rate]
    rows = [["query camera", *(f"gallery camera {camera}" for camera in cameras["gallery_cameras"])]]
    for camera, shares, ends, numbers in zip(
        cameras["query_cameras"], cameras[rate], cameras[f"{rate}_interval"], cameras[count], strict=True
    ):
        cells = [
            "-" if share is None else f"{with_interval(share, end)} ({number:,})"
            for share, end, number in zip(shares, ends, numbers, strict=True)
        ]
        rows.append([str(camera), *cells])
    return rows
