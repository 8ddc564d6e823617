"""Draws figure 3 of the paper for both recipes: python scripts/figure3.py --output=figure3.svg."""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from mancs_jax.cli.command_line import run
from mancs_jax.config import recipes

ARGUMENTS = ()


def define(values: flags.FlagValues, argv: Sequence[str]) -> None:
    """Defines the flags."""
    flags.DEFINE_string("output", "figure3.svg", "File to write.", flag_values=values)


def main(values: flags.FlagValues, arguments: Sequence[str]) -> None:
    """Draws and writes the figure."""
    from mancs_jax.reporting import curriculum

    drawn = {"paper": recipes.market(), "authors": recipes.market("authors")}
    Path(values.output).write_text(curriculum.figure_3(drawn))
    print(values.output)


if __name__ == "__main__":
    run(sys.modules[__name__])
