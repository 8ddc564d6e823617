"""Draws figure 1 of the paper from the network: python scripts/figure1.py --output=figure1.svg."""

import sys
from collections.abc import Sequence

from absl import flags

from mancs_jax.cli.command_line import run
from mancs_jax.config import recipes

ARGUMENTS = ()
MARKET_1501_IDS = 751  # identities of its training set


def define(values: flags.FlagValues, argv: Sequence[str]) -> None:
    """Defines the flags."""
    flags.DEFINE_string("output", "figure1.svg", "File to write.", flag_values=values)


def main(values: flags.FlagValues, arguments: Sequence[str]) -> None:
    """Draws and writes the figure."""
    from mancs_jax.common.atomic_write import write_text
    from mancs_jax.reporting import architecture

    write_text(values.output, architecture.figure_1(recipes.market(), MARKET_1501_IDS))
    print(values.output)


if __name__ == "__main__":
    run(sys.modules[__name__])
