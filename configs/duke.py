"""DukeMTMC-reID, which its authors withdrew in 2019. The paper's recipe by default:

    python scripts/train.py --config=configs/duke.py --workdir=W --config.pretrained=resnet50.pth

`:small` trains from scratch on a CPU.
"""

from ml_collections import ConfigDict

from configs import default, market

VARIANTS = ("small",)


def get_config(variant: str = "") -> ConfigDict:
    """The recipe of `variant`: "" (paper) or "small"."""
    config = default.get_config()
    config.data.name = "dukemtmc_reid"
    for name in filter(None, variant.split(",")):
        if name not in VARIANTS:
            raise ValueError(f"configs/duke.py has no variant {name!r}; it has: {', '.join(VARIANTS)}")
        if name == "small":
            market.small(config)
    return config.lock()
