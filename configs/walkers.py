"""Walkers, the rendered pedestrians that come with the project: a network in minutes on two CPU cores.

mancs prepare-data --dataset=walkers --root=data
python scripts/train.py --config=configs/walkers.py --workdir=workdirs/walkers
"""

from mancs_jax.config.recipes import walkers as get_config

__all__ = ["get_config"]
