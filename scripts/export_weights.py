"""Writes the network of a workdir as .safetensors with the names of the authors' release, for PyTorch.

    python scripts/export_weights.py --workdir=W --output=mancs.safetensors

`mancs_jax/weights/authors.py` says what the names are, and which a network of another recipe adds.
"""

from mancs_jax.cli import export_weights
from mancs_jax.cli.command_line import run

if __name__ == "__main__":
    run(export_weights)
