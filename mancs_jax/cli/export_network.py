"""Writes a trained network as two files to share: its numbers, and a card that says all about it.

    python scripts/export_network.py W --name=NAME [--output=FOLDER] [--dtype=float16] [--root=data]
        [--average_with=OTHER --average_share=0.5] [--thresholds_of=OTHER]

FOLDER then holds NAME.safetensors and NAME.json. `mancs_jax.load("FOLDER/NAME.safetensors")` and `--network=` of the
other commands read them. The card has the scores on the data set of the training, and thresholds on distances where
the run held identities out. A run on all identities takes the thresholds of a network of the same training that held
some out (`--thresholds_of`). Paths of this machine stay out of it.
"""

from collections.abc import Sequence

from absl import flags

from mancs_jax.cli.command_line import keep_compiled_programs, keep_freed_memory

ARGUMENTS = ("one workdir",)


def define(values: flags.FlagValues, argv: Sequence[str]) -> None:
    """Defines the flags."""
    flags.DEFINE_string("name", None, "Name of the network, and of both files.", flag_values=values)
    flags.DEFINE_string("output", ".", "Folder to write the files to.", flag_values=values)
    flags.DEFINE_enum("dtype", "float16", ["float16", "float32"], "Of the kernels in the file.", flag_values=values)
    flags.DEFINE_string(
        "root", "", "Directory of the data sets, where it is not the one of the training.", flag_values=values
    )
    flags.DEFINE_string(
        "average_with", "", "Another network of the same shape, whose numbers are averaged with.", flag_values=values
    )
    flags.DEFINE_float(
        "average_share", 0.5, "Of that network in the mean.", lower_bound=0.0, upper_bound=1.0, flag_values=values
    )
    flags.DEFINE_string(
        "thresholds_of", "", "A shared network whose thresholds a run on all identities takes.", flag_values=values
    )
    flags.DEFINE_bool("scores", True, "Score it first, which needs the data set.", flag_values=values)
    flags.mark_flags_as_required(["name"], values)


def main(values: flags.FlagValues, arguments: Sequence[str]) -> None:
    """Writes the files and prints the lines that use them."""
    keep_freed_memory()
    # Not at the top: a mistyped flag should not wait for jax.
    from mancs_jax.evaluation import results
    from mancs_jax.publish import export_network
    from mancs_jax.weights.shared import WEIGHTS

    keep_compiled_programs()
    path, card = export_network(
        arguments[0],
        values.name,
        values.output,
        dtype=values.dtype,
        root=values.root,
        scores=values.scores,
        average_with=values.average_with,
        average_share=values.average_share,
        thresholds_of=values.thresholds_of,
    )
    if card["scores"]:
        print(results.table({values.name: card["scores"]}))
    weights = path.with_suffix(WEIGHTS)
    print(f"{weights}: {weights.stat().st_size / 1e6:.1f} MB; {path}: the card")
    print(f'use it: mancs_jax.load("{weights}"), or --network={weights} of the commands')
