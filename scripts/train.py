"""Trains Mancs and scores it: python scripts/train.py --config=configs/market.py --workdir=W."""

from mancs_jax.cli import train
from mancs_jax.cli.command_line import run

if __name__ == "__main__":
    run(train)
