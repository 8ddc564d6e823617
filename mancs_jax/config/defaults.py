"""Every field of a run with its source in the paper, and its limits. The values are the paper's for Market-1501.

Where the paper gives no value, the authors' release decides. Recipes change what differs.
"""

from ml_collections import ConfigDict

from mancs_jax.config.names import STAGE_SIZES


def get_config() -> ConfigDict:
    """Returns the paper's recipe with every field set, not locked."""
    config = ConfigDict()
    config.recipe = "paper"  # name written into every result
    config.seed = 0
    # ImageNet weights (section 4.3), or a pretrained model: a file or a name. "": from scratch
    config.pretrained = "weights/resnet50.pth"
    # Fine-tuning: architecture and `data.image_size` become those of the model in `pretrained`
    config.like_pretrained = False
    config.epochs = 160.0  # section 4.3; an epoch has floor(C / P) batches
    config.max_steps = 0  # training stops after this many steps; the schedules still follow `epochs`. 0: off
    # Groups of a batch that have their own BatchNorm statistics (release: 4, one per GPU). 0: one per device, and with
    # `accumulate` one per micro-batch
    config.batch_norm_groups = 1
    # Fine-tuning: BatchNorm uses the running statistics of `pretrained`, and does not update them
    config.batch_norm_frozen = False
    config.dtype = "float32"  # or "bfloat16", of backbone and attention; heads and parameters are float32
    # Gradient checkpointing: stages whose activations the backward pass computes again. For all stages, a step takes a
    # third more work, and the paper's batch 9.9 GB instead of 13.7 (docs/performance.md). (): none
    config.remat = (2, 3, 4, 5)
    # Gradient accumulation: micro-batches of a device. Triplets come from the whole batch, BatchNorm statistics from a
    # micro-batch
    config.accumulate = 1

    config.data = data = ConfigDict()
    data.name = "market1501"  # a data set, or several to train on, as "market1501,cuhk01"
    data.root = "data"  # directory that `mancs prepare-data --root` wrote
    data.image_size = (256, 128)  # height, width; section 4.3
    data.p = 16  # identities per batch; section 4.3
    data.k = 16  # images per identity
    # With several data sets: "sources" samples equally many identities of each for every batch, to within one;
    # "identities" samples all identities equally often
    data.balance = "sources"
    data.testset = 0  # 1 to 20: this split of CUHK03's classic protocol
    # Training identities of each data set that are held out, and evaluated at the end instead of query and gallery
    data.validation_ids = 0
    data.unused_ids = 0  # training identities that are not used (release: about 75 of 751, by mistake)

    config.augment = augment = ConfigDict()
    augment.crop_area = (0.64, 1.0)  # share of the image; section 4.3
    augment.crop_aspect = (2.0, 3.0)  # height / width; section 4.3
    augment.flip = 0.5  # probability; section 4.3
    augment.erase = 0.5  # probability; random erasing "as in [45]", Zhong et al. 2017
    augment.erase_area = (0.02, 0.4)  # share of the image; [45] (release: 0.02 to 0.2)
    augment.erase_aspect = (0.3, 1 / 0.3)  # height / width; [45]
    # "random" pixels as in [45], or "constant" 0.4914 0.4822 0.4465 after normalising (release)
    augment.erase_fill = "random"
    # Probability of colour jitter; then the largest changes of brightness, contrast, saturation and hue (torchvision's
    # ColorJitter, in this order). The paper has none; the values are fast-reid's (He et al. 2020)
    augment.jitter = 0.0
    augment.jitter_brightness = 0.15
    augment.jitter_contrast = 0.15
    augment.jitter_saturation = 0.1
    augment.jitter_hue = 0.1  # share of a full turn
    # First epochs with images of half the height and width, which take a quarter of the time: progressive resizing,
    # Howard 2018 (fast.ai's DAWNBench entry), Tan and Le 2021, section 4. 0: off
    augment.half_size_epochs = 0.0

    config.model = model = ConfigDict()
    model.arch = "resnet50"  # section 4.3; resnet18, 34, 50, 101 or 152
    model.width = 64  # channels of the stem
    model.last_stride = 2  # of conv-5
    # Section 4.3; "relu", "prelu", or "prelu_shared": one for all activations of the last block (release)
    model.last_activation = "prelu"
    # Stages whose blocks normalise half of their first convolution's channels per image: IBN-a, Pan et al. 2018
    model.ibn_stages = ()
    model.stem_norm = "batch"  # or "instance": the stem's channels are normalised per image (IBN-b, Pan et al. 2018)
    # Stages whose output takes channel means and deviations in part from other images: MixStyle, Zhou et al. 2021
    model.mixstyle_stages = ()
    model.mixstyle = 0.5  # probability, per image
    model.mixstyle_alpha = 0.1  # the share is Beta(alpha, alpha)
    model.fab_stages = (2, 3, 4)  # figure 1; () for none
    model.fab_squeeze = 0  # channels; 0: C / 16, figure 2 (release: 16)
    model.fab_activation = "relu"  # equation 1 (release: "prelu")
    model.fab_init = 0.0  # standard deviation of the FABs' initial kernels (release: 0.001); 0: PyTorch's default
    model.attention_pool = "mask"  # section 3.5; "mask_times_map" (release)
    model.rank_head = "fc"  # section 3.3; "pool" (release)
    model.rank_dim = 2048  # width of "fc"; not given
    model.cls_head = "fc"  # section 4.3; "bn_prelu": FC without bias, BatchNorm, PReLU, dropout (release)
    model.cls_dim = 2048  # section 4.3
    model.att_head = "linear"  # section 3.5; "bn_prelu" (release)
    model.head_init = 0.001  # standard deviation of the new FC layers of f_rank and f_cls (release)
    model.dropout = 0.0  # in the "bn_prelu" heads (release: 0.1)

    config.loss = loss = ConfigDict()
    loss.rank_weight = 1.0  # equation 11 and section 4.3
    loss.cls_weight = 1.0
    loss.att_weight = 0.2
    loss.margin = 0.5  # equation 5
    loss.sampling = "curriculum"  # section 3.3; "batch_hard", "uniform"
    loss.t0 = 30.0  # epochs; equations 3 and 4
    loss.t1 = 60.0  # epochs
    loss.a = 15.0  # ranks
    loss.b = 0.001
    loss.num_nearest = 0  # nearest negatives that are ranked; 0: all (release: 80)
    loss.mu_step = 0.0  # ranks per epoch; 0: N_n / t0 (release: 3)
    loss.density_floor = 0.0  # (release: 3e-5)
    loss.positives = "all"  # K-1 per anchor, section 3.3; "later": only those after the anchor (release)
    # With several data sets: negatives come from the whole "batch", or from the anchor's own "source" only
    loss.negatives = "batch"
    loss.gamma = 2.0  # equation 8; 0 is cross-entropy
    # Equation 7 prints "sigmoid". As printed, it ignores the other classes: large logits everywhere minimise it.
    loss.probability = "softmax"  # (release)
    loss.detach_focal = False  # whether (1-p)^gamma is a constant in the gradient (release)
    loss.attention = "sigmoid"  # equation 10; "softmax" (release)
    loss.label_smoothing = 0.0  # of the identity loss: share of the target spread over all classes, Szegedy et al. 2016

    config.optim = optim = ConfigDict()
    optim.name = "adam"  # section 4.3; "sgd" with Nesterov momentum, Sutskever et al. 2013
    optim.momentum = 0.9  # of "sgd"
    optim.learning_rate = 3e-4  # section 4.3
    optim.schedule = "exponential"  # (release; the paper gives none) "constant", "exponential" or "cosine"
    optim.warmup_epochs = 0.0  # linear from 0
    optim.decay_start = 100.0  # epochs; of "exponential" (release)
    optim.decay_rate = 0.001  # of "exponential": factor after `decay_epochs` (release)
    optim.decay_epochs = 50.0
    optim.head_multiplier = 3.0  # of the learning rate, outside the backbone (release; the paper gives none)
    optim.weight_decay = 5e-4  # added to the gradient before the optimizer (release); the paper gives none
    optim.clip_norm = 10.0  # of the whole gradient; 0: off. Section 4.3 clips and gives no value

    config.checkpoint_every = 10.0  # epochs
    config.keep_checkpoints = 2  # the latest ones; the best on the held-out identities is kept in addition
    config.eval_every = 0.0  # epochs between evaluations on what `choose_on` names; 0: only at the end
    # Epochs without a better score on the held-out identities after which training ends; the pretrained model is the
    # first candidate. 0: off
    config.early_stopping = 0.0
    # best/ has the best checkpoint on the "validation" (held-out) identities, or on the "test" set (release), whose
    # scores are then no valid result: every file of such a run says so
    config.choose_on = "validation"
    config.log_every = 1  # steps between rows of metrics.jsonl
    config.eval_batch = 128  # images per forward pass
    config.eval_baselines = False  # also evaluate an untrained network and a colour histogram
    return config


