"""Every field of a run, once, with its source in the paper; the values are the paper's recipe for Market-1501.

Where the paper is silent the authors' release decides. Other files take this one and say what differs.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The paper recipe with every field set, not yet locked."""
    config = ConfigDict()
    config.recipe = "paper"  # name written into every result
    config.seed = 0
    # ImageNet weights (section 4.3), or a network: a file or a name. "": from scratch
    config.pretrained = "weights/resnet50.pth"
    # Fine-tuning: `model` and `data.image_size` become those of the network in `pretrained`
    config.like_pretrained = False
    config.epochs = 160.0  # section 4.3; an epoch is floor(C / P) batches; a fraction is a part of one
    config.max_steps = 0  # stop after so many steps; the schedules still follow `epochs`. 0: off
    # BatchNorm has statistics of its own for each of so many parts of a batch (release: 4, one a GPU). 0: for each
    # device's part, and with `accumulate` for each micro-batch
    config.batch_norm_groups = 1
    # Fine-tuning: BatchNorm uses and keeps the running statistics of `pretrained`, instead of those of the batch
    config.batch_norm_frozen = False
    config.dtype = "float32"  # or "bfloat16", of backbone and attention; heads and all parameters are float32
    # Stages whose activations are computed again in the backward pass; all of them: a third more work, and the paper's
    # batch takes 9.9 GB, not 13.7 (docs/performance.md). () for none.
    config.remat = (2, 3, 4, 5)
    # Gradient accumulation: micro-batches that a device computes one after the other. Triplets still come from the
    # whole batch, but BatchNorm's statistics from a micro-batch.
    config.accumulate = 1

    config.data = data = ConfigDict()
    data.name = "market1501"  # a data set, or several to train on at once, as "market1501,cuhk01"
    data.root = "data"  # what `mancs prepare-data --root` wrote
    data.image_size = (256, 128)  # height, width; section 4.3
    data.p = 16  # identities a batch; section 4.3
    data.k = 16  # images an identity
    # With several data sets: "sources" samples as many identities of each for every batch, to within one; "identities"
    # samples each identity as often as any other
    data.balance = "sources"
    data.testset = 0  # 1 to 20: train and score by CUHK03's classic protocol, on this one of its splits
    # Training identities of each data set that are held out, and scored at the end instead of query and gallery
    data.validation_ids = 0
    data.unused_ids = 0  # training identities that are left out (release: about 75 of 751, by mistake)

    config.augment = augment = ConfigDict()
    augment.crop_area = (0.64, 1.0)  # share of the image; section 4.3
    augment.crop_aspect = (2.0, 3.0)  # height / width; section 4.3
    augment.flip = 0.5  # probability; section 4.3
    augment.erase = 0.5  # probability; random erasing "as in [45]", Zhong et al. 2017
    augment.erase_area = (0.02, 0.4)  # share of the image; [45] (release: 0.02 to 0.2)
    augment.erase_aspect = (0.3, 1 / 0.3)  # height / width; [45]
    # "random" pixels as in [45], or "constant" 0.4914 0.4822 0.4465 after normalising (release)
    augment.erase_fill = "random"
    # Probability of colour jitter: brightness, contrast, saturation and hue change by up to so much (as torchvision's
    # ColorJitter, in this order). The paper has none; values of fast-reid (He et al. 2020)
    augment.jitter = 0.0
    augment.jitter_brightness = 0.15
    augment.jitter_contrast = 0.15
    augment.jitter_saturation = 0.1
    augment.jitter_hue = 0.1  # of a turn of the colour circle
    # Images have half their height and width in so many first epochs, which then take a quarter of the time:
    # progressive resizing, Howard 2018 (fast.ai's DAWNBench entry), Tan and Le 2021, section 4. 0: off
    augment.half_size_epochs = 0.0

    config.model = model = ConfigDict()
    model.arch = "resnet50"  # section 4.3; resnet18, 34, 50, 101 or 152
    model.width = 64  # channels of the stem
    model.last_stride = 2  # of conv-5
    # Section 4.3; "relu", "prelu", or "prelu_shared": one for all three of the last block (release)
    model.last_activation = "prelu"
    # Stages whose blocks normalise half of their first convolution's channels per image: IBN-a, Pan et al. 2018
    model.ibn_stages = ()
    model.stem_norm = "batch"  # or "instance": the stem's channels are normalised per image (IBN-b, Pan et al. 2018)
    # Stages whose output takes channel means and deviations in part from other images: MixStyle, Zhou et al. 2021
    model.mixstyle_stages = ()
    model.mixstyle = 0.5  # probability for each image
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
    loss.num_nearest = 0  # negatives that have a rank; 0: all (release: 80)
    loss.mu_step = 0.0  # ranks an epoch; 0: N_n / t0 (release: 3)
    loss.density_floor = 0.0  # (release: 3e-5)
    loss.positives = "all"  # K-1 an anchor, section 3.3; "later": only those after the anchor (release)
    # With several data sets: negatives come from the whole "batch", or from the anchor's own "source" only
    loss.negatives = "batch"
    loss.gamma = 2.0  # equation 8; 0 is cross-entropy
    # Equation 7 prints "sigmoid". As printed, it ignores the other classes: making every logit large minimises it.
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
    config.keep_checkpoints = 2  # the latest ones; the best on the validation identities is kept beside them
    config.eval_every = 0.0  # epochs between scores on what `choose_on` names; 0: at the end only
    # Epochs after which training ends if no later network was better on the held-out identities; the pretrained network
    # is the first candidate. 0: off
    config.early_stopping = 0.0
    # The network in best/ is the best on the "validation" identities, if some are held out; or on the "test" set
    # (release), whose scores are then no result: every file of such a run says so.
    config.choose_on = "validation"
    config.log_every = 1  # steps between rows of metrics.jsonl
    config.eval_batch = 128  # images a forward pass
    config.eval_baselines = False  # at the end, score an untrained network and a colour histogram as well
    return config
