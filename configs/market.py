"""Market-1501. The paper's recipe by default:

    python scripts/train.py --config=configs/market.py --workdir=W --config.pretrained=resnet50.pth

`:small` trains from scratch on a CPU.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = "") -> ConfigDict:
    """The recipe of `variant`: "" (paper) or "small"."""
    config = default.get_config()
    if variant == "small":
        small(config)
    elif variant:
        raise ValueError(f"configs/market.py has no variant {variant!r}; it has: small")
    return config.lock()


def small(config: ConfigDict) -> None:
    """ResNet-18 on 128x64 images, from scratch: 700 steps of 128, chosen on 100 held-out training identities."""
    config.pretrained = ""
    config.epochs = 30.4  # 700 steps of 23 an epoch
    config.data.image_size = (128, 64)
    config.data.p, config.data.k = 32, 4
    config.model.arch = "resnet18"
