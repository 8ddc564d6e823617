"""Trains and scores on the 20 splits of CUHK03's classic protocol: mean and deviation of rank-1, rank-5, rank-10.

python scripts/cuhk03_classic.py --config=configs/cuhk03.py:classic --workdir=W

The same command goes on where a run was stopped.
"""

from mancs_jax.cli import cuhk03_classic
from mancs_jax.cli.command_line import run

if __name__ == "__main__":
    run(cuhk03_classic)
