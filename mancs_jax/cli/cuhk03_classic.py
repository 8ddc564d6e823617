"""Trains and scores on the 20 splits of CUHK03's classic protocol: mean and deviation of rank-1, rank-5, rank-10.

mancs cuhk03-classic --config=cuhk03:classic --workdir=W

The same command goes on where a run was stopped.
"""

from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from mancs_jax.cli.command_line import keep_compiled_programs, keep_freed_memory
from mancs_jax.common.screen import show

ARGUMENTS = ()


def define(values: flags.FlagValues, argv: Sequence[str]) -> None:
    """Defines the flags."""
    config_flags.DEFINE_config_file(
        "config",
        None,
        "Recipe of each run by name, as cuhk03:classic, or its file.",
        flag_values=values,
        sys_argv=list(argv),
    )
    flags.DEFINE_string("workdir", None, "Directory of all runs.", flag_values=values)
    flags.DEFINE_bool(
        "allow_config_change", False, "Go on although the configuration is another one.", flag_values=values
    )
    flags.mark_flags_as_required(["config", "workdir"], values)


def main(values: flags.FlagValues, arguments: Sequence[str]) -> None:
    """Trains on the splits and prints the scores of each, their mean and deviation."""
    keep_freed_memory()
    from mancs_jax.evaluation.results import table
    from mancs_jax.run import train_and_evaluate_splits

    keep_compiled_programs()
    results = train_and_evaluate_splits(values.config, values.workdir, allow_config_change=values.allow_config_change)
    for scored in (results or {}).values():
        show(table({f"test set {n}": split for n, split in enumerate(scored["splits"], 1)} | {"mean": scored}))
        show(
            ", ".join(
                f"{name} {100 * scored['mean'][name]:.2f} +- {100 * scored['sd'][name]:.2f}" for name in scored["mean"]
            )
        )
        show(f"results: {values.workdir}/results/cuhk03_classic.json")
