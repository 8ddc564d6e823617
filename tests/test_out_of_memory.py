"""The line about memory."""

import jax
import pytest

from mancs_jax.common.out_of_memory import suggesting_less_memory
from mancs_jax.config import defaults

pytestmark = pytest.mark.quick

FULL = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17179869184 bytes.")


def test_names_what_is_left():
    config = defaults.get_config()
    with pytest.raises(ValueError) as caught, suggesting_less_memory(config):
        raise FULL
    assert str(caught.value) == (
        "a step with batch size 256 does not fit into device memory: use --config.dtype=bfloat16 or "
        "--config.accumulate=4 or more devices (docs/performance.md has the bytes of each)"
    )
    config.dtype, config.remat, config.accumulate = "bfloat16", (), 2
    left = r"use --config.remat='\(2, 3, 4, 5\)' or more devices"
    with pytest.raises(ValueError, match=left), suggesting_less_memory(config):
        raise FULL


def test_other_errors_stay_what_they_are():
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), suggesting_less_memory(defaults.get_config()):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")
