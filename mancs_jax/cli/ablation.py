"""Trains the rows of Table 5, and single changes for open questions, and writes one table.

mancs ablation --base=walkers --workdir=W
mancs ablation --base=market,small --rows=questions --seeds=0 --set=data.validation_ids=100 --workdir=W

Run the same command again to resume.
"""

import ast
from collections.abc import Sequence

from absl import flags

from mancs_jax.cli.command_line import keep_compiled_programs, keep_freed_memory
from mancs_jax.cli.flags import Flags
from mancs_jax.common.screen import show
from mancs_jax.config import ablation as rows

ARGUMENTS = ()
GROUPS = {"table_5": rows.TABLE_5, "questions": tuple(rows.CHANGES), "all": rows.ROWS}


def define(values: Flags, argv: Sequence[str]) -> None:
    values.DEFINE_string("base", None, "Recipe: walkers, or market,small ... as after the row in configs/ablation.py.")
    values.DEFINE_list("rows", ["table_5"], f"Rows, or table_5, questions, all. {', '.join(rows.ROWS)}")
    values.DEFINE_list("seeds", ["0", "1", "2"], "Seeds.")
    values.DEFINE_multi_string("set", [], "A field for all runs, as data.root=DIR; may be given many times.")
    values.DEFINE_string("workdir", None, "Directory of all runs.")
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


def main(values: Flags, arguments: Sequence[str]) -> None:
    """Trains the rows that are missing and prints the table."""
    keep_freed_memory()
    from mancs_jax.ablation import plan, run_all, table

    keep_compiled_programs()
    names = [row for name in values.rows for row in GROUPS.get(name, (name,))]
    if wrong := [seed for seed in values.seeds if not seed.isdecimal()]:
        raise ValueError(f"--seeds={','.join(values.seeds)}: {wrong[0]!r} is not an integer")
    seeds = [int(seed) for seed in values.seeds]
    runs = plan(values.base, list(dict.fromkeys(names)), seeds, parse_changes(values.set))
    summary = run_all(runs, values.base, values.workdir)
    if summary:
        show(table(summary["rows"], values.base))
        show(f"results: {values.workdir}/results")
