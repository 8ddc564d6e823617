"""Rules of distances, alone."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mancs_jax.evaluation.distances import smallest

pytestmark = pytest.mark.quick


@settings(max_examples=20)
@given(
    st.sampled_from([5, 96, 101]).flatmap(
        lambda width: hnp.arrays(np.float32, (7, width), elements=st.integers(0, 9).map(float))  # many ties
    ),
    st.sampled_from([1, 3, 5]),
)
def test_the_smallest_are_those_of_a_stable_sort(values, k):
    expected = np.argsort(values, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(jax.jit(smallest, static_argnums=1)(values, k), expected)
