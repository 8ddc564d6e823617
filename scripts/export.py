"""Writes the trained network as one file that runs without this package, on CPU, GPU and TPU.

    python scripts/export.py --workdir=W --output=FILE [--flip]

Pixels (uint8 [N, H, W, 3], RGB, of the size the network was trained on) go in, embeddings (float32 [N, D]) come out;
parameters and normalisation are inside. The lines that run it are printed once its numbers equal the network's.
"""

import sys

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "Directory of a run of scripts/train.py.")
flags.DEFINE_string("output", None, "File to write.")
flags.DEFINE_bool("flip", False, "Average the embeddings of an image and of its mirror image.")


def main(argv):
    """Flags, then one call."""
    if len(argv) > 1:
        sys.exit(f"export: unknown arguments {argv[1:]}; every option is a flag, as --output=FILE")
    # Not at the top: a mistyped flag should not wait for jax.
    from mancs_jax.inference.export import export

    try:
        lines = export(FLAGS.workdir, FLAGS.output, flip=FLAGS.flip)
    except (ValueError, OSError) as error:
        sys.exit(f"export: {' '.join(str(error).split())}")
    print(
        f"# {FLAGS.output} gives the network's numbers. To run it, pip install jax flatbuffers numpy, then:\n{lines}",
        end="",
    )


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir", "output"])
    app.run(main)
