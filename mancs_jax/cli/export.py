"""Exports a trained model.

    mancs export --workdir=W --output=mancs.onnx [--input=float] [--dtype=float16] [--flip]
    mancs export --workdir=W --output=mancs.jax [--flip]
    mancs export --workdir=W --output=FOLDER/NAME.safetensors --format=weights [--dtype=float32] [--root=data]
        [--average_with=OTHER --average_share=0.5] [--thresholds_of=OTHER] [--noscores] [--noclassifiers]
    mancs export --workdir=W --output=mancs.safetensors --format=torch

A model of `mancs adapt` needs --camera, because a file of each format except weights has the statistics of one camera.

onnx and jax: one file that runs without this package; jax is for JAX on CPU, GPU and TPU. The input is pixels (uint8
[N, H, W, 3], RGB, of the image size of the model), the output is embeddings (float32 [N, D]); the file contains
parameters and normalisation. With --input=float, an ONNX file takes float32 [N, 3, H, W], already normalised, as
trackers provide it. The command verifies the file and prints example code.

weights: a model to share, NAME.safetensors and the model card NAME.json. The card has the scores on the data set of the
training, and decision thresholds if the run held out identities. For a model trained on all identities, --thresholds_of
takes the thresholds of a related model with held-out identities. The files contain no paths of this machine.

torch: a PyTorch state dict with the names of the authors' release. `mancs_jax/weights/authors.py` lists the names, and
those that other recipes add.

`mancs_jax.load` and --network of the other commands read the first three formats.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from mancs_jax.cli.command_line import keep_compiled_programs, keep_freed_memory
from mancs_jax.cli.flags import Flags
from mancs_jax.cli.network_flags import define_network, network_of
from mancs_jax.common.screen import show

ARGUMENTS = ()
FORMATS = ("onnx", "jax", "weights", "torch")
# Flag -> the formats that it is for; the others are for all.
ONLY_FOR = {
    "input": ("onnx",),
    "flip": ("onnx", "jax"),
    "camera": ("onnx", "jax", "torch"),
    "dtype": ("onnx", "weights"),
    "root": ("weights",),
    "average_with": ("weights",),
    "average_share": ("weights",),
    "thresholds_of": ("weights",),
    "scores": ("weights",),
    "classifiers": ("weights",),
}


def define(values: Flags, argv: Sequence[str]) -> None:
    define_network(values)
    values.DEFINE_string("output", None, "File to write.")
    values.DEFINE_enum("format", None, FORMATS, "Format of the file; the suffixes .onnx and .jax imply it.")
    values.DEFINE_enum("input", "uint8", ["uint8", "float"], "Input of an ONNX file: pixels, or normalised floats.")
    values.DEFINE_enum(
        "dtype",
        None,
        ["float32", "float16"],
        "Type of the weights; by default float32 in ONNX files and float16 in weights.",
    )
    values.DEFINE_bool("flip", False, "Average the embeddings of an image and of its mirror image.")
    values.DEFINE_string("camera", None, "Camera whose statistics the file has, for a model of `mancs adapt`.")
    values.DEFINE_string("root", "", "For weights: directory of the data sets, if not the one used in training.")
    values.DEFINE_string("average_with", "", "For weights: another model of this architecture to average with.")
    values.DEFINE_float(
        "average_share", 0.5, "For weights: share of the other model in the average.", lower_bound=0.0, upper_bound=1.0
    )
    values.DEFINE_string(
        "thresholds_of",
        "",
        "For weights, of a model trained on all identities: related model whose thresholds to take.",
    )
    values.DEFINE_bool("classifiers", True, "For weights: keep the classifiers, which embeddings do not need.")
    values.DEFINE_bool("scores", True, "For weights: evaluate the model first, which needs the data set.")
    flags.mark_flags_as_required(["output"], values)


def main(values: Flags, arguments: Sequence[str]) -> None:
    """Writes the file and prints example code."""
    source, kind = network_of(values), _kind(values)
    for flag, formats in ONLY_FOR.items():
        if kind not in formats and values[flag].present:
            raise ValueError(f"--{flag} is for --format={' and '.join(formats)}, not for {kind}")
    # Not at the top: a mistyped flag should not wait for jax.
    if kind == "torch":
        from mancs_jax.convert import export_weights

        show(export_weights(source, values.output, values.camera))
    elif kind == "weights":
        _write_weights(source, values)
    else:
        from mancs_jax.inference.export import export

        options = {"flip": values.flip, "input": values.input, "dtype": values.dtype or "float32"}
        show(export(source, values.output, format=kind, camera=values.camera, **options).rstrip())


def _kind(values: Flags) -> str:
    """The format that --format or the suffix of --output says (ValueError: neither does)."""
    kind = values.format or Path(values.output).suffix.removeprefix(".")
    if kind not in FORMATS:
        raise ValueError(
            f"--output={values.output}: its suffix implies no format; give --format={', '.join(FORMATS[:-1])} or "
            f"{FORMATS[-1]}, or a name that ends in .onnx or .jax"
        )
    return kind


def _write_weights(source: str, values: Flags) -> None:
    keep_freed_memory()
    from mancs_jax.evaluation import results
    from mancs_jax.publish import export_network
    from mancs_jax.weights.shared import WEIGHTS

    keep_compiled_programs()
    output = Path(values.output)
    name = output.name.removesuffix(WEIGHTS)
    path, card = export_network(
        source,
        name,
        output.parent,
        dtype=values.dtype or "float16",
        root=values.root,
        scores=values.scores,
        classifiers=values.classifiers,
        average_with=values.average_with,
        average_share=values.average_share,
        thresholds_of=values.thresholds_of,
    )
    if card["scores"]:
        show(results.table({name: card["scores"]}))
    weights = path.with_suffix(WEIGHTS)
    show(f"{weights}: {weights.stat().st_size / 1e6:.1f} MB; {path}: the model card")
    show(f'use it: mancs_jax.load("{weights}"), or --network={weights} of the commands')
