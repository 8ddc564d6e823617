"""Runs the rows of Table 5, and the single changes that settle open questions, and writes one table.

python scripts/ablation.py --base=walkers --workdir=W
python scripts/ablation.py --base=market,small --rows=questions --seeds=0 --set=data.validation_ids=100 --workdir=W

The same command goes on where a run was stopped, and does not repeat what is done.
"""

import ast
import sys

from absl import app, flags

from mancs_jax.cli.command_line import keep_compiled_programs, keep_freed_memory, last_line, parse_flags
from mancs_jax.config import ablation as rows

FLAGS = flags.FLAGS
flags.DEFINE_string("base", None, "Recipe: walkers, or market,small ... as after the row in configs/ablation.py.")
flags.DEFINE_list("rows", ["table_5"], f"Rows, or table_5, questions, all. {', '.join(rows.ROWS)}")
flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds.")
flags.DEFINE_multi_string("set", [], "A field for all runs, as data.root=DIR; may be given many times.")
flags.DEFINE_string("workdir", None, "Directory of all runs.")
GROUPS = {"table_5": rows.TABLE_5, "questions": rows.QUESTIONS, "all": rows.ROWS}


def parse_changes(settings: list[str]) -> dict:
    """`["data.p=8"]` -> `{"data.p": 8}`; what is no Python literal is text."""
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


def main(argv):
    """Flags, then one call."""
    if len(argv) > 1:
        sys.exit(f"unknown arguments {argv[1:]}; every option is a flag, as --base=walkers")
    keep_freed_memory()
    from mancs_jax.ablation import plan, run_all, table
    from mancs_jax.training.log import Diverged

    keep_compiled_programs()
    try:
        names = [row for name in FLAGS.rows for row in GROUPS.get(name, (name,))]
        seeds = [int(seed) for seed in FLAGS.seeds]
        runs = plan(FLAGS.base, list(dict.fromkeys(names)), seeds, parse_changes(FLAGS.set))
        summary = run_all(runs, FLAGS.base, FLAGS.workdir)
    except (ValueError, OSError, Diverged) as error:
        sys.exit(f"ablation: {last_line(error)}")
    if summary:
        print(table(summary["rows"], FLAGS.base))
        print(f"results: {FLAGS.workdir}/results")


if __name__ == "__main__":
    flags.mark_flags_as_required(["base", "workdir"])
    app.run(main, flags_parser=parse_flags)
