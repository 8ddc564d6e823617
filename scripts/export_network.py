"""Writes a trained network as two files to share: its numbers, and a card that says all about it.

    python scripts/export_network.py W --name=NAME [--output=FOLDER] [--dtype=float16] [--root=data]

FOLDER then holds NAME.safetensors and NAME.json. `mancs_jax.load("FOLDER/NAME.safetensors")` and `--network=` of the
other commands read them. The card has the scores on the data set of the training, and thresholds on distances where
the run held identities out. Paths of this machine stay out of it.
"""

from mancs_jax.cli import export_network
from mancs_jax.cli.command_line import run

if __name__ == "__main__":
    run(export_network)
