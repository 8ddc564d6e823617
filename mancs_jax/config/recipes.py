"""Recipes and their variants, which combine: `market:authors,small`."""

from collections.abc import Callable, Mapping

from ml_collections import ConfigDict

from mancs_jax.config import defaults


def authors(config: ConfigDict) -> None:
    """The recipe of the authors' released code, github.com/hustvl/mancs, where it differs from the paper.

    docs/paper.md has a row for each field. `choose_on` does not change: the release keeps the checkpoint that is best
    on the test set, which is not a valid way to report a result.
    """
    config.recipe = "authors"
    config.epochs = 150.0
    config.batch_norm_groups = 4  # 64 images on each of its four GPUs
    config.data.unused_ids = 75  # approximately: a line break in its run.sh drops the option that adds them
    config.augment.erase_area = (0.02, 0.2)
    config.augment.erase_aspect = (0.3, 3.3)
    config.augment.erase_fill = "constant"
    config.model.last_activation = "prelu_shared"
    config.model.fab_squeeze = 16
    config.model.fab_activation = "prelu"
    config.model.fab_init = 0.001
    config.model.attention_pool = "mask_times_map"
    config.model.rank_head = "pool"
    config.model.cls_head = "bn_prelu"
    config.model.att_head = "bn_prelu"
    config.model.dropout = 0.1
    config.loss.num_nearest = 80
    config.loss.mu_step = 3.0
    config.loss.density_floor = 3e-5
    config.loss.positives = "later"
    config.loss.probability = "softmax"
    config.loss.detach_focal = True
    config.loss.attention = "softmax"
    config.optim.clip_norm = 0.0


def small(config: ConfigDict) -> None:
    """ResNet-18 on 128x64 images, from scratch: 700 steps with batch size 128 on Market-1501, for a CPU.

    Learning rate, crop and curriculum were selected on 100 held-out identities: see docs/results/market1501_small.md.
    """
    config.recipe = "small" if config.recipe == "paper" else f"{config.recipe},small"
    config.pretrained = ""
    config.remat = ()
    config.epochs = 700 / 23  # 700 steps on Market-1501
    config.data.image_size = (128, 64)
    config.data.p, config.data.k = 32, 4
    config.augment.crop_area = (0.8, 1.0)
    config.augment.crop_aspect = (1.8, 2.4)
    config.augment.erase = 0.0  # the training is too short to need it
    config.model.arch = "resnet18"
    config.model.rank_head = "pool"
    config.model.cls_head = "bn_prelu"
    config.model.cls_dim = 512
    config.model.head_init = 0.04  # with 0.001 before a BatchNorm, the network learns nothing for epochs
    config.loss.mu_step *= config.loss.t0 / 5.7
    config.loss.t0 = 5.7  # the same share of the training as in the paper
    config.loss.t1 = 11.4
    config.optim.learning_rate = 1e-3
    config.optim.head_multiplier = 1.0
    config.optim.schedule = "cosine"
    config.optim.warmup_epochs = 2.0


def scratch(config: ConfigDict) -> None:
    """Training from scratch for some hours on two CPU cores: 12,000 steps with batch size 128 on Market-1501.

    ResNet-18 with base width 40 and last stride 1, on 128x64 images, half that size in the first 340 epochs. SGD, label
    smoothing and erasing help only in long training runs. 100 identities are held out for validation and thresholds.
    """
    small(config)
    config.recipe = config.recipe.replace("small", "scratch")
    config.epochs = 600.0  # of 20 steps, with 651 identities
    config.data.validation_ids = 100
    config.augment.erase = 0.5
    config.augment.erase_area = (0.02, 0.2)
    config.augment.half_size_epochs = 340.0
    config.model.width = 40
    config.model.last_stride = 1
    config.loss.label_smoothing = 0.1
    config.loss.mu_step *= config.loss.t0 / 114.0
    config.loss.t0 = 114.0  # the same share of the training as in the paper
    config.loss.t1 = 228.0
    config.optim.name = "sgd"
    config.optim.learning_rate = 0.1
    config.optim.warmup_epochs = 5.0
    config.eval_every = 50.0
    config.log_every = 10


COMMON = {"authors": authors, "small": small, "scratch": scratch}


def vary(
    config: ConfigDict, variant: str, recipe: str, additional: Mapping[str, Callable[[ConfigDict], None]] | None = None
) -> ConfigDict:
    """Applies variants to a configuration and locks it (ValueError, one line: no such variant).

    `variant` has names separated by commas, the text after the colon in `--config=RECIPE:variant`; `additional`
    has variants that only this recipe has.
    """
    variants = COMMON | dict(additional or {})
    names = [name for name in variant.split(",") if name]
    for name in names:
        if name not in variants:
            raise ValueError(f"{recipe} has no variant {name!r}; it has: {', '.join(variants)}")
    for name in variants:  # in this order: `small` changes every recipe
        if name in names:
            variants[name](config)
    return config.lock()


