"""Turns XLA's error about device memory into one line with remedies."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax
from ml_collections import ConfigDict

OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"
# Options that save memory, the cheapest first, and when they apply.
REMEDIES = {
    "--config.dtype=bfloat16": lambda config: config.dtype == "float32",
    "--config.remat='(2, 3, 4, 5)'": lambda config: len(config.remat) < 4,
    "--config.accumulate=4": lambda config: config.accumulate == 1,
    "more devices": lambda config: True,
}


@contextmanager
def suggesting_less_memory(config: ConfigDict) -> Iterator[None]:
    """Raises ValueError with the remaining options of the configuration where the device runs out of memory."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if OUT_OF_MEMORY not in str(error):
            raise
        images = config.data.p * config.data.k
        remedies = [option for option, helps in REMEDIES.items() if helps(config)]
        raise ValueError(
            f"a step with batch size {images} does not fit into device memory: use {' or '.join(remedies)} "
            "(docs/performance.md has the bytes of each)"
        ) from error
