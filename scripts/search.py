"""Ranks the images of a gallery for one query image, or for each image of a folder.

    python scripts/search.py QUERY --gallery=FILE.npz --workdir=W [--k=10] [--picture=OUT.png --images=FOLDER]
    python scripts/search.py FOLDER --gallery=FILE.npz --workdir=W [--json=OUT.json] [--report=OUT.html --images=FOLDER]

The gallery is a file of scripts/embed.py, made with the same network. Nobody has to know who is on the queries.
Picture and page show each query and its answers, whose files are read below the folder that was embedded.
"""

from mancs_jax.cli import search
from mancs_jax.cli.command_line import run

if __name__ == "__main__":
    run(search)