CHOICES = {
    "dtype": ("float32", "bfloat16"),
    "data.balance": ("sources", "identities"),
    "choose_on": ("validation", "test"),
    "augment.erase_fill": ("random", "constant"),
    "model.arch": tuple(STAGE_SIZES),
    "model.last_stride": (1, 2),
    "model.last_activation": ("relu", "prelu", "prelu_shared"),
    "model.stem_norm": ("batch", "instance"),
    "model.fab_activation": ("relu", "prelu"),
    "model.attention_pool": ("mask", "mask_times_map"),
    "model.rank_head": ("fc", "pool"),
    "model.cls_head": ("fc", "bn_prelu"),
    "model.att_head": ("linear", "bn_prelu"),
    "loss.sampling": ("curriculum", "batch_hard", "uniform"),
    "loss.positives": ("all", "later"),
    "loss.negatives": ("batch", "source"),
    "loss.probability": ("sigmoid", "softmax"),
    "loss.attention": ("sigmoid", "softmax"),
    "optim.name": ("adam", "sgd"),
    "optim.schedule": ("constant", "exponential", "cosine"),
}
AT_LEAST = {  # least value -> fields
    0: (
        "seed", "max_steps", "batch_norm_groups", "eval_every", "early_stopping", "data.testset",
        "data.validation_ids", "data.unused_ids", "augment.half_size_epochs", "augment.jitter_hue",
        "model.fab_squeeze", "model.fab_init", "loss.rank_weight", "loss.cls_weight", "loss.att_weight",
        "loss.margin", "loss.num_nearest", "loss.mu_step", "loss.density_floor", "loss.gamma",
        "loss.label_smoothing", "optim.momentum", "optim.warmup_epochs", "optim.decay_start",
        "optim.weight_decay", "optim.clip_norm",
    ),
    1: (
        "accumulate", "keep_checkpoints", "log_every", "eval_batch", "model.width", "model.rank_dim",
        "model.cls_dim",
    ),
    2: ("data.p", "data.k"),
}  # fmt: skip
ABOVE_0 = (
    "epochs", "checkpoint_every", "model.head_init", "model.mixstyle_alpha", "loss.t0", "loss.a", "loss.b",
    "optim.learning_rate", "optim.decay_rate", "optim.decay_epochs", "optim.head_multiplier",
)  # fmt: skip
PROBABILITIES = (
    "augment.flip", "augment.erase", "augment.jitter", "augment.jitter_brightness", "augment.jitter_contrast",
    "augment.jitter_saturation", "model.mixstyle", "model.dropout",
)  # fmt: skip
RANGES = ("augment.crop_area", "augment.crop_aspect", "augment.erase_area", "augment.erase_aspect")  # (least, most)
SIDE = 32  # stride of the network, which divides height and width of the images
