"""Memory and time of a search in galleries that no machine at hand holds, from the data sheet of an H200.

python benchmarks/scaling.py [--json=FILE]

Nothing here is a measurement. `accelerators.py` has the training step and the embedding.
"""

import argparse
import json
from pathlib import Path
from typing import NamedTuple

WIDTH = 2048  # of an embedding
GALLERIES = (10**6, 10**8, 10**10)  # crops
CODE_BYTES = 64  # of a product quantizer, a crop
MEMORY, BANDWIDTH = 141e9, 4.8e12  # of an H200: bytes, bytes/s
FILLED = 0.8  # the part of its memory that embeddings may take


class Gallery(NamedTuple):
    """A gallery of crops whose embeddings lie in float16 in the memory of cards."""

    crops: int
    float32: int  # bytes
    float16: int
    codes: int
    cards: int
    seconds: float  # of a query alone, which reads the whole gallery


def weigh(crops: int) -> Gallery:
    """Weighs a gallery."""
    float16 = crops * WIDTH * 2
    cards = -(-float16 // int(FILLED * MEMORY))
    return Gallery(crops, 2 * float16, float16, crops * CODE_BYTES, cards, float16 / cards / BANDWIDTH)


def table(galleries: list[Gallery]) -> list[str]:
    """The galleries as Markdown."""
    head = f"| crops | float32 | float16 | H200s that hold float16 | exact query on those | {CODE_BYTES}-byte codes |"
    rows = [
        f"| {one.crops:.0e} | {_size(one.float32)} | {_size(one.float16)} | {one.cards:,} | {1e3 * one.seconds:.1f} ms "
        f"| {_size(one.codes)} |"
        for one in galleries
    ]
    return [head, "|---" * 6 + "|", *rows]


def _size(number: float) -> str:
    unit, name = next((u, n) for u, n in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")) if number >= u or n == "MB")
    return f"{number / unit:.3g} {name}"


def main(arguments=None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    galleries = [weigh(crops) for crops in GALLERIES]
    print("\n".join(table(galleries)))
    if options.json:
        options.json.write_text(json.dumps([one._asdict() for one in galleries], indent=2) + "\n")


if __name__ == "__main__":
    main()