def market(variant: str = "") -> ConfigDict:
    """Market-1501; `variant`: "" (the paper's recipe), or names of `COMMON` separated by commas."""
    return vary(defaults.get_config(), variant, "market")


def duke(variant: str = "") -> ConfigDict:
    """DukeMTMC-reID, which its authors withdrew in 2019; variants as `market`."""
    config = defaults.get_config()
    config.data.name = "dukemtmc_reid"
    return vary(config, variant, "duke")


def cuhk03(variant: str = "") -> ConfigDict:
    """CUHK03, 767/700 protocol, detected boxes; variants as `market`, and "labeled" and "classic"."""
    config = defaults.get_config()
    config.data.name = "cuhk03_detected"
    config.data.p, config.data.k = 32, 8  # section 4.3
    additional = {
        "labeled": lambda config: config.data.update(name="cuhk03_labeled"),  # boxes drawn by hand
        "classic": lambda config: config.data.update(testset=1),  # the first split of the classic protocol
    }
    return vary(config, variant, "cuhk03", additional)


def walkers(variant: str = "") -> ConfigDict:
    """The rendered pedestrians: `small`, narrower and shorter, with baselines; `variant`: "" or "authors"."""
    config = vary(defaults.get_config(), f"{variant},small", "walkers").unlock()
    config.recipe = config.recipe.replace("small", "walkers")
    config.data.name = "walkers"
    config.data.image_size = (64, 32)
    config.data.unused_ids = 0
    config.model.width = 48
    config.epochs = 20.0
    config.data.p, config.data.k = 16, 4
    config.loss.mu_step *= config.loss.t0 / 3.0
    config.loss.t0, config.loss.t1 = 3.0, 6.0  # a smaller share of the training than in the paper
    config.eval_baselines = True
    return config.lock()


def _refuse_variants(recipe: str, variant: str) -> None:
    if variant:
        raise ValueError(f"{recipe} has no variant {variant!r}: it has none")


def finetune(variant: str = "") -> ConfigDict:
    """Fine-tunes a pretrained model on your own identities; `config.data.name` has to be given.

    The learning rate is low, BatchNorm keeps the statistics of the pretrained model, and training ends early where the
    held-out identities gain nothing. Learning rate and length have not been tuned: see docs/fine_tuning.md.
    """
    _refuse_variants("finetune", variant)
    config = vary(defaults.get_config(), "small", "finetune").unlock()
    config.recipe = "finetune"
    config.pretrained = "market1501"
    config.like_pretrained = True
    config.batch_norm_frozen = True
    config.epochs = 30.0
    config.eval_every = 5.0
    config.early_stopping = 10.0
    config.eval_baselines = True
    config.data.name = ""
    config.data.p, config.data.k = 8, 4
    config.data.validation_ids = 10
    config.loss.t0, config.loss.t1 = 1.0, 2.0  # the model has learned the easy triplets already
    config.optim.name = "sgd"
    config.optim.learning_rate = 0.01
    config.optim.warmup_epochs = 1.0
    return config.lock()


def general(variant: str = "") -> ConfigDict:
    """Trains on several data sets, for cameras of other sites: `market1501` fine-tuned on all that are prepared.

    `config.data.name` names them, separated by commas. Negatives come from the data set of their anchor, MixStyle mixes
    the statistics of images, nothing is erased, and all images have full size: selected by scores on a data set that
    was left out, see docs/other_cameras.md.
    """
    _refuse_variants("general", variant)
    config = vary(defaults.get_config(), "scratch", "general").unlock()
    config.recipe = "general"
    config.pretrained = "market1501"
    config.like_pretrained = True
    config.data.name = "market1501,cuhk01,cuhk03_pair1"
    config.data.p = 30  # of two data sets or of three
    config.data.validation_ids = 50  # of each data set
    config.epochs = 13.0  # of 80 steps
    config.eval_every = 0.0
    config.augment.erase = 0.0
    config.augment.crop_area = (0.64, 1.0)
    config.augment.crop_aspect = (1.6, 2.6)
    config.augment.half_size_epochs = 0.0
    config.loss.negatives = "source"
    config.model.mixstyle_stages = (2, 3)
    config.loss.t0, config.loss.t1 = 2.2, 4.4  # the same share of the training as in the paper
    config.optim.learning_rate = 0.05
    config.optim.warmup_epochs = 1.0
    return config.lock()


RECIPES = {
    "market": market,
    "duke": duke,
    "cuhk03": cuhk03,
    "walkers": walkers,
    "finetune": finetune,
    "general": general,
}
