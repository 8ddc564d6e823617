"""The scores of every query, their confidence intervals, and the file that keeps them next to a result."""

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int32

from mancs_jax.common.atomic_write import write_bytes
from mancs_jax.evaluation import bootstrap, metrics
from mancs_jax.evaluation.metrics import HitRanks
from mancs_jax.workdir import queries_path

RANKS = (1, 5, 10, 20)  # of which results have intervals
UNREADABLE = (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


class PerQuery(NamedTuple):
    """Scores of Q queries; a query without a match has the rank 0 and the scores 0."""

    pid: Int32[np.ndarray, " Q"]
    camid: Int32[np.ndarray, " Q"]
    first_rank: Int32[np.ndarray, " Q"]  # of the first match, from 1
    average_precision: Float[np.ndarray, " Q"]  # official, whose mean is mAP
    average_precision_plain: Float[np.ndarray, " Q"]
    inverse_negative_penalty: Float[np.ndarray, " Q"]  # whose mean is mINP


def per_query(hits: HitRanks, pid: np.ndarray, camid: np.ndarray) -> PerQuery:
    """Computes the scores of each query from the ranks of its matches.

    Args:
      hits: ranks of Q queries.
      pid: integer [Q], identities of the queries.
      camid: integer [Q], their cameras.
    """
    official, plain = metrics.average_precisions(hits)
    penalty = metrics.inverse_negative_penalties(hits)
    return PerQuery(np.asarray(pid, np.int32), np.asarray(camid, np.int32), hits.ranks[:, 0], official, plain, penalty)


def score_values(queries: PerQuery) -> dict[str, Float[np.ndarray, " Q"]]:
    """Returns the value of each query, in [0, 1], by the name of the score that is their mean."""
    first = queries.first_rank
    return {
        "mAP": queries.average_precision,
        "mAP_plain": queries.average_precision_plain,
        "mINP": queries.inverse_negative_penalty,
    } | {f"rank-{rank}": ((first > 0) & (first <= rank)).astype(np.float64) for rank in RANKS}


def intervals(queries: PerQuery) -> dict[str, dict | None]:
    """Computes the 95 % confidence interval of each score, see `bootstrap.mean_intervals`.

    Returns:
      `intervals`, the name of a score -> [low, high] as fractions, None with fewer than
      `bootstrap.LEAST_IDENTITIES` identities; and `bootstrap`, how they were made: `confidence`,
      `draws`, `seed` and `num_identities`.
    """
    num_identities = len(np.unique(queries.pid))
    is_enough = num_identities >= bootstrap.LEAST_IDENTITIES
    return {
        "intervals": bootstrap.mean_intervals(score_values(queries), queries.pid) if is_enough else None,
        "bootstrap": {
            "confidence": bootstrap.CONFIDENCE,
            "draws": bootstrap.DRAWS,
            "seed": bootstrap.SEED,
            "num_identities": num_identities,
        },
    }


def write_queries(result: str | Path, rows: Mapping[str, PerQuery]) -> None:
    """Writes the scores of the queries next to a result, atomically.

    The file is an .npz archive: `row` (the names of the R rows of the result), `pid` and `camid` [Q], and [R, Q] of
    each other field of `PerQuery`; scores are float32.

    Args:
      result: path of the result's JSON.
      rows: name of a row -> scores, all of the same queries.

    Raises:
      OSError: cannot be written.
    """
    first, *_ = rows.values()
    arrays = {"row": np.array(list(rows)), "pid": first.pid, "camid": first.camid}
    for field in PerQuery._fields[2:]:
        stacked = np.stack([getattr(of, field) for of in rows.values()])
        arrays[field] = stacked if field == "first_rank" else stacked.astype(np.float32)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_bytes(queries_path(result), buffer.getvalue())


def read_queries(result: str | Path) -> dict[str, PerQuery]:
    """Reads what `write_queries` wrote.

    Raises:
      FileNotFoundError: the result has no such file.
      ValueError: one line: the file is damaged.
    """
    path = queries_path(result)
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist: it has the scores of each query of {result}; run mancs evaluate again to write it"
        )
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("row", *PerQuery._fields)}
        shape = arrays["row"].shape + arrays["pid"].shape
        if len(shape) != 2 or any(arrays[field].shape != shape for field in PerQuery._fields[2:]):
            raise ValueError("its arrays do not fit together")
    except UNREADABLE as error:
        raise ValueError(f"{path} is no file of scores by query, or is damaged: run mancs evaluate again") from error
    return {
        str(name): PerQuery(arrays["pid"], arrays["camid"], *(arrays[field][row] for field in PerQuery._fields[2:]))
        for row, name in enumerate(arrays["row"])
    }
