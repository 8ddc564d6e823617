"""Writes the network of a workdir as .safetensors with the names of the authors' release, for PyTorch.

    python scripts/export_weights.py --workdir=W --output=mancs.safetensors

`mancs_jax/weights/authors.py` says what the names are, and which a network of another recipe adds.
"""

from collections.abc import Sequence

from absl import flags

ARGUMENTS = ()


def define(values: flags.FlagValues, argv: Sequence[str]) -> None:
    """Defines the flags."""
    flags.DEFINE_string("workdir", None, "Directory of a run of `mancs train`.", flag_values=values)
    flags.DEFINE_string("output", None, "File to write, .safetensors.", flag_values=values)
    flags.mark_flags_as_required(["workdir", "output"], values)


def main(values: flags.FlagValues, arguments: Sequence[str]) -> None:
    """Writes the weights and prints a line about them."""
    # Not at the top: a mistyped flag should not wait for jax.
    from mancs_jax.convert import export_network

    print(export_network(values.workdir, values.output))
