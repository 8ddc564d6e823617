"""Writes the trained network as one file that runs without this package, on CPU, GPU and TPU.

    python scripts/export.py --workdir=W --output=FILE [--flip]

Pixels (uint8 [N, H, W, 3], RGB, of the size the network was trained on) go in, embeddings (float32 [N, D]) come out;
parameters and normalisation are inside. The lines that run it are printed once its numbers equal the network's.
"""

from mancs_jax.cli import export
from mancs_jax.cli.command_line import run

if __name__ == "__main__":
    run(export)
