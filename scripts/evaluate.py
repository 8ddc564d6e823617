"""Scores a trained network, or anybody's embeddings.

python scripts/evaluate.py --workdir=W [--multi_query] [--rerank] [--dataset=OTHER] [--flip] ...
python scripts/evaluate.py --features=FILE.npz [--distance=cosine] [--rerank --k1=20 --k2=6 --lambda=0.3] [--json=OUT]
"""

import sys

from absl import app, flags

from mancs_jax.cli.command_line import keep_compiled_programs, parse_flags

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "Directory of a run of scripts/train.py.")
flags.DEFINE_string(
    "features",
    None,
    "Embeddings to score instead: a .npz file with query [Q, D], gallery [G, D], query_pid, query_camid, gallery_pid, "
    "gallery_camid, and for multi-query multi_query, multi_query_pid, multi_query_camid; or a folder with a .npy file "
    "for each, which may be larger than memory. Ids as in Market-1501: -1 is junk, 0 a distractor.",
)
flags.DEFINE_string("json", None, "File that the results are written to as well.")
flags.DEFINE_enum("distance", "euclidean", ["euclidean", "cosine"], "Distance of two embeddings.")
flags.DEFINE_bool("normalize", False, "Divide each embedding by its norm. Multi-query does so in any case.")
flags.DEFINE_bool("rerank", False, "Re-rank by k-reciprocal encoding (Zhong et al., CVPR 2017).")
flags.DEFINE_integer("k1", 20, "Of re-ranking: neighbours of an image.")
flags.DEFINE_integer("k2", 6, "Of re-ranking: images that an encoding is averaged over.")
flags.DEFINE_float("lambda", 0.3, "Of re-ranking: weight of the original distance.")
flags.DEFINE_string("root", "", "Directory of the data sets, where it is not the one of the training.")
flags.DEFINE_string("dataset", "", "Data set to score on, where it is not the one of the training (cross-domain).")
flags.DEFINE_bool("multi_query", False, "Score multi-query as well, pooled by mean and by max.")
flags.DEFINE_string("distractors", "", "Data set that joins the gallery: market1501_500k.")
flags.DEFINE_bool("flip", False, "Average the embeddings of an image and of its mirror image.")
flags.DEFINE_bool("baselines", False, "Score an untrained network and a colour histogram as well.")
flags.DEFINE_integer("repeats", 100, "Galleries that are drawn in CUHK03's classic protocol.")
OF_RERANKING = ("k1", "k2", "lambda")
OF_WORKDIR = ("root", "dataset", "multi_query", "distractors", "flip", "baselines", "repeats")


def main(argv):
    """Flags, then one call."""
    if len(argv) > 1:
        sys.exit(f"unknown arguments {argv[1:]}; every option is a flag, as --workdir=DIRECTORY")
    if bool(FLAGS.workdir) == bool(FLAGS.features):
        sys.exit("evaluate: give either --workdir=DIRECTORY of a run or --features=FILE.npz")
    if FLAGS.features and (given := [f"--{name}" for name in OF_WORKDIR if FLAGS[name].present]):
        sys.exit(f"evaluate: what --features is scored on is in the file; leave {', '.join(given)} out")
    if not FLAGS.rerank and (given := [f"--{name}" for name in OF_RERANKING if FLAGS[name].present]):
        sys.exit(f"evaluate: without --rerank there is no use for {', '.join(given)}")
    # Not at the top: a mistyped flag should not wait for jax.
    from mancs_jax.evaluation import results
    from mancs_jax.evaluation.protocols import Options
    from mancs_jax.score import Task, evaluate, score_features

    options = Options(FLAGS.distance, FLAGS.normalize, FLAGS.rerank, FLAGS.k1, FLAGS.k2, FLAGS["lambda"].value)
    keep_compiled_programs()
    try:
        if FLAGS.features:
            scored = score_features(FLAGS.features, options)
            rows = {"single query": scored} | {
                name: of for name, of in scored.items() if name.startswith("multi_query")
            }
        else:
            task = Task(**{name: FLAGS[name].value for name in OF_WORKDIR}, options=options)
            scored = rows = evaluate(FLAGS.workdir, task)
        print(results.table(rows))
        print(results.matches(rows))
        if FLAGS.json:
            results.write_result(FLAGS.json, scored)
    except (ValueError, OSError) as error:
        sys.exit(f"evaluate: {' '.join(str(error).split())}")
    written = [f"{FLAGS.workdir}/results"] if FLAGS.workdir else []
    written += [FLAGS.json] if FLAGS.json else []
    print(f"results: {', '.join(written) or 'on this screen alone; --json=FILE keeps them'}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
