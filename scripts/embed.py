"""Embeds every image of a folder with a trained network.

    python scripts/embed.py FOLDER --workdir=W --output=FILE.npz [--flip] [--normalize]

The file has embedding, float32 [N, D], and name, the paths below the folder, sorted; where all names are like
Market-1501's (0002_c1s1_000451_03.jpg), pid and camid, int32 [N], too.
"""

from mancs_jax.cli import embed
from mancs_jax.cli.command_line import run

if __name__ == "__main__":
    run(embed)
