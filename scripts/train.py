"""Trains Mancs and scores it: python scripts/train.py --config=configs/market.py --workdir=W."""

import sys

from absl import app, flags
from ml_collections import config_flags

from mancs_jax.cli.command_line import keep_compiled_programs, keep_freed_memory, last_line, parse_flags

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file("config", None, "Configuration, as configs/market.py or configs/market.py:small.")
flags.DEFINE_string("workdir", None, "Directory of the run; where it holds a checkpoint, training goes on from there.")
flags.DEFINE_bool("allow_config_change", False, "Go on from a checkpoint although the configuration is another one.")
flags.DEFINE_bool(
    "distributed", False, "Train with the processes that SLURM, Kubernetes, MPI or a TPU pod has started."
)
flags.DEFINE_string("coordinator", "", "host:port of process 0, for processes that are started by hand.")
flags.DEFINE_integer("num_processes", 0, "How many processes take part, started by hand.")
flags.DEFINE_integer("process_id", -1, "Which of them this one is, from 0.")


def main(argv):
    """Flags, then one call."""
    if len(argv) > 1:
        sys.exit(f"unknown arguments {argv[1:]}; every option is a flag, as --config=configs/market.py")
    keep_freed_memory()
    # Not at the top: a mistyped flag should not wait for jax.
    from mancs_jax.evaluation.results import table
    from mancs_jax.run import train_and_evaluate
    from mancs_jax.training import multihost
    from mancs_jax.training.log import Diverged

    keep_compiled_programs()
    try:
        if FLAGS.distributed or FLAGS.coordinator or FLAGS.num_processes or FLAGS.process_id >= 0:
            multihost.start(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
        results = train_and_evaluate(FLAGS.config, FLAGS.workdir, allow_config_change=FLAGS.allow_config_change)
    except (ValueError, OSError, Diverged) as error:
        sys.exit(f"train: {last_line(error)}")
    if results and multihost.is_writer():
        print(table(results))
        print(f"results: {FLAGS.workdir}/results")
        print(f"look at {FLAGS.workdir}/report.html")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=parse_flags)
