"""Rows of the paper's Table 5, and single changes that settle its open questions, on any of the recipes:

    mancs train --config=ablation:focal,walkers --workdir=W
    mancs ablation --base=walkers --workdir=W          # all rows, three seeds, one table

`configs/ablation.py:ROW[,BASE][,VARIANT...]`: ROW is one of ROWS, BASE one of BASES ("market" if none is named), a
VARIANT one of the base's own.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from mancs_jax.config import recipes

BASES = {
    "market": recipes.market,
    "cuhk03": recipes.cuhk03,
    "duke": recipes.duke,
    "walkers": recipes.walkers,
}
# Table 5, from the first row to the last: each has what the one before has, and one thing more.
TABLE_5 = ("cls", "erasing", "rank", "focal", "attention", "curriculum")


def table_5(row: str, config: ConfigDict) -> None:
    """Takes out of a whole recipe what a row does not have yet."""
    has = TABLE_5[: TABLE_5.index(row) + 1]
    config.augment.erase = 0.5 if "erasing" in has else 0.0
    if "rank" not in has:
        config.loss.rank_weight = 0.0
        config.model.rank_head = "pool"  # what is scored; an FC of its own would stay as it was drawn
    if "focal" not in has:
        config.loss.gamma = 0.0
    if "attention" not in has:
        config.model.fab_stages = ()
    if "curriculum" not in has:
        config.loss.sampling = "batch_hard"


def whole(config: ConfigDict) -> None:
    """The recipe as it is, for the changes below to be compared with."""


def sigmoid_focal(config: ConfigDict) -> None:
    """Equations 7 and 8 as they are printed."""
    config.loss.probability = "sigmoid"


def rank_fc(config: ConfigDict) -> None:
    """An FC of its own for f_rank (section 3.3)."""
    config.model.rank_head = "fc"
    config.model.rank_dim = 2048 if config.model.arch == "resnet50" else 512


def rank_pool(config: ConfigDict) -> None:
    """f_rank is the pooled map (release)."""
    config.model.rank_head = "pool"


def nearest_third(config: ConfigDict) -> None:
    """Only the nearest third of the negatives has a rank: the release's 80 of 240."""
    config.loss.num_nearest = (config.data.p - 1) * config.data.k // 3


def later_positives(config: ConfigDict) -> None:
    """Only the positives after the anchor, K(K-1)/2 an identity (release)."""
    config.loss.positives = "later"


def uniform(config: ConfigDict) -> None:
    """Negatives drawn uniformly."""
    config.loss.sampling = "uniform"


def batch_hard(config: ConfigDict) -> None:
    """The farthest positive and the nearest negative of each anchor."""
    config.loss.sampling = "batch_hard"


def no_decay(config: ConfigDict) -> None:
    """No weight decay: the paper gives none."""
    config.optim.weight_decay = 0.0


def small_fab_init(config: ConfigDict) -> None:
    """FABs that begin at N(0, 0.001), as other new layers of the release do."""
    config.model.fab_init = 0.001


CHANGES: tuple[Callable[[ConfigDict], None], ...] = (
    whole,
    sigmoid_focal,
    rank_fc,
    rank_pool,
    nearest_third,
    later_positives,
    uniform,
    batch_hard,
    no_decay,
    small_fab_init,
)
# Texts of the rows in the table.
TEXTS = {change.__name__: (change.__doc__ or "").rstrip(".") for change in CHANGES}
QUESTIONS = tuple(change.__name__ for change in CHANGES)
ROWS = TABLE_5 + QUESTIONS


def ablation(variant: str = "curriculum") -> ConfigDict:
    """The recipe of a base, without what the row leaves out.

    Raises:
      ValueError: one line: no such row or base.
    """
    row, *others = variant.split(",")
    if row not in ROWS:
        raise ValueError(f"ablation has no row {row!r}; it has: {', '.join(ROWS)}")
    bases = [name for name in others if name in BASES] or ["market"]
    variants = ",".join(name for name in others if name not in BASES)
    config = BASES[bases[0]](variants).unlock()
    if row in TABLE_5:
        table_5(row, config)
    else:
        CHANGES[QUESTIONS.index(row)](config)
    config.recipe = f"{config.recipe}: {row}"
    config.eval_baselines = False
    return config.lock()
