"""The way through queries and gallery: checked embeddings, cut into tiles and blocks, for ranks, lists and pairs."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from mancs_jax.evaluation import checks
from mancs_jax.evaluation.blocks import filled, mesh, query_blocks, run_of_rows, tiles
from mancs_jax.evaluation.distances import centre_of, order_terms
from mancs_jax.evaluation.hits import hit_indices


class Plan(NamedTuple):
    """The way through queries and gallery, for ranks and lists."""

    mesh: Mesh
    tiles: list[slice]
    blocks: list[np.ndarray]  # of the queries with a match
    in_tile: Callable[[slice], tuple]
    in_block: Callable[..., tuple[tuple, np.ndarray]]  # (tile, rows, known)
    all_blocks: Callable[[], Iterator[np.ndarray]]  # `blocks`, and then those of the other queries
    hit_index: np.ndarray  # see `hit_indices`
    counts: np.ndarray
    counted: np.ndarray  # int [N], the gallery images that are no junk
    squared_query: np.ndarray  # [Q], after centring


def create_plan(
    query: np.ndarray,
    gallery: np.ndarray,
    query_pid: np.ndarray,
    query_camid: np.ndarray,
    gallery_pid: np.ndarray,
    gallery_camid: np.ndarray,
    distance: str,
    devices: Sequence[jax.Device] | None,
) -> Plan:
    """Checks embeddings and labels, and cuts them up; arguments and errors as those of `ranking.hit_ranks`."""
    checks.check_distance(distance)
    query, query_pid, query_camid = checks.checked("query", query, query_pid, query_camid)
    gallery, gallery_pid, gallery_camid = checks.checked("gallery", gallery, gallery_pid, gallery_camid)
    checks.check_same_width(query, gallery)
    checks.check_known(query_pid)
    squared_query = checks.squared_norms("query", query, distance)
    squared_norm = checks.squared_norms("gallery", gallery, distance)

    counted = np.flatnonzero(gallery_pid != -1)
    gallery_pid, gallery_camid = gallery_pid[counted], gallery_camid[counted]
    hit_index, counts = hit_indices(query_pid, query_camid, gallery_pid, gallery_camid)
    centre = centre_of(query, squared_query, distance)
    if centre is not None:
        query = query - centre
        squared_query = np.vecdot(query, query)
    runs = tiles(len(counted), gallery.shape[1])
    devices_of = mesh(devices, int(np.count_nonzero(counts)))

    def in_tile(tile: slice) -> tuple:
        embedding = run_of_rows(gallery, counted[tile])
        squared = squared_norm[counted[tile]]
        if centre is not None:
            embedding = embedding - centre
            squared = np.vecdot(embedding, embedding)
        per_image = (*order_terms(squared, distance), gallery_pid[tile], gallery_camid[tile])
        return filled(embedding, per_image, runs[0].stop)

    def in_block(tile: slice, rows: np.ndarray, known: np.ndarray | None) -> tuple[tuple, np.ndarray]:
        of_block = (query[rows], query_pid[rows], query_camid[rows], hit_index[rows] - tile.start, known)
        return of_block, counts[rows]

    return Plan(
        mesh=devices_of,
        tiles=runs,
        blocks=list(query_blocks(counts, runs[0].stop, devices_of.size)),
        in_tile=in_tile,
        in_block=in_block,
        all_blocks=partial(every_block, counts, runs[0].stop, devices_of.size),
        hit_index=hit_index,
        counts=counts,
        counted=counted,
        squared_query=squared_query,
    )


def every_block(counts: np.ndarray, num_gallery: int, num_devices: int) -> Iterator[np.ndarray]:
    """The blocks of the queries with a match, as they are ranked, and then blocks of those without."""
    yield from query_blocks(counts, num_gallery, num_devices)
    yield from query_blocks((counts == 0).astype(np.int32), num_gallery, num_devices)
