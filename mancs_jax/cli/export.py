"""Writes the trained network as one file that runs without this package: ONNX, or for JAX on CPU, GPU and TPU.

    python scripts/export.py --workdir=W --output=mancs.onnx [--input=float] [--dtype=float16] [--flip]
    python scripts/export.py --workdir=W --output=mancs.jax [--flip]

The suffix .onnx or .jax, or --format, says which. Pixels (uint8 [N, H, W, 3], RGB, of the size the network was trained
on) go in, embeddings (float32 [N, D]) come out; parameters and normalisation are inside. With --input=float an ONNX
file takes float32 [N, 3, H, W], normalised outside, as trackers give it. The lines that run it are printed once its
numbers equal the network's. `mancs_jax.load` and --network of the other commands take the file, too.
"""

from collections.abc import Sequence

from absl import flags

from mancs_jax.cli.command_line import show
from mancs_jax.cli.network_flags import define_network, network_of

ARGUMENTS = ()


def define(values: flags.FlagValues, argv: Sequence[str]) -> None:
    """Defines the flags."""
    define_network(values)
    flags.DEFINE_string("output", None, "File to write.", flag_values=values)
    flags.DEFINE_enum(
        "format", None, ["onnx", "jax"], "Kind of the file, where not its suffix says it.", flag_values=values
    )
    flags.DEFINE_enum("input", "uint8", ["uint8", "float"], "Images that an ONNX file takes.", flag_values=values)
    flags.DEFINE_enum("dtype", "float32", ["float32", "float16"], "Numbers in an ONNX file.", flag_values=values)
    flags.DEFINE_bool("flip", False, "Average the embeddings of an image and of its mirror image.", flag_values=values)
    flags.DEFINE_integer(
        "camera",
        None,
        "Camera (camid) of a network of `mancs adapt`; a file has the statistics of one.",
        flag_values=values,
    )
    flags.mark_flags_as_required(["output"], values)


def main(values: flags.FlagValues, arguments: Sequence[str]) -> None:
    """Writes the file and prints the lines that run it."""
    source = network_of(values)
    # Not at the top: a mistyped flag should not wait for jax.
    from mancs_jax.inference.export import export

    lines = export(
        source,
        values.output,
        flip=values.flip,
        format=values.format or "",
        input=values.input,
        dtype=values.dtype,
        camera=values.camera,
    )
    show(lines.rstrip())
