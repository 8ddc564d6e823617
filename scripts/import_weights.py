"""Makes a clean .safetensors of a backbone's ImageNet weights, or a workdir of the authors' checkpoint.

    python scripts/import_weights.py --source=resnet50-0676ba61.pth --arch=resnet50 --output=resnet50.safetensors
    python scripts/import_weights.py --source=model_best.pth.tar --config=configs/market.py:authors --workdir=W

Training reads such a .safetensors, the .pth itself, and the authors' checkpoint, with --config.pretrained=FILE;
`scripts/evaluate.py --workdir=W` scores the workdir.
"""

import sys

from absl import app, flags
from ml_collections import config_flags

from mancs_jax.cli.command_line import last_line, parse_flags

FLAGS = flags.FLAGS
flags.DEFINE_string("source", None, "Weights, .pth or .safetensors, of torchvision, timm, Hugging Face or the authors.")
ARCHITECTURES = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
flags.DEFINE_enum("arch", "resnet50", ARCHITECTURES, "Architecture of a backbone's weights.")
flags.DEFINE_string("output", None, "File to write the backbone's weights to, .safetensors.")
flags.DEFINE_string("workdir", None, "Directory to make for a whole network.")
config_flags.DEFINE_config_file("config", None, "Configuration of the whole network: configs/market.py:authors.")


def main(argv):
    """Flags, then one call."""
    if len(argv) > 1:
        sys.exit(f"import_weights: unknown arguments {argv[1:]}; every option is a flag, as --arch=resnet50")
    if bool(FLAGS.output) == bool(FLAGS.workdir) or bool(FLAGS.workdir) != FLAGS["config"].present:
        sys.exit("import_weights: give --output=FILE for a backbone, or --workdir=W and --config=... for a network")
    # Not at the top: a mistyped flag should not wait for jax.
    from mancs_jax.convert import import_backbone, import_network

    try:
        if FLAGS.output:
            print(import_backbone(FLAGS.source, FLAGS.arch, FLAGS.output))
        else:
            print(import_network(FLAGS.source, FLAGS.config, FLAGS.workdir))
            print(f"score it: python scripts/evaluate.py --workdir={FLAGS.workdir}")
    except (ValueError, OSError) as error:
        sys.exit(f"import_weights: {last_line(error)}")


if __name__ == "__main__":
    flags.mark_flags_as_required(["source"])
    app.run(main, flags_parser=parse_flags)
