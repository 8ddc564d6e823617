"""DukeMTMC-reID, which its authors withdrew in 2019. The paper's recipe by default:

    python scripts/train.py --config=configs/duke.py --workdir=W --config.pretrained=resnet50.pth

Variants as in `configs/market.py`.
"""

from ml_collections import ConfigDict

from configs import default, recipes


def get_config(variant: str = "") -> ConfigDict:
    """The recipe of `variant`: "" (paper), or some of `recipes.COMMON`, with commas between."""
    config = default.get_config()
    config.data.name = "dukemtmc_reid"
    return recipes.vary(config, variant, "configs/duke.py")
