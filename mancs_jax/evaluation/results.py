"""Results on disk and on the screen."""

from collections.abc import Mapping

TABLE_RANKS = (1, 5, 10, 20)


def cells(results: Mapping[str, Mapping]) -> list[list[str]]:
    """The rows of `table` as text, the head first."""
    rows = [["per cent", "mAP", "mAP (plain)", *(f"rank-{rank}" for rank in TABLE_RANKS), "mINP"]]
    for name, result in results.items():
        cmc = [result["cmc"][rank - 1] if rank <= len(result["cmc"]) else None for rank in TABLE_RANKS]
        scores = [result.get("mAP"), result.get("mAP_plain"), *cmc, result.get("mINP")]
        rows.append([name, *("-" if score is None else f"{100 * score:.2f}" for score in scores)])
    return rows


def table(results: Mapping[str, Mapping]) -> str:
    """Lay results out for the screen, a row each, in per cent; the text is a Markdown table too.

    Args:
      results: name of the row -> result, as the protocols return it.

    Returns:
      The aligned lines, without a line break at the end. A score that a result lacks shows as "-".
    """
    rows = [[name.replace("|", "\\|"), *scores] for name, *scores in cells(results)]
    first_width, *widths = (max(map(len, column)) for column in zip(*rows, strict=True))
    rows.insert(1, ["-" * first_width, *("-" * (width - 1) + ":" for width in widths)])
    lines = []
    for name, *scores in rows:
        right = [score.rjust(width) for score, width in zip(scores, widths, strict=True)]
        lines.append(f"| {' | '.join([name.ljust(first_width), *right])} |")
    return "\n".join(lines)


def matches(results: Mapping[str, Mapping]) -> str:
    """A line that says how many queries had a match in the gallery; the others score 0."""
    counts = {(result["num_matched_queries"], result["num_queries"]) for result in results.values()}
    return "; ".join(f"{matched:,} of {number:,} queries have a match" for matched, number in sorted(counts))
