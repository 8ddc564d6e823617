"""Figure 3: the curves are the sampler's own probabilities."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from mancs_jax.config import recipes
from mancs_jax.reporting.curriculum import SHARES, figure_3, probabilities

pytestmark = pytest.mark.quick


def test_probabilities_of_the_paper_by_equations_3_4_and_6():
    for t, mu, sigma in [(15, 120, 15), (30, 0, 15), (45, 0, 15 * 0.001**0.5)]:
        density = np.exp(-((np.arange(240) - mu) ** 2) / (2 * sigma**2))
        np.testing.assert_allclose(probabilities(recipes.market(), t), density / density.sum(), atol=1e-6)


def test_the_release_ranks_the_80_nearest_only():
    of_rank = probabilities(recipes.market("authors"), 10)  # mean 80 - 3 * 10
    assert len(of_rank) == 80 and np.argmax(of_rank) == 50


def test_a_curve_for_each_epoch_and_recipe():
    drawn = {"paper": recipes.market(), "authors": recipes.market("authors")}
    tree = ElementTree.fromstring(figure_3(drawn))
    lines = list(tree.iter("{http://www.w3.org/2000/svg}polyline"))
    assert [len(line.get("points").split()) for line in lines] == [240] * len(SHARES) + [80] * len(SHARES)
