"""Writes the trained network as one file that runs without this package: ONNX, or for JAX on CPU, GPU and TPU.

    python scripts/export.py --workdir=W --output=mancs.onnx [--input=float] [--dtype=float16] [--flip]
    python scripts/export.py --workdir=W --output=mancs.jax [--flip]

The suffix .onnx, or --format, says which. Pixels (uint8 [N, H, W, 3], RGB, of the size the network was trained on) go
in, embeddings (float32 [N, D]) come out; parameters and normalisation are inside. With --input=float an ONNX file takes
float32 [N, 3, H, W], normalised outside, as trackers give it. The lines that run it are printed once its numbers equal
the network's. `mancs_jax.load` and --network of the other commands take the file, too.
"""

from mancs_jax.cli import export
from mancs_jax.cli.command_line import run

if __name__ == "__main__":
    run(export)
