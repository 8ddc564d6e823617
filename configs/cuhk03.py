"""CUHK03, 767/700 protocol, detected boxes. The paper's recipe by default:

    python scripts/train.py --config=configs/cuhk03.py --workdir=W --config.pretrained=resnet50.pth

`:labeled` takes the boxes drawn by hand, `:classic` the first of the 20 test sets of 100 people (the others are
`--config.data.testset=2` to 20; scripts/cuhk03_classic.py runs all), beside the variants of `configs/market.py`. They
go together: `:labeled,authors,small`.
"""

from ml_collections import ConfigDict

from configs import default, recipes


def get_config(variant: str = "") -> ConfigDict:
    """The recipe of `variant`: "" (paper), or some of `recipes.COMMON`, "labeled", "classic", with commas between."""
    config = default.get_config()
    config.data.name = "cuhk03_detected"
    config.data.p, config.data.k = 32, 8  # section 4.3
    return recipes.vary(config, variant, "configs/cuhk03.py", {"labeled": labeled, "classic": classic})


def labeled(config: ConfigDict) -> None:
    """Boxes drawn by hand."""
    config.data.name = "cuhk03_labeled"


def classic(config: ConfigDict) -> None:
    """The classic protocol, first split."""
    config.data.testset = 1
