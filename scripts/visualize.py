"""Draws what a trained network finds and where it looks: report.html in the workdir, pictures in its results/.

python scripts/visualize.py --workdir=W [--rerank] [--dataset=OTHER] [--distance=cosine] [--normalize] [--flip]
"""

import sys

from absl import app, flags

from mancs_jax.cli.command_line import keep_compiled_programs, parse_flags

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "Directory of a run of scripts/train.py.", required=True)
flags.DEFINE_string("root", "", "Directory of the data sets, where it is not the one of the training.")
flags.DEFINE_string("dataset", "", "Data set to score on, where it is not the one of the training.")
flags.DEFINE_enum("distance", "euclidean", ["euclidean", "cosine"], "Distance of two embeddings.")
flags.DEFINE_bool("normalize", False, "Divide each embedding by its norm.")
flags.DEFINE_bool("flip", False, "Average the embeddings of an image and of its mirror image.")
flags.DEFINE_bool("rerank", False, "Show the lists after re-ranking as well.")
flags.DEFINE_integer("k1", 20, "Of re-ranking: neighbours of an image.")
flags.DEFINE_integer("k2", 6, "Of re-ranking: images that an encoding is averaged over.")
flags.DEFINE_float("lambda", 0.3, "Of re-ranking: weight of the original distance.")


def main(argv):
    """Flags, then one call."""
    if len(argv) > 1:
        sys.exit(f"unknown arguments {argv[1:]}; every option is a flag, as --workdir=DIRECTORY")
    from mancs_jax.evaluation.protocols import Options
    from mancs_jax.score import Task, score
    from mancs_jax.visualize import write_report

    options = Options(FLAGS.distance, FLAGS.normalize, FLAGS.rerank, FLAGS.k1, FLAGS.k2, FLAGS["lambda"].value)
    task = Task(dataset=FLAGS.dataset, root=FLAGS.root, flip=FLAGS.flip, options=options)
    keep_compiled_programs()
    try:
        path = write_report(FLAGS.workdir, score(FLAGS.workdir, task), task)
    except (ValueError, OSError) as error:
        sys.exit(f"visualize: {' '.join(str(error).split())}")
    print(f"report: {path}\npictures: {path.parent / 'results'}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
