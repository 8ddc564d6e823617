"""Trains on several data sets, for cameras of other sites (docs/other_cameras.md):

python scripts/train.py --config=configs/general.py --workdir=W
"""

from mancs_jax.config.recipes import general as get_config

__all__ = ["get_config"]
