"""Small sets of embeddings with many ties, for hypothesis."""

import numpy as np
from hypothesis import strategies as st

from mancs_jax.evaluation.labelled import Labelled


@st.composite
def small_sets(draw, people: int = 5, cameras: int = 2, known: tuple[int, ...] = ()):
    """Draws a query and a gallery set.

    Embeddings are small whole numbers, whose distances float32 orders exactly. The gallery has junk, distractors and
    images of a query's own camera, and never only junk, which is refused. `known`: pids of the first queries.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    least = max(len(known), 1)
    num_queries, num_gallery, width = draw(st.tuples(st.integers(least, 20), st.integers(2, 40), st.integers(1, 4)))
    query, gallery = (rng.integers(-2, 3, (number, width)).astype(np.float32) for number in (num_queries, num_gallery))
    query_pid = np.append(known, rng.integers(1, people + 1, num_queries - len(known))).astype(int)
    gallery_pid = np.append(rng.integers(0, people + 1), rng.integers(-1, people + 1, num_gallery - 1))
    return (
        Labelled(query, query_pid, rng.integers(0, cameras, num_queries)),
        Labelled(gallery, gallery_pid, rng.integers(0, cameras, num_gallery)),
    )
