"""Ranks the images of a gallery for one query image.

    python scripts/search.py QUERY_IMAGE --gallery=FILE.npz --workdir=W [--k=10] [--picture=OUT.png --images=FOLDER]

The gallery is a file of scripts/embed.py, made with the same workdir; the picture shows the query and its answers,
whose files are read below FOLDER, the folder that was embedded.
"""

from mancs_jax.cli import search
from mancs_jax.cli.command_line import run

if __name__ == "__main__":
    run(search)
