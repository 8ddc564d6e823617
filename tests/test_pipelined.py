"""Computations that run ahead of the reader."""

import pytest

from mancs_jax.common.pipelined import pipelined

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("ahead", [0, 1, 2, 9])
def test_items_start_ahead_and_come_in_order(ahead):
    started = []

    def items():
        for number in range(5):
            started.append(number)
            yield number

    for place, number in enumerate(pipelined(items(), ahead)):
        assert number == place and started == list(range(min(place + ahead + 1, 5)))
    assert place == 4


def test_nothing_starts_before_the_first_is_read():
    assert list(pipelined([])) == []
    pipelined(map(pytest.fail, ["started"]))
