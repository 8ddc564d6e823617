"""Trains and evaluates on the 20 splits of CUHK03's classic protocol: mean and deviation of rank-1, rank-5, rank-10.

mancs cuhk03-classic --config=cuhk03:classic --workdir=W

Run the same command again to resume.
"""

from collections.abc import Sequence

from mancs_jax.cli.command_line import keep_compiled_programs, keep_freed_memory
from mancs_jax.cli.flags import Flags, define_run
from mancs_jax.common.screen import show

ARGUMENTS = ()


def define(values: Flags, argv: Sequence[str]) -> None:
    define_run(values, argv, "Recipe of each run, for example cuhk03:classic, or a Python file.")


def main(values: Flags, arguments: Sequence[str]) -> None:
    """Trains on the splits and prints the scores of each, with mean and deviation."""
    keep_freed_memory()
    from mancs_jax.evaluation.results import table
    from mancs_jax.run import train_and_evaluate_splits

    keep_compiled_programs()
    results = train_and_evaluate_splits(values.config, values.workdir, allow_config_change=values.allow_config_change)
    for summary in (results or {}).values():
        show(table({f"test set {n}": split for n, split in enumerate(summary["splits"], 1)} | {"mean": summary}))
        show(
            ", ".join(
                f"{name} {100 * summary['mean'][name]:.2f} +- {100 * summary['sd'][name]:.2f}"
                for name in summary["mean"]
            )
        )
        show(f"results: {values.workdir}/results/cuhk03_classic.json")
