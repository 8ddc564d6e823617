"""Imports ImageNet weights of a backbone as .safetensors, or the authors' checkpoint as a workdir.

    mancs import-weights --source=resnet50-0676ba61.pth --arch=resnet50 --output=resnet50.safetensors
    mancs import-weights --source=model_best.pth.tar --config=market:authors --workdir=W
    mancs import-weights --source=weights.pth --names

--config.pretrained=FILE of `mancs train` reads the .safetensors, the .pth itself, and the authors' checkpoint;
`mancs evaluate --workdir=W` evaluates the workdir.
"""

from collections.abc import Sequence

from absl import flags

from mancs_jax.cli.flags import Flags
from mancs_jax.common.screen import show
from mancs_jax.config.names import STAGE_SIZES

ARGUMENTS = ()
ARCHITECTURES = [name for name in STAGE_SIZES if name != "resnet10"]  # of which ImageNet weights exist


def define(values: Flags, argv: Sequence[str]) -> None:
    values.DEFINE_string(
        "source", None, "Weights, .pth or .safetensors, of torchvision, timm, Hugging Face or the authors."
    )
    values.DEFINE_enum("arch", "resnet50", ARCHITECTURES, "Architecture of a backbone's weights.")
    values.DEFINE_string("output", None, "File to write the backbone's weights to, .safetensors.")
    values.DEFINE_bool("names", False, "Only print the names, types and shapes of the tensors.")
    values.DEFINE_string("workdir", None, "Directory to create for a complete model.")
    values.DEFINE_config(argv, "Recipe of the complete model, for example market:authors, or a Python file.")
    flags.mark_flags_as_required(["source"], values)


def main(values: Flags, arguments: Sequence[str]) -> None:
    """Writes a backbone's weights, or makes a workdir of a complete model, and prints a line about it."""
    if values.names:
        from mancs_jax.weights.state_dict import read_all

        show("\n".join(f"{name} {t.dtype}{list(t.shape)}" for name, t in read_all(values.source).items()))
        return
    if bool(values.output) == bool(values.workdir) or bool(values.workdir) != bool(values["config"].present):
        raise ValueError("give --output=FILE for a backbone, or --workdir=W and --config=... for a complete model")
    # Not at the top: a mistyped flag should not wait for jax.
    from mancs_jax.convert import import_backbone, import_network

    if values.output:
        show(import_backbone(values.source, values.arch, values.output))
    else:
        show(import_network(values.source, values.config, values.workdir))
        show(f"evaluate it: mancs evaluate --workdir={values.workdir}")
