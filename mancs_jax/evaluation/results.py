"""Results on disk and on the screen."""

from collections.abc import Mapping, Sequence

from mancs_jax.data.cameras import UNKNOWN
from mancs_jax.evaluation.bootstrap import LEAST_IDENTITIES

TABLE_RANKS = (1, 5, 10, 20)
SCORE_HEADS = {"mAP": "mAP (official)", "mAP_plain": "mAP (plain)"}  # of tables that may have both
NO_MATCH = (
    "no query has an image of its person under another camera, so all scores are 0; where cameras are not known, leave "
    "the column camid of the CSV out"
)


def cells(results: Mapping[str, Mapping]) -> list[list[str]]:
    """The rows of `table` as text, the head first."""
    rows = [["per cent", "mAP (official)", "mAP (plain)", *(f"rank-{rank}" for rank in TABLE_RANKS), "mINP"]]
    for name, result in results.items():
        cmc = {f"rank-{rank}": result["cmc"][rank - 1] if rank <= len(result["cmc"]) else None for rank in TABLE_RANKS}
        scores = {name: result.get(name) for name in ("mAP", "mAP_plain")} | cmc | {"mINP": result.get("mINP")}
        spread, intervals = result.get("sd", {}), result.get("intervals") or {}  # sd: over splits
        rows.append([name, *(_score_text(score, spread.get(of), intervals.get(of)) for of, score in scores.items())])
    return rows


def _score_text(score: float | None, deviation: float | None, interval: Sequence[float] | None) -> str:
    if score is None:
        return "-"
    if deviation is not None:
        return f"{100 * score:.2f} ± {100 * deviation:.2f}"
    return f"{100 * score:.2f}" if interval is None else with_interval(score, interval)


def with_interval(score: float, interval: Sequence[float] | None, digits: int = 1) -> str:
    """A share and its interval in per cent, as "80.8 [78.9, 82.6]"; the share only, where there is no interval."""
    text = f"{100 * score:.{digits}f}"
    return text if interval is None else f"{text} [{', '.join(f'{100 * end:.{digits}f}' for end in interval)}]"


def interval_note(results: Mapping[str, Mapping]) -> str:
    """A line that says what the brackets in a table are, or why there are none; "" where no result may have any."""
    of = next((result["bootstrap"] for result in results.values() if "bootstrap" in result), None)
    if of is None:
        return ""
    if of["num_identities"] < LEAST_IDENTITIES:
        return f"no confidence intervals: with {of['num_identities']} query identities they would be too narrow"
    return (
        f"[low, high]: {100 * of['confidence']:g} % confidence interval, by {of['draws']:,} bootstrap draws over "
        f"{of['num_identities']:,} query identities (seed {of['seed']})"
    )


def table(results: Mapping[str, Mapping]) -> str:
    """Lay results out for the screen, a row each, in per cent; the text is a Markdown table too.

    Args:
      results: name of the row -> result, as the protocols return it.

    Returns:
      The aligned lines, without a line break at the end. A score that a result lacks shows as "-".
    """
    return aligned(cells(results))


def aligned(rows: list[list[str]]) -> str:
    """Lines of a Markdown table, the head first, all columns but the first to the right."""
    rows = [[name.replace("|", "\\|"), *scores] for name, *scores in rows]
    first_width, *widths = (max(map(len, column)) for column in zip(*rows, strict=True))
    rows.insert(1, ["-" * first_width, *("-" * (width - 1) + ":" for width in widths)])
    lines = []
    for name, *scores in rows:
        right = [score.rjust(width) for score, width in zip(scores, widths, strict=True)]
        lines.append(f"| {' | '.join([name.ljust(first_width), *right])} |")
    return "\n".join(lines)


def verification_table(results: Mapping[str, Mapping], gallery_size: int = 0) -> str:
    """Lays out `verification_cells` for the screen; "" without such results."""
    rows = verification_cells(results, gallery_size)
    return aligned(rows) if rows else ""


def verification_cells(results: Mapping[str, Mapping], gallery_size: int = 0) -> list[list[str]]:
    """Tells how well distances tell the same person from others, in per cent; no rows without such results.

    Args:
      results: name of the row -> result, as the protocols return it.
      gallery_size: images of other people that false alarms are counted in; 0: as many as the gallery has.

    Returns:
      Rows of cells, the head first. There is one for each false positive rate (FPR) of each result: the decision
      threshold, the true positive rate (TPR), the FPR that is reached, and the expected number of false alarms per
      query. The last row of a result is its equal error rate (EER). A rate of less than one negative pair is a dash.
    """
    rows = []
    for name, result in results.items():
        if not (verification := result.get("verification")):
            continue
        size = gallery_size or result.get("num_gallery", 0)
        points = [
            (f"{100 * at['max_fpr']:g} %", at if verification["num_negative_pairs"] * at["max_fpr"] >= 1 else None)
            for at in verification["at"]
        ]
        error = verification["equal_error"]
        points.append(("EER", {"tpr": 1 - error["rate"], "fpr": error["rate"], "distance": error["distance"]}))
        for number, (rate, at) in enumerate(points):
            rows.append(["" if number else name, rate, *(["-"] * 4 if at is None else _point(at, size))])
    head = ["same person or not", "FPR at most", "threshold", "TPR", "FPR", "false alarms per query"]
    return [head, *rows] if rows else []


