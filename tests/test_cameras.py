"""Cameras: which queries have an image to be found."""

import pytest

from mancs_jax.data.cameras import has_match


@pytest.mark.parametrize(
    ("query", "gallery", "has"),
    [
        ([(1, 1)], [(1, 2)], True),
        ([(1, 1)], [(1, 1), (2, 2)], False),  # its own view
        ([(1, 1), (2, 1)], [(1, 1), (2, 2)], True),
        ([(0, 1), (-1, 1)], [(0, 2), (-1, 2)], False),  # distractors and junk are no people
        ([], [(1, 2)], False),
    ],
)
def test_a_match_is_under_another_camera(query, gallery, has):
    assert has_match(query, gallery) == has
