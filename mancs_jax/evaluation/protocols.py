"""Evaluation protocols: embeddings and labels in, one result out that says how it was made.

A result is a plain, flat dict, written as JSON: the scores, the counts, and the protocol and options that they were
made with. Callers add what only they know (recipe, data fingerprint, versions) before they write it.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mancs_jax.evaluation import metrics, ranking

TABLE_RANKS = (1, 5, 10, 20)


def single_query(
    query_embedding: np.ndarray,
    query_pid: np.ndarray,
    query_camid: np.ndarray,
    gallery_embedding: np.ndarray,
    gallery_pid: np.ndarray,
    gallery_camid: np.ndarray,
    *,
    distance: str = "euclidean",
) -> dict:
    """Evaluate every query image on its own, by the rules of `ranking.hit_ranks`.

    Args:
        query_embedding: float32 [Q, D].
        query_pid: integer [Q], each above 0.
        query_camid: integer [Q].
        gallery_embedding: float32 [G, D].
        gallery_pid: integer [G], -1 = junk, 0 = distractor.
        gallery_camid: integer [G].
        distance: "euclidean" or "cosine".

    Returns:
        `protocol` "single_query" and `distance`; mAP, mAP_plain, mINP, cmc, num_queries and num_matched_queries (see
        `ranking.metrics`); num_gallery (all but junk), num_distractors (those among them with pid 0) and num_junk.

    Raises:
        ValueError: as `ranking.hit_ranks`.
    """
    hits = ranking.hit_ranks(
        query_embedding,
        gallery_embedding,
        query_pid,
        query_camid,
        gallery_pid,
        gallery_camid,
        distance=distance,
    )
    gallery_pid = np.asarray(gallery_pid)
    return {
        "protocol": "single_query",
        "distance": distance,
        **metrics.scores(hits),
        "num_gallery": int(np.sum(gallery_pid != -1)),
        "num_distractors": int(np.sum(gallery_pid == 0)),
        "num_junk": int(np.sum(gallery_pid == -1)),
    }


def write_result(path: str | os.PathLike, result: Mapping) -> None:
    """Write a result as JSON, atomically: a reader finds the old file or the whole new one.

    Args:
        path: the file to write; folders on the way are made.
        result: plain dicts, lists, text and finite numbers.

    Raises:
        ValueError: if a value is not JSON, NaN and infinity included; the file is then left as it was.
    """
    path = Path(path)
    try:
        text = json.dumps(result, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"result for {path} is not plain JSON: {error}") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def table(results: Mapping[str, Mapping]) -> str:
    """Lay results out for the screen, a row each, in per cent; the text is a Markdown table too.

    Args:
        results: name of the row -> result, as `single_query` returns it.

    Returns:
        The aligned lines, without a line break at the end. A CMC rank that a result lacks shows as "-".
    """
    rows = [["per cent", "mAP", "mAP (plain)", *(f"rank-{rank}" for rank in TABLE_RANKS), "mINP"]]
    for name, result in results.items():
        cmc = [result["cmc"][rank - 1] if rank <= len(result["cmc"]) else None for rank in TABLE_RANKS]
        scores = [result["mAP"], result["mAP_plain"], *cmc, result["mINP"]]
        cells = ["-" if score is None else f"{100 * score:.2f}" for score in scores]
        rows.append([name.replace("|", "\\|"), *cells])
    first_width, *widths = (max(map(len, column)) for column in zip(*rows, strict=True))
    rows.insert(1, ["-" * first_width, *("-" * (width - 1) + ":" for width in widths)])
    lines = []
    for name, *cells in rows:
        right = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        lines.append(f"| {' | '.join([name.ljust(first_width), *right])} |")
    return "\n".join(lines)
