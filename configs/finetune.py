"""Fine-tunes a pretrained model on your own identities (docs/fine_tuning.md):

python scripts/train.py --config=configs/finetune.py --workdir=W --config.data.name=mydata
"""

from mancs_jax.config.recipes import finetune as get_config

__all__ = ["get_config"]
