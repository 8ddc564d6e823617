"""DukeMTMC-reID, which its authors withdrew in 2019. The paper's recipe by default:

    python scripts/train.py --config=configs/duke.py --workdir=W --config.pretrained=resnet50.pth

Variants as in `configs/market.py`.
"""

from mancs_jax.config.recipes import duke as get_config

__all__ = ["get_config"]
