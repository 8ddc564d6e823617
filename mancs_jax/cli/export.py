"""Writes the trained network as one file that runs without this package, on CPU, GPU and TPU.

    python scripts/export.py --workdir=W --output=FILE [--flip]

Pixels (uint8 [N, H, W, 3], RGB, of the size the network was trained on) go in, embeddings (float32 [N, D]) come out;
parameters and normalisation are inside. The lines that run it are printed once its numbers equal the network's.
"""

from collections.abc import Sequence

from absl import flags

from mancs_jax.cli.network_flags import define_network, network_of

ARGUMENTS = ()


def define(values: flags.FlagValues, argv: Sequence[str]) -> None:
    """Defines the flags."""
    define_network(values)
    flags.DEFINE_string("output", None, "File to write.", flag_values=values)
    flags.DEFINE_bool("flip", False, "Average the embeddings of an image and of its mirror image.", flag_values=values)
    flags.mark_flags_as_required(["output"], values)


def main(values: flags.FlagValues, arguments: Sequence[str]) -> None:
    """Writes the file and prints the lines that run it."""
    # Not at the top: a mistyped flag should not wait for jax.
    from mancs_jax.inference.export import export

    lines = export(network_of(values), values.output, flip=values.flip)
    print(
        f"# {values.output} gives the network's numbers. To run it, pip install jax flatbuffers numpy, then:\n{lines}",
        end="",
    )
