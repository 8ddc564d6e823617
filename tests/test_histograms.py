"""Histograms of distances."""

import numpy as np
import pytest

from mancs_jax.evaluation.comparison import compare
from mancs_jax.evaluation.labelled import Labelled
from mancs_jax.reporting.histograms import histograms

pytestmark = pytest.mark.quick


def test_histograms_are_shares_of_each_kind():
    rng = np.random.default_rng(0)
    query = Labelled(np.zeros((300, 1), np.float32), rng.integers(1, 6, 300), rng.integers(1, 4, 300))
    gallery = Labelled(rng.integers(0, 30, (40, 1)).astype(np.float32), rng.integers(-1, 6, 40), rng.integers(1, 4, 40))
    shares = histograms(compare(query, gallery))
    same = [
        distance
        for pid, camid in zip(query.pid, query.camid)
        for distance, other, view in zip(gallery.embedding[:, 0], gallery.pid, gallery.camid)
        if other == pid and view != camid
    ]
    middles, share = shares["same person"].T
    assert share.sum() == pytest.approx(1) and shares["others"][:, 1].sum() == pytest.approx(1)
    width = middles[1] - middles[0]
    for value in (1, 8, 20):  # distances are whole numbers, and a bin is narrower than 1
        assert share[int(value / width)] == pytest.approx(np.mean(np.array(same) == value))
