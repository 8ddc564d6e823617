"""ResNet in PyTorch with torchvision's parameter names: the independent reference for the tests of the JAX network."""

import numpy as np
import torch
from torch import nn

# Blocks in each stage, and whether they are bottlenecks.
ARCHITECTURES = {
    "resnet10": ((1, 1, 1, 1), False),
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
    "resnet152": ((3, 8, 36, 3), True),
}


class Residual(nn.Module):
    """Basic (3x3, 3x3) or bottleneck (1x1, 3x3 with the stride, 1x1) block.

    `activation`: "relu"; "prelu", after the addition only; "prelu_shared", the same PReLU at every activation. The
    PReLU is named `relu`, as the module of torchvision that it replaces.
    """

    def __init__(self, channels_in: int, width: int, bottleneck: bool, stride: int, activation: str):
        super().__init__()
        channels_out = 4 * width if bottleneck else width
        # (channels, kernel size, stride) of each convolution
        plan = [(width, 1, 1), (width, 3, stride), (channels_out, 1, 1)]
        if not bottleneck:
            plan = [(width, 3, stride), (channels_out, 3, 1)]
        self.depth = len(plan)
        fan_in = channels_in
        for i, (channels, size, step) in enumerate(plan, start=1):
            conv = nn.Conv2d(fan_in, channels, size, stride=step, padding=size // 2, bias=False)
            self.add_module(f"conv{i}", conv)
            self.add_module(f"bn{i}", nn.BatchNorm2d(channels))
            fan_in = channels
        if stride > 1 or channels_in != channels_out:
            conv = nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(channels_out))
        else:
            self.downsample = nn.Identity()
        if activation != "relu":
            self.relu = nn.PReLU()
        self.activation = activation

    def forward(self, x):
        inner = self.relu if self.activation == "prelu_shared" else torch.relu
        outer = torch.relu if self.activation == "relu" else self.relu
        y = x
        for i in range(1, self.depth + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            if i < self.depth:
                y = inner(y)
        return outer(y + self.downsample(x))


class TorchResNet(nn.Module):
    """[B,3,H,W] -> list of the four stages' outputs, [B,C,H',W'] each; a classifier `fc` is kept but not applied."""

    def __init__(self, stage_sizes, bottleneck, width=64, last_stride=2, last_activation="relu", num_classes=0):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels = width
        for stage, size in enumerate(stage_sizes):
            blocks = []
            for i in range(size):
                stride = 2 if i == 0 and stage > 0 else 1
                if i == 0 and stage == 3:
                    stride = last_stride
                activation = last_activation if stage == 3 and i == size - 1 else "relu"
                blocks.append(Residual(channels, width << stage, bottleneck, stride, activation))
                channels = (width << stage) * (4 if bottleneck else 1)
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        if num_classes:
            self.fc = nn.Linear(channels, num_classes)

    def forward(self, x):
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        stages = []
        for stage in range(4):
            x = getattr(self, f"layer{stage + 1}")(x)
            stages.append(x)
        return stages


def create(arch: str, **options) -> TorchResNet:
    """The reference of one of the architectures."""
    return TorchResNet(*ARCHITECTURES[arch], **options)


def randomize(model: nn.Module, seed: int) -> nn.Module:
    """Draws every parameter and every running statistic: nothing is left at a value that would hide a mistake."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                fan_in = np.prod(module.weight.shape[1:])
                module.weight.copy_(torch.from_numpy(rng.normal(0, fan_in**-0.5, module.weight.shape)))
            elif isinstance(module, nn.BatchNorm2d):
                for tensor, low, high in (
                    (module.weight, 0.5, 1.5),
                    (module.bias, -0.5, 0.5),
                    (module.running_mean, -0.5, 0.5),
                    (module.running_var, 0.5, 2.0),
                ):
                    tensor.copy_(torch.from_numpy(rng.uniform(low, high, tensor.shape)))
                module.num_batches_tracked.fill_(int(rng.integers(1, 1000)))
            elif isinstance(module, nn.PReLU):
                module.weight.fill_(float(rng.uniform(0.1, 0.4)))
    return model


def to_flax(tensors: dict[str, torch.Tensor]) -> tuple[dict, dict]:
    """Trees (params, batch_stats) in the JAX network's layout of `{torchvision name: tensor}` (values or gradients)."""
    params, batch_stats = {}, {}
    for name, tensor in tensors.items():
        *modules, leaf = name.split(".")
        if leaf == "num_batches_tracked" or modules[0] == "fc":
            continue
        array = tensor.detach().numpy()
        if modules[0].startswith("layer"):
            modules[:2] = [f"{modules[0]}_{modules[1]}"]
        if modules[-2:-1] == ["downsample"]:
            modules[-2:] = ["downsample_conv" if modules[-1] == "0" else "downsample_bn"]
        if modules[-1] == "relu":
            modules[-1] = "prelu"
        tree = batch_stats if leaf.startswith("running_") else params
        for module in modules:
            tree = tree.setdefault(module, {})
        if array.ndim == 4:
            tree["kernel"] = array.transpose(2, 3, 1, 0)
        elif modules[-1] == "prelu":
            tree["slope"] = array.reshape(())
        else:
            tree[{"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}[leaf]] = array
    return params, batch_stats


def nhwc(tensor: torch.Tensor) -> np.ndarray:
    """[B,C,H,W] -> [B,H,W,C]."""
    return tensor.detach().numpy().transpose(0, 2, 3, 1)


def save_safetensors(tensors, path):
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
