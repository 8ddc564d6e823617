"""Runs the rows of Table 5, and the single changes that settle open questions, and writes one table.

mancs ablation --base=walkers --workdir=W
mancs ablation --base=market,small --rows=questions --seeds=0 --set=data.validation_ids=100 --workdir=W

The same command goes on where a run was stopped, and does not repeat what is done.
"""

import ast
from collections.abc import Sequence

from absl import flags

from mancs_jax.cli.command_line import keep_compiled_programs, keep_freed_memory
from mancs_jax.common.screen import show
from mancs_jax.config import ablation as rows

ARGUMENTS = ()
GROUPS = {"table_5": rows.TABLE_5, "questions": tuple(rows.CHANGES), "all": rows.ROWS}


def define(values: flags.FlagValues, argv: Sequence[str]) -> None:
    """Defines the flags."""
    flags.DEFINE_string(
        "base",
        None,
        "Recipe: walkers, or market,small ... as after the row in configs/ablation.py.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "rows", ["table_5"], f"Rows, or table_5, questions, all. {', '.join(rows.ROWS)}", flag_values=values
    )
    flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds.", flag_values=values)
    flags.DEFINE_multi_string(
        "set", [], "A field for all runs, as data.root=DIR; may be given many times.", flag_values=values
    )
    flags.DEFINE_string("workdir", None, "Directory of all runs.", flag_values=values)
    flags.mark_flags_as_required(["base", "workdir"], values)


def parse_changes(settings: Sequence[str]) -> dict:
    """Reads `["data.p=8"]` as `{"data.p": 8}`; a value that is no Python literal is text."""
    changes = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"--set={setting}: it has to be FIELD=VALUE")
        try:
            changes[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            changes[name] = text
    return changes


def main(values: flags.FlagValues, arguments: Sequence[str]) -> None:
    """Trains the rows that are missing and prints the table."""
    keep_freed_memory()
    from mancs_jax.ablation import plan, run_all, table

    keep_compiled_programs()
    names = [row for name in values.rows for row in GROUPS.get(name, (name,))]
    if wrong := [seed for seed in values.seeds if not seed.isdecimal()]:
        raise ValueError(f"--seeds={','.join(values.seeds)}: {wrong[0]!r} is no whole number")
    seeds = [int(seed) for seed in values.seeds]
    runs = plan(values.base, list(dict.fromkeys(names)), seeds, parse_changes(values.set))
    summary = run_all(runs, values.base, values.workdir)
    if summary:
        show(table(summary["rows"], values.base))
        show(f"results: {values.workdir}/results")
