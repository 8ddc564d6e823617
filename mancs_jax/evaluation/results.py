"""Results on disk and on the screen."""

from collections.abc import Mapping

from mancs_jax.data.cameras import UNKNOWN

TABLE_RANKS = (1, 5, 10, 20)


def cells(results: Mapping[str, Mapping]) -> list[list[str]]:
    """The rows of `table` as text, the head first."""
    rows = [["per cent", "mAP", "mAP (plain)", *(f"rank-{rank}" for rank in TABLE_RANKS), "mINP"]]
    for name, result in results.items():
        cmc = {f"rank-{rank}": result["cmc"][rank - 1] if rank <= len(result["cmc"]) else None for rank in TABLE_RANKS}
        scores = {name: result.get(name) for name in ("mAP", "mAP_plain")} | cmc | {"mINP": result.get("mINP")}
        spread = result.get("sd", {})  # over splits
        rows.append([name, *(_score(score, spread.get(which)) for which, score in scores.items())])
    return rows


def _score(score: float | None, deviation: float | None) -> str:
    if score is None:
        return "-"
    return f"{100 * score:.2f}" + (f" ± {100 * deviation:.2f}" if deviation is not None else "")


def table(results: Mapping[str, Mapping]) -> str:
    """Lay results out for the screen, a row each, in per cent; the text is a Markdown table too.

    Args:
      results: name of the row -> result, as the protocols return it.

    Returns:
      The aligned lines, without a line break at the end. A score that a result lacks shows as "-".
    """
    return _aligned(cells(results))


def _aligned(rows: list[list[str]]) -> str:
    """Lines of a Markdown table, the head first, all columns but the first to the right."""
    rows = [[name.replace("|", "\\|"), *scores] for name, *scores in rows]
    first_width, *widths = (max(map(len, column)) for column in zip(*rows, strict=True))
    rows.insert(1, ["-" * first_width, *("-" * (width - 1) + ":" for width in widths)])
    lines = []
    for name, *scores in rows:
        right = [score.rjust(width) for score, width in zip(scores, widths, strict=True)]
        lines.append(f"| {' | '.join([name.ljust(first_width), *right])} |")
    return "\n".join(lines)


def verification_table(results: Mapping[str, Mapping]) -> str:
    """Lays out how well distances tell the same person from others, a row each, in per cent; "" without such results.

    Args:
      results: name of the row -> result, as the protocols return it.

    Returns:
      Aligned lines: true positive rates at false positive rates of 1, 0.1 and 0.01 %, with the distances up to which
      pairs are accepted there, and the equal error rate. A rate of less than one negative pair is a dash.
    """
    rows = []
    for name, result in results.items():
        if verification := result.get("verification"):
            rates = [f"{100 * at['max_fpr']:g} %" for at in verification["at"]]
            head = ["same person or not", *(f"TPR at FPR {rate} (distance)" for rate in rates), "EER (distance)"]
            num_negatives = verification["num_negative_pairs"]
            points = [
                "-" if num_negatives * at["max_fpr"] < 1 else _point(at["tpr"], at["distance"])
                for at in verification["at"]
            ]
            equal_error = verification["equal_error"]
            rows.append([name, *points, _point(equal_error["rate"], equal_error["distance"])])
    return _aligned([head, *rows]) if rows else ""


def _point(rate: float, distance: float | None) -> str:
    return f"{100 * rate:.2f} ({'-' if distance is None else f'{distance:.4g}'})"


def matches(results: Mapping[str, Mapping]) -> str:
    """A line that says how many queries had a match in the gallery; the others score 0. One more without cameras."""
    counts = {(result["num_matched_queries"], result["num_queries"]) for result in results.values()}
    line = "; ".join(f"{matched:,} of {number:,} queries have a match" for matched, number in sorted(counts))
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
    return line if result["cameras_known"] else f"{line}\n{UNKNOWN}"


def distractors(result: Mapping) -> str:
    """A line that says how many gallery images are of nobody: who numbers people from 0 would not think so."""
    number = result["num_distractors"]
    return f"{number:,} gallery images have pid 0, which is no person: they count as distractors" if number else ""
