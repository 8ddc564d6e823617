"""Scores a trained network on query and gallery: python scripts/evaluate.py --workdir=W."""

import sys

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "Directory of a run of scripts/train.py.")
flags.DEFINE_string("root", None, "Directory of the data sets, where it is not the one of the training.")
flags.DEFINE_bool("baselines", False, "Score an untrained network and a colour histogram as well.")


def main(argv):
    """Flags, then one call."""
    if len(argv) > 1:
        sys.exit(f"unknown arguments {argv[1:]}; every option is a flag, as --workdir=DIRECTORY")
    # Not at the top: a mistyped flag should not wait for jax.
    from mancs_jax.evaluation.protocols import table
    from mancs_jax.run import evaluate

    try:
        results = evaluate(FLAGS.workdir, root=FLAGS.root, baselines=FLAGS.baselines)
    except (ValueError, OSError) as error:
        sys.exit(f"evaluate: {error}")
    print(table(results))
    print(f"results: {FLAGS.workdir}/results")


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir"])
    app.run(main)
