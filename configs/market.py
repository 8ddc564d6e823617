"""Market-1501. The paper's recipe by default:

    python scripts/train.py --config=configs/market.py --workdir=W --config.pretrained=resnet50.pth

`:authors` is the recipe of their released code, `:small` trains from scratch on a CPU, `:authors,small` is both;
`:scratch` trains from scratch for hours.
"""

from mancs_jax.config.recipes import market as get_config

__all__ = ["get_config"]
