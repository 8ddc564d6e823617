"""Walkers, the rendered pedestrians that come with the project: a network in minutes on two CPU cores.

python scripts/prepare_data.py --dataset=walkers --root=data
python scripts/train.py --config=configs/walkers.py --workdir=workdirs/walkers
"""

from ml_collections import ConfigDict

from configs import default, recipes


def get_config(variant: str = "") -> ConfigDict:
    """The recipe of `recipes.small`, shorter, and scored beside its baselines; `variant`: "" or "authors"."""
    config = recipes.vary(default.get_config(), f"{variant},small", "configs/walkers.py").unlock()
    config.recipe = config.recipe.replace("small", "walkers")
    config.data.name = "walkers"
    config.data.unused_ids = 0
    config.epochs = 16.0
    config.data.p, config.data.k = 16, 4
    config.loss.mu_step *= config.loss.t0 / 3.0
    config.loss.t0, config.loss.t1 = 3.0, 6.0
    config.eval_baselines = True
    return config.lock()
