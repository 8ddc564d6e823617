"""The committed results in docs/results/, and their numbers as cells of Markdown tables."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = REPOSITORY / "docs" / "results"
EUCLIDEAN, COSINE = "market1501_scratch/results", "market1501_scratch/cosine"
BEFORE_LAST = "market1501_scratch/before_last"
SMALL = "market1501_small_80"


@cache
def read(file: str) -> Any:
    """Returns the content of a file in docs/results/, named without .json."""
    return json.loads((RESULTS / f"{file}.json").read_text())


def per_cent(share: float | None, digits: int = 1) -> str:
    """Returns a share in per cent; "" for None."""
    return "" if share is None else f"{100 * share:.{digits}f}"


def scores(result: dict[str, Any], ranks: Sequence[int] = (1,), digits: int = 1) -> list[str]:
    """Returns the cells official mAP, plain mAP and some ranks; a score that is missing is empty.

    Scores with confidence intervals are shown with one digit, as "80.8 [78.9, 82.6]", others with `digits`.
    """
    cmc = result["cmc"]
    values = {name: result.get(name) for name in ("mAP", "mAP_plain")}
    values |= {f"rank-{rank}": cmc[rank - 1] if rank <= len(cmc) else None for rank in ranks}
    intervals = result.get("intervals") or {}
    return [
        f"{per_cent(value)} {bracketed(intervals[name])}" if name in intervals else per_cent(value, digits)
        for name, value in values.items()
    ]


def bracketed(interval: Sequence[float], digits: str = ".1f") -> str:
    """Returns an interval of shares in per cent."""
    return f"[{', '.join(f'{100 * end:{digits}}' for end in interval)}]"


def pair(result: dict[str, Any]) -> str:
    """Returns "rank-1 / plain mAP"."""
    return f"{per_cent(result['cmc'][0])} / {per_cent(result['mAP_plain'])}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table with a line break at its end."""
    lines = [f"| {' | '.join(line)} |" for line in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]]) + "\n"


def machine_of(about: dict[str, Any]) -> str:
    """Returns the processor and the versions that a result of benchmarks/ was made with."""
    versions = ", ".join(f"{library} {version}" for library, version in about["versions"].items())
    return f"{about['cores']} cores of {about['cpu']}, {versions}"
