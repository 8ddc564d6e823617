"""Walkers, the rendered pedestrians that come with the project: a network in minutes on two CPU cores.

python scripts/prepare_data.py --dataset=walkers --root=data
python scripts/train.py --config=configs/walkers.py --workdir=workdirs/walkers
"""

from ml_collections import ConfigDict

from configs import market


def get_config() -> ConfigDict:
    """The recipe of `configs/market.py:small`, shorter, and scored beside its baselines."""
    config = market.get_config("small").unlock()
    config.recipe = "walkers"
    config.data.name = "walkers"
    config.epochs = 16.0
    config.data.p, config.data.k = 16, 4
    config.loss.t0, config.loss.t1 = 3.0, 6.0
    config.eval_baselines = True
    return config.lock()
