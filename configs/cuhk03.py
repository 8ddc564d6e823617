"""CUHK03, 767/700 protocol, detected boxes. The paper's recipe by default:

    python scripts/train.py --config=configs/cuhk03.py --workdir=W --config.pretrained=resnet50.pth

`:labeled` takes the boxes drawn by hand, `:classic` the first of the 20 test sets of 100 people (the others are
`--config.data.testset=2` to 20; `mancs cuhk03-classic` runs all), beside the variants of `configs/market.py`. They
go together: `:labeled,authors,small`.
"""

from mancs_jax.config.recipes import cuhk03 as get_config

__all__ = ["get_config"]
