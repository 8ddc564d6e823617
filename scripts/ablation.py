"""Runs the rows of Table 5, and the single changes that settle open questions, and writes one table.

python scripts/ablation.py --base=walkers --workdir=W
python scripts/ablation.py --base=market,small --rows=questions --seeds=0 --set=data.validation_ids=100 --workdir=W

The same command goes on where a run was stopped, and does not repeat what is done.
"""

from mancs_jax.cli import ablation
from mancs_jax.cli.command_line import run

if __name__ == "__main__":
    run(ablation)
