"""The network and the losses of the authors' release in PyTorch: the independent reference for the `authors` recipe.

Written from what the release does, for today's PyTorch. Tensors have the release's names; those that it never uses are
there too. Widths follow from the backbone, so that a small one can stand for ResNet-50.
"""

import torch
import torch_resnet
from torch import nn
from torch.nn import functional


class Attention(nn.Module):
    """[B,C,H,W] -> a mask of the same shape."""

    def __init__(self, channels: int, squeeze: int = 16):
        super().__init__()
        excite = nn.Conv2d(squeeze, channels, 1)
        self.conv = nn.Sequential(nn.Conv2d(channels, squeeze, 1), nn.PReLU(), excite, nn.Sigmoid())

    def forward(self, x):
        return self.conv(x)


class TorchMancs(nn.Module):
    """[B,3,H,W] -> (f_rank [B,D], cls_logits [B,C], att_logits [B,C])."""

    def __init__(self, stage_sizes, bottleneck, num_classes, width=64, cls_dim=2048, dropout=0.1):
        super().__init__()
        self.base = torch_resnet.TorchResNet(
            stage_sizes, bottleneck, width, last_activation="prelu_shared", num_classes=1000
        )
        widths = [(width << stage) * (4 if bottleneck else 1) for stage in range(4)]
        for number, channels in enumerate(widths[:3], start=1):
            self.add_module(f"att{number}", Attention(channels))
        self.feat = nn.Linear(widths[3], cls_dim, bias=False)
        self.feat_bn = nn.BatchNorm1d(cls_dim)
        self.prelu = nn.PReLU()
        self.drop = nn.Dropout(dropout)
        self.classifier_x2 = nn.Linear(cls_dim, num_classes)
        attended = sum(widths[:3])
        self.embed_x3 = nn.Linear(attended, attended, bias=False)
        self.bn_x3 = nn.BatchNorm1d(attended)
        self.prelu_x3 = nn.PReLU()
        self.classifier_x3 = nn.Linear(attended, num_classes)

    def forward(self, x):
        base = self.base
        x = base.maxpool(torch.relu(base.bn1(base.conv1(x))))
        attended = []
        for attention, stage in ((self.att1, base.layer1), (self.att2, base.layer2), (self.att3, base.layer3)):
            x = stage(x)
            mask = attention(x)
            x = x + mask * x
            attended.append((mask * x).mean((2, 3)))
        f_rank = base.layer4(x).mean((2, 3))
        f_cls = self.drop(self.prelu(self.feat_bn(self.feat(f_rank))))
        f_att = self.drop(self.prelu(self.bn_x3(self.embed_x3(torch.cat(attended, 1)))))
        return f_rank, self.classifier_x2(f_cls), self.classifier_x3(f_att)


def losses(outputs, labels, triplets, margin=0.5, gamma=2.0):
    """(triplet, focal, cross-entropy, their sum with weights 1, 1 and 0.2).

    Args:
      outputs: of `TorchMancs`.
      labels: int64 [B].
      triplets: int64 [T,3], rows of anchor, positive and negative.
    """
    f_rank, cls_logits, att_logits = outputs
    anchor, positive, negative = (f_rank[rows] for rows in triplets.T)
    gap = torch.linalg.vector_norm(anchor - positive, dim=1) - torch.linalg.vector_norm(anchor - negative, dim=1)
    triplet = torch.relu(margin + gap).mean()
    log_p = -functional.cross_entropy(cls_logits, labels, reduction="none")
    focal = -((1 - log_p.detach().exp()) ** gamma * log_p).mean()
    attention = functional.cross_entropy(att_logits, labels)
    return triplet, focal, attention, triplet + focal + 0.2 * attention


def randomize(model: TorchMancs, seed: int) -> TorchMancs:
    """As `torch_resnet.randomize`, and the dense layers and biases too."""
    torch_resnet.randomize(model, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.weight.normal_(0, module.in_features**-0.5, generator=generator)
            if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
                module.bias.uniform_(-0.5, 0.5, generator=generator)
    return model
