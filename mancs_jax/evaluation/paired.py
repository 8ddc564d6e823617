"""The paired comparison of two results on the same queries."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mancs_jax.common.local_path import local_path
from mancs_jax.evaluation import bootstrap
from mancs_jax.evaluation.per_query import PerQuery, intervals, read_queries, score_values

SCORES = ("rank-1", "rank-5", "rank-10", "mAP_plain", "mAP", "mINP")
# With fewer identities on which two results differ, even differences that all have one sign are not
# significant at the 5 % level: 2 x 0.5^5 = 6 %.
LEAST_DIFFERING = 6
TOLERANCE = 1e-5  # between the mAP of a result and that of its queries, which are float32


class Row(NamedTuple):
    """One result of a file."""

    file: str
    name: str
    result: Mapping[str, Any]
    queries: PerQuery


def compare_results(
    first: str | Path, second: str | Path, *, first_row: str = "", second_row: str = ""
) -> list[dict[str, Any]]:
    """Compares two results of `mancs evaluate` on the same queries.

    Args:
      first: JSON of a result: of results/ in a workdir, or of `--json`. The file of its scores by query is next to it.
      second: likewise; it may be the same file.
      first_row: name of the result in a file that has several, as "Mancs, re-ranked"; "" for each result whose name is
        in both files.
      second_row: likewise; "" for `first_row`.

    Returns:
      For each pair of results `first` and `second` (file, row and number of gallery images), `num_queries`,
      `num_identities` and `scores`, see `differences`.

    Raises:
      FileNotFoundError: a file is not there.
      ValueError: one line: a file is no result, has no such row, or the queries are not the same.
    """
    pairs = _paired(_rows(first), _rows(second), first_row, second_row or first_row)
    return [_compared(*pair) for pair in pairs]


def differences(first: PerQuery, second: PerQuery) -> dict[str, dict[str, Any]]:
    """Computes the paired differences of all scores, with intervals by the bootstrap over identities.

    A draw gives each identity the same weight in both results, so what makes its queries hard for both cancels out.

    Args:
      first: scores of Q queries.
      second: scores of the same queries in the same order.

    Returns:
      By the name of the score: `first` and `second` (means), `first_interval` and `second_interval`, `difference`
      (second - first), its `interval`, and `significant`: whether the interval excludes 0 and at least
      LEAST_DIFFERING identities have different scores. With fewer than `bootstrap.LEAST_IDENTITIES` identities,
      intervals are None, and so is `significant`: unknown.
    """
    people, identity = np.unique(first.pid, return_inverse=True)
    weights = bootstrap.identity_weights(len(people))
    ends = [intervals(queries)["intervals"] or {} for queries in (first, second)]
    values = [score_values(queries) for queries in (first, second)]
    compared = {}
    for name in SCORES:
        one, other = (scores[name].astype(np.float64) for scores in values)
        low, high = bootstrap.interval(bootstrap.weighted_means(other - one, identity, weights))
        differing = np.count_nonzero(np.abs(np.bincount(identity, other - one)) > 1e-9)
        compared[name] = {
            "first": float(one.mean()),
            "first_interval": ends[0].get(name),
            "second": float(other.mean()),
            "second_interval": ends[1].get(name),
            "difference": float((other - one).mean()),
            "interval": [low, high] if ends[0] else None,
            "significant": bool(differing >= LEAST_DIFFERING and (low > 0 or high < 0)) if ends[0] else None,
        }
    return compared


def _rows(path: str | Path) -> dict[str, Row]:
    """The results of a file by their names, each with the scores of its queries."""
    path = local_path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: give the JSON of a result of mancs evaluate")
    try:
        read = json.loads(path.read_bytes())
        if not isinstance(read, dict):
            raise TypeError
        results = {name: result for name, result in read.items() if isinstance(result, dict) and "mAP" in result}
        if "mAP" in read:
            results[""] = read
    except (ValueError, TypeError, RecursionError):
        results = {}
    if not results:
        raise ValueError(f"{path} is no result of mancs evaluate: give the JSON of results/ in a workdir, or of --json")
    queries_by_row = read_queries(path)
    rows = {}
    for name, queries in queries_by_row.items():
        # The file of one result, or of embeddings, has its scores at the top.
        result = results.get(name, results.get(""))
        if result is None or not _belong(result, queries):
            raise ValueError(f"{path} and the scores of its queries are of different runs: run mancs evaluate again")
        rows[name] = Row(str(path), name, result, queries)
    return rows


def _belong(result: Mapping[str, Any], queries: PerQuery) -> bool:
    mean = float(queries.average_precision.astype(np.float64).mean())
    return abs(mean - result["mAP"]) < TOLERANCE


def _paired(first: dict[str, Row], second: dict[str, Row], first_row: str, second_row: str) -> list[tuple[Row, Row]]:
    for rows, name in ((first, first_row), (second, second_row)):
        if name and name not in rows:
            file = next(iter(rows.values())).file
            raise ValueError(f"{file} has no result {name!r}; it has {', '.join(map(repr, rows))}")
    if first_row:
        return [(first[first_row], second[second_row])]
    if len(first) == 1 and len(second) == 1:
        return [(next(iter(first.values())), next(iter(second.values())))]
    if not (common := [name for name in first if name in second]):
        files = " and ".join(next(iter(rows.values())).file for rows in (first, second))
        raise ValueError(f"{files} have no result of one name: name two with --row and --other_row")
    return [(first[name], second[name]) for name in common]


def _compared(first: Row, second: Row) -> dict[str, Any]:
    for name in ("pid", "camid"):
        if not np.array_equal(getattr(first.queries, name), getattr(second.queries, name)):
            raise ValueError(
                f"{first.file} and {second.file} have different queries ({len(first.queries.pid):,} and "
                f"{len(second.queries.pid):,}, whose {name}s are not the same): evaluate both on the same test set"
            )
    for name in ("dataset", "split", "split_seed"):
        both = [row.result.get(name) for row in (first, second)]
        # A result of --features does not know its data set, so its queries are compared by pid and camid only.
        is_unknown = None in both and name != "split_seed"
        if both[0] != both[1] and not is_unknown:
            values = f"{both[0]} and {both[1]}"
            raise ValueError(
                f"{first.file} and {second.file} have different queries ({name} {values}): evaluate both on the same "
                "test set"
            )
    about = (
        {"file": row.file, "row": row.name, "num_gallery": row.result.get("num_gallery")} for row in (first, second)
    )
    return {
        **dict(zip(("first", "second"), about, strict=True)),
        "num_queries": len(first.queries.pid),
        "num_identities": len(np.unique(first.queries.pid)),
        "scores": differences(first.queries, second.queries),
    }
