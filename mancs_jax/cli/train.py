"""Trains Mancs and evaluates it: mancs train --config=market --workdir=W."""

from collections.abc import Sequence

from mancs_jax.cli.command_line import keep_compiled_programs, keep_freed_memory
from mancs_jax.cli.flags import Flags, define_run
from mancs_jax.common.screen import show, tell
from mancs_jax.config import recipes

ARGUMENTS = ()


def define(values: Flags, argv: Sequence[str]) -> None:
    define_run(
        values,
        argv,
        f"Recipe: {', '.join(recipes.RECIPES)} or ablation:ROW, with variants after a colon (market:small), or a "
        "Python file. --config.FIELD=VALUE changes a field; docs/train.md and mancs_jax/config/defaults.py list them.",
    )
    values.DEFINE_bool(
        "distributed",
        False,
        "Multi-node training: join the processes that SLURM, Kubernetes, MPI or a TPU pod has started.",
    )
    values.DEFINE_string("coordinator", "", "host:port of process 0, for processes that are started by hand.")
    values.DEFINE_integer("num_processes", 0, "Number of processes, started by hand.")
    values.DEFINE_integer("process_id", -1, "Number of this process, from 0.")


def main(values: Flags, arguments: Sequence[str]) -> None:
    """Trains and prints the table of scores; `run.train_and_evaluate` does the work."""
    keep_freed_memory()  # before JAX starts its threads
    # Not at the top: a mistyped flag should not wait for jax.
    from mancs_jax.common import processes
    from mancs_jax.common.accelerators import unused_accelerator
    from mancs_jax.evaluation.results import table
    from mancs_jax.run import train_and_evaluate

    keep_compiled_programs()
    if values.distributed or values.coordinator or values.num_processes or values.process_id >= 0:
        processes.start(values.coordinator, values.num_processes, values.process_id)
    if warning := unused_accelerator():
        tell(warning)
    with processes.ending_at_once():
        results = train_and_evaluate(values.config, values.workdir, allow_config_change=values.allow_config_change)
        if results and processes.is_writer():
            show(table(results))
            show(f"results: {values.workdir}/results")
            show(f"report: {values.workdir}/report.html")
