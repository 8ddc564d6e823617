"""Draws figure 3 of the paper for both recipes, from the code that samples.

python docs/tools/figure3.py --output=docs/figure3.svg
"""

import argparse
from pathlib import Path

from mancs_jax.config import recipes
from mancs_jax.reporting.curriculum import figure_3


def main() -> None:
    """Draws and writes the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("figure3.svg"), help="file to write")
    output = parser.parse_args().output
    output.write_text(figure_3({"paper": recipes.market(), "authors": recipes.market("authors")}))
    print(output)


if __name__ == "__main__":
    main()