def _point(at: Mapping, size: int) -> list[str]:
    """Threshold, TPR, FPR and false alarms of a point of the ROC curve, with intervals where it has them."""
    distance = "-" if at["distance"] is None else _number(at["distance"], at.get("distance_interval"), 4)
    fpr = at.get("fpr_interval")
    alarms = _number(at["fpr"] * size, fpr and [end * size for end in fpr], 3)
    rate = _number(100 * at["fpr"], fpr and [100 * end for end in fpr], 3)
    return [distance, with_interval(at["tpr"], at.get("tpr_interval"), 2), rate, alarms]


def _number(value: float, interval: Sequence[float] | None, digits: int) -> str:
    text = significant(value, digits)
    return text if interval is None else f"{text} [{', '.join(significant(end, digits) for end in interval)}]"


def significant(value: float, digits: int) -> str:
    """A number with some significant digits, never in scientific notation."""
    return f"{float(f'{value:.{digits}g}'):,.{digits + 3}f}".rstrip("0").rstrip(".")


def verification_note(results: Mapping[str, Mapping], gallery_size: int = 0) -> str:
    """Lines that explain the table of `verification_table`; "" where it is empty."""
    with_pairs = [result for result in results.values() if result.get("verification")]
    if not with_pairs:
        return ""
    size = gallery_size or with_pairs[0].get("num_gallery", 0)
    line = f"false alarms per query: FPR x {size:,} images of other people"
    line += "" if gallery_size else " (this gallery; --gallery_size=N for another size)"
    methods = {at.get("interval_method") for result in with_pairs for at in result["verification"]["at"]}
    if "wilson" in methods:
        line += (
            "\nTPR and FPR of fewer than ten pairs have Wilson intervals, the others bootstrap intervals by identity"
        )
    return line


def comparison_text(compared: Mapping) -> str:
    """Lays out the paired comparison of two results, in per cent, with a line on what it says.

    Args:
      compared: one of `paired.compare_results`.
    """
    first, second = compared["first"], compared["second"]
    lines = [
        f"{letter}: {', '.join(filter(None, (of['file'], of['row'])))}" for letter, of in zip("AB", (first, second))
    ]
    lines.append(f"{compared['num_queries']:,} queries of {compared['num_identities']:,} identities")
    if first["num_gallery"] != second["num_gallery"]:
        sizes = f"{first['num_gallery'] or 0:,} and {second['num_gallery'] or 0:,} images"
        lines.append(f"the galleries differ ({sizes}): so the difference is not one of the models only")
    rows = [["per cent, [95 % interval]", "A", "B", "B - A", "significant (95 %)"]]
    for name, of in compared["scores"].items():
        # One digit may hide on which side of 0 an end is.
        ends = f" [{', '.join(f'{100 * end:+.2f}' for end in of['interval'])}]" if of["interval"] else ""
        rows.append(
            [
                SCORE_HEADS.get(name, name),
                with_interval(of["first"], of["first_interval"]),
                with_interval(of["second"], of["second_interval"]),
                f"{100 * of['difference']:+.2f}{ends}",
                {None: "unknown", True: "yes", False: "no"}[of["significant"]],
            ]
        )
    lines += ["", aligned(rows), ""]
    if compared["num_identities"] < LEAST_IDENTITIES:
        return "\n".join([*lines, f"unknown: {compared['num_identities']} identities are too few for an interval"])
    verdicts = {of["significant"] for of in compared["scores"].values()}
    if True in verdicts:
        lines.append(
            "yes: significant at the 5 % level, because the interval excludes 0. Two equally good models differ this "
            "much in about 1 of 20 test sets (1 of 10 with 20 identities), for each score"
        )
    if False in verdicts:
        lines.append("no: the difference may be due to chance")
    return "\n".join(lines)


def matches(results: Mapping[str, Mapping]) -> str:
    """A line that says how many queries had a match in the gallery; the others score 0. One more without cameras."""
    counts = {(result["num_matched_queries"], result["num_queries"]) for result in results.values()}
    line = "; ".join(f"{matched:,} of {number:,} queries have a match" for matched, number in sorted(counts))
    if not any(matched for matched, _ in counts):
        line += f"\n{NO_MATCH}"
    return line if all(result.get("cameras_known", True) for result in results.values()) else f"{line}\n{UNKNOWN}"


def splits(results: Mapping[str, Mapping]) -> str:
    """A line on the splits of single-shot evaluation, which all results share. One more without cameras."""
    result = next(iter(results.values()))
    number, views = result["num_splits"], (result["query_camera"], result["gallery_camera"])
    line = (
        f"mean ± standard deviation over {number} random splits (seed {result['split_seed']})"
        if number > 1
        else f"one random split (seed {result['split_seed']})"
    ) + f" of {result['num_queries']:,} of {result['num_identities']:,} identities, "
    line += (
        "two cameras of each identity, drawn in each split"
        if None in views
        else f"query camera {views[0]}, gallery camera {views[1]}"
    )
    more = {
        "identities without a query": result["num_gallery_only"],
        "distractors": result["num_distractors"],
    }
    line += "".join(f"; {count:,} {what} in the gallery" for what, count in more.items() if count)
    if intervals := result.get("intervals"):
        scores = {"rank-1": result["cmc"][0]} | {name: result[name] for name in SCORE_HEADS}
        shown = (f"{SCORE_HEADS.get(of, of)} {with_interval(score, intervals[of])}" for of, score in scores.items())
        line += f"\n{next(iter(results))}: 95 % confidence intervals of the means over identities: {', '.join(shown)}"
    return line if result["cameras_known"] else f"{line}\n{UNKNOWN}"


def distractors(result: Mapping) -> str:
    """A line with the number of distractors, which show a person if people were numbered from 0."""
    number = result["num_distractors"]
    return f"{number:,} gallery images have pid 0, which is no person: they count as distractors" if number else ""
