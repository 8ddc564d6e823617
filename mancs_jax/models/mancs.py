"""Mancs: a ResNet with three attention blocks and three tasks (paper section 3.1, figure 1)."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from mancs_jax.config.names import BASIC_BLOCK, STAGE_SIZES
from mancs_jax.kernels.conv_norm import BatchNorm, ConvNorm, Sync
from mancs_jax.models.fab import FullyAttentionalBlock, torch_uniform
from mancs_jax.models.mixstyle import mix_style
from mancs_jax.models.resnet import STAGES, PReLU, ResNet


class Outputs(NamedTuple):
    """All that the training network gives for B images; `f_rank` alone is the embedding (paper section 3.7)."""

    f_rank: jax.Array  # float32 [B, rank_dim]
    f_cls: jax.Array  # float32 [B, cls_dim]
    cls_logits: jax.Array  # float32 [B, C]
    f_att: jax.Array | None  # float32 [B, sum of the attended widths]; None without FABs
    att_logits: jax.Array | None  # float32 [B, C]; None without FABs
    masks: dict[int, jax.Array]  # stage -> [B, H', W', C'], the attention mask of its FAB
    maps: dict[int, jax.Array]  # stage -> [B, H', W', C'], the map that leaves the stage, after its FAB


class Mancs(nn.Module):
    """The training network; `f_rank` alone is the embedding used for retrieval (paper section 3.7).

    Attributes: the `model` fields of `mancs_jax/config/defaults.py`, which explains each with its source.
    BatchNorm shares statistics over the devices of the pmap axis `devices_axis`, in `devices_groups` groups of
    neighbours (0: each device has its own), or has them for each of `groups` groups of a device's images. `remat` is as
    in `ResNet`, and `dtype` is that of backbone and attention.
    """

    num_classes: int
    arch: str = "resnet50"
    width: int = 64
    last_stride: int = 2
    last_activation: str = "prelu"
    ibn_stages: tuple[int, ...] = ()
    stem_norm: str = "batch"
    mixstyle_stages: tuple[int, ...] = ()
    mixstyle: float = 0.5
    mixstyle_alpha: float = 0.1
    fab_stages: tuple[int, ...] = (2, 3, 4)
    fab_squeeze: int = 0
    fab_activation: str = "relu"
    fab_init: float = 0.0
    attention_pool: str = "mask"
    rank_head: str = "fc"
    rank_dim: int = 2048
    cls_head: str = "fc"
    cls_dim: int = 2048
    att_head: str = "linear"
    head_init: float = 0.001
    dropout: float = 0.0
    batch_norm_frozen: bool = False
    devices_axis: str | None = None
    devices_groups: int = 1
    groups: int = 1
    remat: tuple[int, ...] = ()
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, keys: jax.Array | None = None) -> Outputs:
        """Runs all branches.

        Args:
          x: [B, H, W, 3] float, normalised pixels.
          train: whether BatchNorm takes the batch's statistics (unless frozen), and MixStyle and dropout are on.
          keys: [B] one key an example, for dropout and MixStyle; needed when training with one of them.

        Returns:
          See `Outputs`.
        """
        by_batch = train and not self.batch_norm_frozen  # whether BatchNorm takes the batch's statistics
        sync = Sync(self.devices_axis, self.devices_groups) if self.devices_axis and self.devices_groups else None
        backbone = ResNet(
            stage_sizes=STAGE_SIZES[self.arch],
            bottleneck=self.arch not in BASIC_BLOCK,
            conv_norm=partial(ConvNorm, sync=sync, groups=self.groups, dtype=self.dtype),
            width=self.width,
            last_stride=self.last_stride,
            last_activation=self.last_activation,
            ibn_stages=self.ibn_stages,
            stem_norm=self.stem_norm,
            remat=self.remat,
            name="backbone",
        )
        attend = partial(FullyAttentionalBlock, self.fab_squeeze, self.fab_activation, self.fab_init, dtype=self.dtype)
        masks, maps = {}, {}
        x = backbone.stem(x.astype(self.dtype), by_batch)
        for stage in STAGES:
            x = backbone.stage(stage, x, by_batch)
            if train and stage in self.mixstyle_stages:
                x = mix_style(x, fold_in(keys, stage), self.mixstyle, self.mixstyle_alpha, self.devices_axis)
            if stage in self.fab_stages:
                x, masks[stage] = attend(name=f"fab{stage}")(x)
            maps[stage] = x
        # All that follows is float32, whatever `dtype`: distances are small differences between embeddings.
        pooled = spatial_mean(x)

        head_normal = nn.initializers.normal(self.head_init)
        f_rank = pooled
        if self.rank_head == "fc":
            f_rank = nn.Dense(self.rank_dim, kernel_init=head_normal, name="rank_fc")(pooled)

        bn = partial(BatchNorm, not by_batch, sync, self.groups)
        has_prelu = "bn_prelu" in (self.cls_head, self.att_head)
        activate: Any = PReLU(name="head_prelu") if has_prelu else None  # one for both heads
        rate = self.dropout if train else 0.0

        f_cls = nn.Dense(self.cls_dim, use_bias=self.cls_head == "fc", kernel_init=head_normal, name="cls_fc")(pooled)
        if self.cls_head == "bn_prelu":
            f_cls = drop(activate(bn(name="cls_bn")(f_cls)), rate, keys, branch=0)
        classifier = partial(nn.Dense, self.num_classes)
        cls_logits = classifier(kernel_init=head_normal, name="cls_classifier")(f_cls)

        f_att = att_logits = None
        if masks:
            attended = masks if self.attention_pool == "mask" else {s: masks[s] * maps[s] for s in masks}
            f_att = jnp.concatenate([spatial_mean(attended[stage]) for stage in sorted(attended)], axis=-1)
            if self.att_head == "bn_prelu":
                embed = nn.Dense(f_att.shape[-1], use_bias=False, kernel_init=torch_uniform, name="att_fc")
                f_att = drop(activate(bn(name="att_bn")(embed(f_att))), rate, keys, branch=1)
            att_logits = classifier(kernel_init=torch_uniform, name="att_classifier")(f_att)
        return Outputs(f_rank, f_cls, cls_logits, f_att, att_logits, masks, maps)


def create_model(config: ConfigDict, num_classes: int, devices_axis: str | None = None, num_devices: int = 1) -> Mancs:
    """Makes the network of `config.model`.

    Args:
      config: of the run.
      num_classes: identities.
      devices_axis: the pmap axis of training; None outside of training.
      num_devices: along that axis.
    """
    devices_groups, groups = batch_norm_groups(config.batch_norm_groups, num_devices, config.accumulate)
    return Mancs(
        num_classes=num_classes,
        **config.model,
        batch_norm_frozen=config.batch_norm_frozen,
        devices_axis=devices_axis if config.batch_norm_groups else None,
        devices_groups=devices_groups,
        groups=groups,
        remat=config.remat,
        dtype=jnp.dtype(config.dtype),
    )


def batch_norm_groups(groups: int, num_devices: int, accumulate: int) -> tuple[int, int]:
    """Spreads the groups of `config.batch_norm_groups` over devices and their micro-batches.

    Returns:
      (groups of devices that share statistics, 0 for none; groups in each micro-batch of a device).
    """
    parts = num_devices * accumulate
    if groups > 1 and groups % parts == 0:
        return 0, groups // parts
    return groups, 1


def init_variables(config: ConfigDict, num_classes: int) -> dict[str, Any]:
    """Draws {"params", "batch_stats"} from `config.seed`; without pretrained weights."""
    return _draw(create_model(config, num_classes), tuple(config.data.image_size), jax.random.key(config.seed))


@partial(jax.jit, static_argnums=(0, 1))  # here, so that a second network of the same form is not traced again
def _draw(model, image_size, key):
    return model.init(key, jnp.zeros((1, *image_size, 3), jnp.float32), train=False)


def spatial_mean(x: jax.Array) -> jax.Array:
    """Average pooling over all positions: [B, H, W, C] -> [B, C], float32."""
    return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)


def fold_in(keys: jax.Array | None, use: int) -> jax.Array:
    """Keys [B] for one use of those of the examples; uses are 0 and 1 for dropout, and the stages for MixStyle."""
    return jax.vmap(lambda key: jax.random.fold_in(key, use))(keys)


def drop(x: jax.Array, rate: float, keys: jax.Array | None, branch: int) -> jax.Array:
    """Dropout of `x` [B, D] with a key an example, so that the result does not depend on how a batch is split."""
    if rate == 0.0:
        return x
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(fold_in(keys, branch))
    return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)
