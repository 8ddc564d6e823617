"""Trains and scores on the 20 splits of CUHK03's classic protocol: mean and deviation of rank-1, rank-5, rank-10.

python scripts/cuhk03_classic.py --config=configs/cuhk03.py:classic --workdir=W

The same command goes on where a run was stopped.
"""

import sys

from absl import app, flags
from ml_collections import config_flags

from mancs_jax.cli.command_line import keep_compiled_programs, keep_freed_memory, last_line, parse_flags

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file("config", None, "Configuration of each run, as configs/cuhk03.py:classic.")
flags.DEFINE_string("workdir", None, "Directory of all runs.")
flags.DEFINE_bool("allow_config_change", False, "Go on although the configuration is another one.")


def main(argv):
    """Flags, then one call."""
    if len(argv) > 1:
        sys.exit(f"unknown arguments {argv[1:]}; every option is a flag, as --config=configs/cuhk03.py:classic")
    keep_freed_memory()
    from mancs_jax.evaluation.results import table
    from mancs_jax.run import train_and_evaluate_splits
    from mancs_jax.training.log import Diverged

    keep_compiled_programs()
    try:
        results = train_and_evaluate_splits(FLAGS.config, FLAGS.workdir, allow_config_change=FLAGS.allow_config_change)
    except (ValueError, OSError, Diverged) as error:
        sys.exit(f"cuhk03_classic: {last_line(error)}")
    for scored in (results or {}).values():
        print(table({f"test set {n}": split for n, split in enumerate(scored["splits"], 1)} | {"mean": scored}))
        print(
            ", ".join(
                f"{name} {100 * scored['mean'][name]:.2f} +- {100 * scored['sd'][name]:.2f}" for name in scored["mean"]
            )
        )
        print(f"results: {FLAGS.workdir}/results/cuhk03_classic.json")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=parse_flags)
