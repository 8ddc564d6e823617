"""Adapts a trained model to your cameras, without labels.

    mancs adapt --network=market1501 --source=FOLDER --csv=boxes.csv --output=site

boxes.csv has the header path,camid,frame or path,camid: images of people in FOLDER, the camera of each (any name, or an
integer from 0), and the frame that it was cropped from. The output is a folder with site.safetensors and site.json,
which `mancs_jax.load("site")` and --network=site of the other commands read. Each camera gets its own BatchNorm
statistics. Two people in one frame are different identities; from such pairs, the command sets decision thresholds.
"""

from collections.abc import Sequence

from absl import flags

from mancs_jax.cli.command_line import keep_compiled_programs, keep_freed_memory
from mancs_jax.cli.flags import Flags
from mancs_jax.cli.network_flags import define_network, network_of
from mancs_jax.common.screen import show

ARGUMENTS = ()


def define(values: Flags, argv: Sequence[str]) -> None:
    define_network(values)
    values.DEFINE_string("source", None, "Folder or zip of images that show one person each.")
    values.DEFINE_string("csv", None, "CSV with the header path,camid,frame or path,camid.")
    values.DEFINE_string("output", None, "Folder to write the adapted model to.")
    values.DEFINE_float(
        "weight",
        None,
        "Weight of the camera's statistics against those of the model, from 0 to 1; by default a fixed weight.",
        lower_bound=0.0,
        upper_bound=1.0,
    )
    flags.mark_flags_as_required(["source", "csv", "output"], values)


def main(values: Flags, arguments: Sequence[str]) -> None:
    """Writes the adapted model and prints its cameras and thresholds."""
    source = network_of(values)
    keep_freed_memory()
    # Not at the top: a mistyped flag should not wait for jax.
    from mancs_jax.inference import adaptation

    keep_compiled_programs()
    weight = adaptation.WEIGHT if values.weight is None else values.weight
    path, card = adaptation.adapt(source, values.source, values.csv, values.output, weight=weight)
    show(adaptation.described(card))
    show(f'{path}: the model card; use it: mancs_jax.load("{path.parent}"), or --network={path.parent} of the commands')
