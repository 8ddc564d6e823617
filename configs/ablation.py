"""Rows of the paper's Table 5, and single changes that settle its open questions, on any of the recipes:

    python scripts/train.py --config=configs/ablation.py:focal,walkers --workdir=W
    mancs ablation --base=walkers --workdir=W          # all rows, three seeds, one table

`configs/ablation.py:ROW[,BASE][,VARIANT...]`: ROW is one of ROWS, BASE one of BASES ("market" if none is named), a
VARIANT one of the base's own.
"""

from mancs_jax.config.ablation import ablation as get_config

__all__ = ["get_config"]
