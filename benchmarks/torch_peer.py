"""The peer in PyTorch: network, losses, triplets and optimizer of the authors' release, vectorised; one call a step."""

import math
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from ml_collections import ConfigDict
from torch.utils.flop_counter import FlopCounterMode

# The network and its losses are those of the tests, which hold outputs, losses and gradients equal to ours
# (tests/test_authors.py): what is timed on both sides is the same.
sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
import torch_mancs  # noqa: E402
import torch_resnet  # noqa: E402

Step = Callable[..., torch.Tensor]
MIN_SIGMA = 0.01


def device() -> str:
    """Where the peer runs: on the GPU, if PyTorch has one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def create_network(config: ConfigDict, num_classes: int) -> torch_mancs.TorchMancs:
    """The network of an `authors` configuration, channels-last, on `device`."""
    depth, model = torch_resnet.ARCHITECTURES[config.model.arch], config.model
    network = torch_mancs.TorchMancs(*depth, num_classes, model.width, model.cls_dim, model.dropout)
    return network.to(device(), memory_format=torch.channels_last)


def create_step(
    config: ConfigDict, num_classes: int, *, network: torch_mancs.TorchMancs | None = None, compiled: bool = False
) -> Step:
    """One update, as ours: Adam with coupled weight decay, the heads' learning rate a multiple of the backbone's.

    The learning rate stays what it is before any decay. With `config.dtype` "bfloat16" the network runs under
    autocast, heads included, which ours keeps in float32; TF32 is allowed on a GPU, as in JAX.

    Args:
      config: `authors`, or `authors,small`.
      num_classes: of the classifiers.
      network: of `create_network`; None makes one.
      compiled: whether the network goes through `torch.compile`.

    Returns:
      A function of (images float32 [B,3,H,W] channels-last, labels int64 [B], K side by side; epoch, 0 by default)
      that gives the loss.
    """
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    network = (network or create_network(config, num_classes)).train()
    heads = [parameter for name, parameter in network.named_parameters() if not name.startswith("base.")]
    rate = config.optim.learning_rate
    groups = [
        {"params": network.base.parameters()},
        {"params": heads, "lr": rate * config.optim.head_multiplier},
    ]
    optimizer = torch.optim.Adam(groups, rate, weight_decay=config.optim.weight_decay, fused=True)
    anchor, positive = later_pairs(config.data.p, config.data.k)
    run = torch.compile(network) if compiled else network

    def step(images: torch.Tensor, labels: torch.Tensor, epoch: int = 0) -> torch.Tensor:
        with torch.autocast(device(), torch.bfloat16, enabled=config.dtype == "bfloat16"):
            outputs = run(images)
        outputs = [output.float() for output in outputs]
        negative = drawn_negatives(outputs[0], labels, anchor, epoch, config)
        triplets = torch.stack([anchor, positive, negative], dim=1)
        loss = torch_mancs.losses(outputs, labels, triplets, config.loss.margin, config.loss.gamma)[-1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def later_pairs(p: int, k: int) -> torch.Tensor:
    """Each image with each of its identity that comes after it: int64 [2, P*K*(K-1)/2], anchors and positives."""
    first, second = torch.triu_indices(k, k, offset=1)
    start = k * torch.arange(p)[:, None]
    return torch.stack([(start + first).ravel(), (start + second).ravel()]).to(device())


@torch.no_grad()
def drawn_negatives(
    f_rank: torch.Tensor, labels: torch.Tensor, anchor: torch.Tensor, epoch: int, config: ConfigDict
) -> torch.Tensor:
    """A negative for each anchor by the curriculum, all at once: int64 [T]."""
    loss, num_negatives = config.loss, (config.data.p - 1) * config.data.k
    num_ranks = min(loss.num_nearest or num_negatives, num_negatives)
    distances = torch.cdist(f_rank, f_rank).masked_fill_(labels[:, None] == labels, math.inf)
    nearest = distances.topk(num_ranks, largest=False).indices
    mean = max(num_ranks - (loss.mu_step or num_ranks / loss.t0) * epoch, 0.0)
    deviation = max(loss.a * loss.b ** max((epoch - loss.t0) / (loss.t1 - loss.t0), 0.0), MIN_SIGMA)
    rank = torch.arange(num_ranks, device=f_rank.device)
    density = torch.exp(-0.5 * ((rank - mean) / deviation) ** 2) / (deviation * math.sqrt(2 * math.pi))
    drawn = torch.multinomial(density.clamp(min=loss.density_floor), len(anchor), replacement=True)
    return nearest[anchor, drawn]


def embedding(network: torch_mancs.TorchMancs, images: torch.Tensor) -> torch.Tensor:
    """`f_rank` [B, D] alone, without the heads that only training needs."""
    base = network.base
    x = base.maxpool(torch.relu(base.bn1(base.conv1(images))))
    for attention, stage in ((network.att1, base.layer1), (network.att2, base.layer2), (network.att3, base.layer3)):
        x = stage(x)
        x = x + attention(x) * x
    return base.layer4(x).mean((2, 3))


def as_input(image: torch.Tensor) -> torch.Tensor:
    """Images [B,H,W,3] -> float32 [B,3,H,W], channels-last, on `device`."""
    return image.permute(0, 3, 1, 2).to(device(), torch.float32, memory_format=torch.channels_last)


def normalized(image: torch.Tensor) -> torch.Tensor:
    """uint8 [B,H,W,3] -> `as_input` of the pixels with ImageNet's mean 0 and deviation 1."""
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return as_input((image / 255 - mean) / deviation)


def flops_of_step(config: ConfigDict, num_classes: int) -> int:
    """Floating-point operations of one training step: convolutions and matrix products, forward and backward.

    Counted on a network without storage, so that nothing is computed.
    """
    with torch.device("meta"):
        depth, model = torch_resnet.ARCHITECTURES[config.model.arch], config.model
        network = torch_mancs.TorchMancs(*depth, num_classes, model.width, model.cls_dim, model.dropout)
        images = torch.zeros(config.data.p * config.data.k, 3, *config.data.image_size)
        with FlopCounterMode(display=False) as counter:
            sum(output.sum() for output in network(images)).backward()
    return counter.get_total_flops()
