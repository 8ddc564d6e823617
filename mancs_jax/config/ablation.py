"""Rows of the paper's Table 5, and single changes for questions that it leaves open, on any recipe:

    mancs train --config=ablation:focal,walkers --workdir=W
    mancs ablation --base=walkers --workdir=W          # all rows, three seeds, one table

`ablation:ROW[,BASE][,VARIANT...]`: ROW is one of ROWS, BASE one of `recipes.RECIPES` ("market" by default), VARIANT one
of the base's.
"""

from ml_collections import ConfigDict

from mancs_jax.config import recipes

# Table 5, from the first row to the last: each adds one component to the one before.
TABLE_5 = ("cls", "erasing", "rank", "focal", "attention", "curriculum")


def table_5(row: str, config: ConfigDict) -> None:
    """Removes from a complete recipe the components that a row does not have."""
    has = TABLE_5[: TABLE_5.index(row) + 1]
    config.augment.erase = 0.5 if "erasing" in has else 0.0
    if "rank" not in has:
        config.loss.rank_weight = 0.0
        config.model.rank_head = "pool"  # the evaluated embedding; an FC layer would stay at its initial values
    if "focal" not in has:
        config.loss.gamma = 0.0
    if "attention" not in has:
        config.model.fab_stages = ()
    if "curriculum" not in has:
        config.loss.sampling = "batch_hard"


def whole(config: ConfigDict) -> None:
    """The recipe as it is, with which the changes below are compared."""


def sigmoid_focal(config: ConfigDict) -> None:
    """Equations 7 and 8 as printed."""
    config.loss.probability = "sigmoid"


def rank_fc(config: ConfigDict) -> None:
    """An FC layer for f_rank (section 3.3)."""
    config.model.rank_head = "fc"
    config.model.rank_dim = 2048 if config.model.arch == "resnet50" else 512


def rank_pool(config: ConfigDict) -> None:
    """f_rank is the pooled map (release)."""
    config.model.rank_head = "pool"


def nearest_third(config: ConfigDict) -> None:
    """Only the nearest third of the negatives is ranked: the release's 80 of 240."""
    config.loss.num_nearest = (config.data.p - 1) * config.data.k // 3


def later_positives(config: ConfigDict) -> None:
    """Only the positives after the anchor, K(K-1)/2 per identity (release)."""
    config.loss.positives = "later"


def uniform(config: ConfigDict) -> None:
    """Negatives sampled uniformly."""
    config.loss.sampling = "uniform"


def batch_hard(config: ConfigDict) -> None:
    """The farthest positive and the nearest negative of each anchor."""
    config.loss.sampling = "batch_hard"


def no_decay(config: ConfigDict) -> None:
    """No weight decay: the paper gives no value."""
    config.optim.weight_decay = 0.0


def small_fab_init(config: ConfigDict) -> None:
    """FABs initialised from N(0, 0.001), as other new layers of the release."""
    config.model.fab_init = 0.001


CHANGES = {
    change.__name__: change
    for change in (
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
        CHANGES[row](config)
    config.recipe = f"{config.recipe}: {row}"
    config.eval_baselines = False
    return config.lock()
