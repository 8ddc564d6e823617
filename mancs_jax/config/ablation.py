"""Rows of the paper's Table 5, and single changes for questions that it leaves open, on any recipe:

    mancs train --config=ablation:focal,walkers --workdir=W
    mancs ablation --base=walkers --workdir=W          # all rows, three seeds, one table

`ablation:ROW[,BASE][,VARIANT...]`: ROW is one of ROWS, BASE one of `recipes.RECIPES` ("market" by default), VARIANT one
of the base's.
"""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from mancs_jax.config import recipes

# Table 5, from the first row to the last: each adds one component to the one before.
TABLE_5 = ("cls", "erasing", "rank", "focal", "attention", "curriculum")


def table_5(row: str, config: ConfigDict) -> None:
    """Removes from a complete recipe the components that a row does not have."""
    components = TABLE_5[: TABLE_5.index(row) + 1]
    config.augment.erase = 0.5 if "erasing" in components else 0.0
    if "rank" not in components:
        config.loss.rank_weight = 0.0
        config.model.rank_head = "pool"  # the evaluated embedding; an FC layer would stay at its initial values
    if "focal" not in components:
        config.loss.gamma = 0.0
    if "attention" not in components:
        config.model.fab_stages = ()
    if "curriculum" not in components:
        config.loss.sampling = "batch_hard"


# Row -> its text in the table, and the fields that it changes.
CHANGES: dict[str, tuple[str, Callable[[ConfigDict], dict[str, Any]]]] = {
    "whole": ("The recipe as it is, with which the changes below are compared", lambda _: {}),
    "sigmoid_focal": ("Equations 7 and 8 as printed", lambda _: {"loss.probability": "sigmoid"}),
    "rank_fc": (
        "An FC layer for f_rank (section 3.3)",
        lambda config: {"model.rank_head": "fc", "model.rank_dim": 2048 if config.model.arch == "resnet50" else 512},
    ),
    "rank_pool": ("f_rank is the pooled map (release)", lambda _: {"model.rank_head": "pool"}),
    "nearest_third": (
        "Only the nearest third of the negatives is ranked: the release's 80 of 240",
        lambda config: {"loss.num_nearest": (config.data.p - 1) * config.data.k // 3},
    ),
    "later_positives": (
        "Only the positives after the anchor, K(K-1)/2 per identity (release)",
        lambda _: {"loss.positives": "later"},
    ),
    "uniform": ("Negatives sampled uniformly", lambda _: {"loss.sampling": "uniform"}),
    "batch_hard": (
        "The farthest positive and the nearest negative of each anchor",
        lambda _: {"loss.sampling": "batch_hard"},
    ),
    "no_decay": ("No weight decay: the paper gives no value", lambda _: {"optim.weight_decay": 0.0}),
    "small_fab_init": (
        "FABs initialised from N(0, 0.001), as other new layers of the release",
        lambda _: {"model.fab_init": 0.001},
    ),
}
ROWS = (*TABLE_5, *CHANGES)


def ablation(variant: str = "curriculum") -> ConfigDict:
    """Returns the configuration of a row on a base (ValueError, one line: no such row or base)."""
    row, *names = variant.split(",")
    if row not in ROWS:
        raise ValueError(f"ablation has no row {row!r}; it has: {', '.join(ROWS)}")
    bases = [name for name in names if name in recipes.RECIPES] or ["market"]
    variants = ",".join(name for name in names if name not in recipes.RECIPES)
    config = recipes.RECIPES[bases[0]](variants).unlock()
    if row in TABLE_5:
        table_5(row, config)
    else:
        config.update_from_flattened_dict(CHANGES[row][1](config))
    config.recipe = f"{config.recipe}: {row}"
    config.eval_baselines = False
    return config.lock()
