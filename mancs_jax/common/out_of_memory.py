"""One line for a program that the device's memory does not hold, with what takes less."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax
from ml_collections import ConfigDict

OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"
# What takes less memory, in the order of what it costs, and where it is of use.
REMEDIES = {
    "--config.dtype=bfloat16": lambda config: config.dtype == "float32",
    "--config.remat='(2, 3, 4, 5)'": lambda config: len(config.remat) < 4,
    "--config.accumulate=4": lambda config: config.accumulate == 1,
    "more devices": lambda config: True,
}


@contextmanager
def naming_what_takes_less(config: ConfigDict) -> Iterator[None]:
    """Turns XLA's page about memory into one line.

    Args:
      config: of the training that runs inside.

    Raises:
      ValueError: the device ran out of memory; names the options of the configuration that are left.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if OUT_OF_MEMORY not in str(error):
            raise
        images = config.data.p * config.data.k
        remedies = [option for option, helps in REMEDIES.items() if helps(config)]
        raise ValueError(
            f"the device's memory does not hold a step of {images} images: take {' or '.join(remedies)} "
            "(docs/performance.md has the bytes of each)"
        ) from error
