"""Writes a network as .safetensors with the names of the authors' release, for PyTorch.

    python scripts/export_weights.py --workdir=W --output=mancs.safetensors

`mancs_jax/weights/authors.py` says what the names are, and which a network of another recipe adds.
"""

from collections.abc import Sequence

from absl import flags

from mancs_jax.cli.network_flags import define_network, network_of

ARGUMENTS = ()


def define(values: flags.FlagValues, argv: Sequence[str]) -> None:
    """Defines the flags."""
    define_network(values)
    flags.DEFINE_string("output", None, "File to write, .safetensors.", flag_values=values)
    flags.mark_flags_as_required(["output"], values)


def main(values: flags.FlagValues, arguments: Sequence[str]) -> None:
    """Writes the weights and prints a line about them."""
    # Not at the top: a mistyped flag should not wait for jax.
    from mancs_jax.convert import export_weights

    print(export_weights(network_of(values), values.output))
