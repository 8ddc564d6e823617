"""Market-1501. The paper's recipe by default:

    python scripts/train.py --config=configs/market.py --workdir=W --config.pretrained=resnet50.pth

`:authors` is the recipe of their released code, `:small` trains from scratch on a CPU, `:authors,small` is both.
"""

from ml_collections import ConfigDict

from configs import default, recipes


def get_config(variant: str = "") -> ConfigDict:
    """The recipe of `variant`: "" (paper), or some of `recipes.COMMON`, with commas between."""
    return recipes.vary(default.get_config(), variant, "configs/market.py")
