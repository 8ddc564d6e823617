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
    """ResNet-18 on 128x64 images, from scratch: 700 steps of 128, for a CPU.

    The learning rate, the crop and the curriculum were chosen on 100 held-out training identities: see
    docs/results/market1501_small.md.
    """
    config.recipe = "small"
    config.pretrained = ""
    config.remat = False
    config.epochs = 700 / 23  # 700 steps
    config.data.image_size = (128, 64)
    config.data.p, config.data.k = 32, 4
    config.augment.crop_area = (0.8, 1.0)
    config.augment.crop_aspect = (1.8, 2.4)
    config.augment.erase = 0.0  # too short a training to need it
    config.model.arch = "resnet18"
    config.model.rank_head = "pool"
    config.model.cls_head = "bn_prelu"
    config.model.cls_dim = 512
    config.model.head_init = 0.04  # 0.001 before a BatchNorm makes the first steps random: nothing is learnt for epochs
    config.loss.t0 = 5.7  # the share of the training that the paper gives it
    config.loss.t1 = 11.4
    config.optim.learning_rate = 1e-3
    config.optim.head_multiplier = 1.0
    config.optim.schedule = "cosine"
    config.optim.warmup_epochs = 2.0
