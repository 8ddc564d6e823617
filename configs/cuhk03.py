"""CUHK03, 767/700 protocol, detected boxes. The paper's recipe by default:

    python scripts/train.py --config=configs/cuhk03.py --workdir=W --config.pretrained=resnet50.pth

`:labeled` takes the boxes drawn by hand, `:classic` the first of the 20 test sets of 100 people (the others are
`--config.data.testset=2` to 20), `:small` trains from scratch on a CPU. They go together: `:labeled,small`.
"""

from ml_collections import ConfigDict

from configs import default, market

VARIANTS = ("labeled", "classic", "small")


def get_config(variant: str = "") -> ConfigDict:
    """The recipe of `variant`: "" (paper), or of some of VARIANTS, with commas between."""
    config = default.get_config()
    config.data.name = "cuhk03_detected"
    config.data.p, config.data.k = 32, 8  # section 4.3
    for name in filter(None, variant.split(",")):
        if name not in VARIANTS:
            raise ValueError(f"configs/cuhk03.py has no variant {name!r}; it has: {', '.join(VARIANTS)}")
        if name == "labeled":
            config.data.name = "cuhk03_labeled"
        if name == "classic":
            config.data.testset = 1
        if name == "small":
            market.small(config)
    return config.lock()
