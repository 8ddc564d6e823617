"""Writes the network of a workdir as .safetensors with the names of the authors' release, for PyTorch.

    python scripts/export_weights.py --workdir=W --output=mancs.safetensors

`mancs_jax/models/released.py` says what the names are, and which a network of another recipe adds.
"""

import sys

from absl import app, flags

from mancs_jax.cli.command_line import parse_flags

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "Directory of a run of scripts/train.py.")
flags.DEFINE_string("output", None, "File to write, .safetensors.")


def main(argv):
    """Flags, then one call."""
    if len(argv) > 1:
        sys.exit(f"export_weights: unknown arguments {argv[1:]}; every option is a flag, as --workdir=DIRECTORY")
    # Not at the top: a mistyped flag should not wait for jax.
    from mancs_jax.convert import export_network

    try:
        print(export_network(FLAGS.workdir, FLAGS.output))
    except (ValueError, OSError) as error:
        sys.exit(f"export_weights: {' '.join(str(error).split())}")


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir", "output"])
    app.run(main, flags_parser=parse_flags)
