"""Makes a clean .safetensors of a backbone's ImageNet weights, or a workdir of the authors' checkpoint.

    mancs import-weights --source=resnet50-0676ba61.pth --arch=resnet50 --output=resnet50.safetensors
    mancs import-weights --source=model_best.pth.tar --config=market:authors --workdir=W
    mancs import-weights --source=weights.pth --names

Training reads such a .safetensors, the .pth itself, and the authors' checkpoint, with --config.pretrained=FILE;
`mancs evaluate --workdir=W` scores the workdir.
"""

from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from mancs_jax.common.screen import show
from mancs_jax.config.names import STAGE_SIZES

ARGUMENTS = ()
ARCHITECTURES = [name for name in STAGE_SIZES if name != "resnet10"]  # of which ImageNet weights exist


def define(values: flags.FlagValues, argv: Sequence[str]) -> None:
    """Defines the flags."""
    flags.DEFINE_string(
        "source",
        None,
        "Weights, .pth or .safetensors, of torchvision, timm, Hugging Face or the authors.",
        flag_values=values,
    )
    flags.DEFINE_enum("arch", "resnet50", ARCHITECTURES, "Architecture of a backbone's weights.", flag_values=values)
    flags.DEFINE_string("output", None, "File to write the backbone's weights to, .safetensors.", flag_values=values)
    flags.DEFINE_bool("names", False, "Only print the names, types and shapes of the tensors.", flag_values=values)
    flags.DEFINE_string("workdir", None, "Directory to make for a whole network.", flag_values=values)
    config_flags.DEFINE_config_file(
        "config",
        None,
        "Recipe of the whole network by name, as market:authors, or its file.",
        flag_values=values,
        sys_argv=list(argv),
    )
    flags.mark_flags_as_required(["source"], values)


def main(values: flags.FlagValues, arguments: Sequence[str]) -> None:
    """Writes a backbone's weights, or makes a workdir of a whole network, and prints a line about it."""
    if values.names:
        from mancs_jax.weights.state_dict import read_all

        show("\n".join(f"{name} {t.dtype}{list(t.shape)}" for name, t in read_all(values.source).items()))
        return
    if bool(values.output) == bool(values.workdir) or bool(values.workdir) != bool(values["config"].present):
        raise ValueError("give --output=FILE for a backbone, or --workdir=W and --config=... for a network")
    # Not at the top: a mistyped flag should not wait for jax.
    from mancs_jax.convert import import_backbone, import_network

    if values.output:
        show(import_backbone(values.source, values.arch, values.output))
    else:
        show(import_network(values.source, values.config, values.workdir))
        show(f"score it: mancs evaluate --workdir={values.workdir}")
