"""Makes a clean .safetensors of the backbone's ImageNet weights, with torchvision's names, float32.

    python scripts/import_weights.py --source=resnet50-0676ba61.pth --arch=resnet50 --output=resnet50.safetensors

Training reads such a file, and the .pth itself, with --config.pretrained=FILE.
"""

import sys

from absl import app, flags

from mancs_jax.models import pretrained

FLAGS = flags.FLAGS
flags.DEFINE_string("source", None, "Weights, .pth or .safetensors, of torchvision, timm or Hugging Face.")
flags.DEFINE_enum("arch", "resnet50", list(pretrained.TORCHVISION_FILES), "Architecture of the weights.")
flags.DEFINE_string("output", None, "File to write, .safetensors.")


def import_weights(source: str, arch: str, output: str) -> str:
    """Reads, checks and writes the weights, and returns a line that says so.

    Raises:
      ValueError, OSError: the source is missing or wrong, or the output cannot be written.
    """
    if not output.endswith(".safetensors"):
        raise ValueError(f"--output={output}: must end in .safetensors")
    tensors = pretrained.read_backbone(source, arch)
    pretrained.write_safetensors(tensors, output)
    return f"{output}: {len(tensors)} tensors of {arch}, {sum(array.size for array in tensors.values()):,} numbers"


def main(argv):
    """Flags, then one call."""
    if len(argv) > 1:
        sys.exit(f"import_weights: unknown arguments {argv[1:]}; every option is a flag, as --arch=resnet50")
    try:
        print(import_weights(FLAGS.source, FLAGS.arch, FLAGS.output))
    except (ValueError, OSError) as error:
        sys.exit(f"import_weights: {error}")


if __name__ == "__main__":
    flags.mark_flags_as_required(["source", "output"])
    app.run(main)
