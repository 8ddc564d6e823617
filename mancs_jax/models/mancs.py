"""Mancs: a ResNet with three attention blocks and three tasks (paper section 3.1, figure 1)."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float, Float32, Key
from ml_collections import ConfigDict

from mancs_jax.config.names import BASIC_BLOCK, STAGE_SIZES
from mancs_jax.kernels.conv_norm import BatchNorm, ConvNorm, Sync
from mancs_jax.models.fab import FullyAttentionalBlock, torch_uniform
from mancs_jax.models.mixstyle import mix_style
from mancs_jax.models.resnet import STAGES, PReLU, ResNet


class Outputs(NamedTuple):
    """All outputs of the training network for B images; only `f_rank` is used for retrieval (paper section 3.7)."""

    f_rank: Float32[jax.Array, "B rank_dim"]
    f_cls: Float32[jax.Array, "B cls_dim"]
    cls_logits: Float32[jax.Array, "B C"]
    f_att: Float32[jax.Array, "B att_dim"] | None  # None without FABs, and so is the next
    att_logits: Float32[jax.Array, "B C"] | None
    masks: dict[int, jax.Array]  # stage -> [B, H', W', C'], the attention mask of its FAB
    maps: dict[int, jax.Array]  # stage -> [B, H', W', C'], the output of the stage and its FAB


class Mancs(nn.Module):
    """The training network.

    Attributes: the `model` fields of `mancs_jax/config/defaults.py`, with their sources. BatchNorm shares statistics
    over the devices of the pmap axis `devices_axis`, in `devices_groups` groups of consecutive devices (0: none), and
    has them for each of `groups` groups of a device's images. `dtype` is that of backbone and attention.
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
    def __call__(self, x: Float[Any, "B H W 3"], train: bool, keys: Key[jax.Array, " B"] | None = None) -> Outputs:
        """Runs all branches.

        Args:
          x: normalised pixels.
          train: whether BatchNorm uses the batch's statistics (unless frozen), and MixStyle and dropout are on.
          keys: one per example, needed when training with dropout or MixStyle.
        """
        use_batch_statistics = train and not self.batch_norm_frozen
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
        fab = partial(FullyAttentionalBlock, self.fab_squeeze, self.fab_activation, self.fab_init, dtype=self.dtype)
        masks, maps = {}, {}
        x = backbone.stem(jnp.asarray(x, self.dtype), use_batch_statistics)
        for stage in STAGES:
            x = backbone.stage(stage, x, use_batch_statistics)
            if train and stage in self.mixstyle_stages:
                x = mix_style(x, fold_in_each(keys, stage), self.mixstyle, self.mixstyle_alpha, self.devices_axis)
            if stage in self.fab_stages:
                x, masks[stage] = fab(name=f"fab{stage}")(x)
            maps[stage] = x
        # From here on float32, whatever `dtype`: distances are small differences between embeddings.
        pooled = spatial_mean(x)

        head_normal = nn.initializers.normal(self.head_init)
        f_rank = pooled
        if self.rank_head == "fc":
            f_rank = nn.Dense(self.rank_dim, kernel_init=head_normal, name="rank_fc")(pooled)

        batch_norm = partial(BatchNorm, not use_batch_statistics, sync, self.groups)
        has_prelu = "bn_prelu" in (self.cls_head, self.att_head)
        activate: Any = PReLU(name="head_prelu") if has_prelu else None  # one for both heads
        dropout_rate = self.dropout if train else 0.0

        f_cls = nn.Dense(self.cls_dim, use_bias=self.cls_head == "fc", kernel_init=head_normal, name="cls_fc")(pooled)
        if self.cls_head == "bn_prelu":
            f_cls = drop(activate(batch_norm(name="cls_bn")(f_cls)), dropout_rate, keys, branch=0)
        classifier = partial(nn.Dense, self.num_classes)
        cls_logits = classifier(kernel_init=head_normal, name="cls_classifier")(f_cls)

        f_att = att_logits = None
        if masks:
            to_pool = masks if self.attention_pool == "mask" else {stage: masks[stage] * maps[stage] for stage in masks}
            f_att = jnp.concatenate([spatial_mean(to_pool[stage]) for stage in sorted(to_pool)], axis=-1)
            if self.att_head == "bn_prelu":
                att_fc = nn.Dense(f_att.shape[-1], use_bias=False, kernel_init=torch_uniform, name="att_fc")
                f_att = drop(activate(batch_norm(name="att_bn")(att_fc(f_att))), dropout_rate, keys, branch=1)
            att_logits = classifier(kernel_init=torch_uniform, name="att_classifier")(f_att)
        return Outputs(f_rank, f_cls, cls_logits, f_att, att_logits, masks, maps)


def create_model(config: ConfigDict, num_classes: int, devices_axis: str | None = None, num_devices: int = 1) -> Mancs:
    """Makes the network of `config.model`; training has `num_devices` along the pmap axis `devices_axis`."""
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
    """Splits `config.batch_norm_groups` into groups of devices (0: none) and groups in each micro-batch of a device."""
    num_parts = num_devices * accumulate
    if groups > 1 and groups % num_parts == 0:
        return 0, groups // num_parts
    return groups, 1


def init_variables(config: ConfigDict, num_classes: int) -> dict[str, Any]:
    """Initialises {"params", "batch_stats"} from `config.seed`, without pretrained weights."""
    return _init(create_model(config, num_classes), tuple(config.data.image_size), jax.random.key(config.seed))


# Not inside `init_variables`, so that a second network of the same architecture is not traced again.
@partial(jax.jit, static_argnums=(0, 1))
def _init(model, image_size, key):
    return model.init(key, jnp.zeros((1, *image_size, 3), jnp.float32), train=False)


def spatial_mean(x: Float[jax.Array, "B H W C"]) -> Float32[jax.Array, "B C"]:
    """Averages over all positions."""
    return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)


def fold_in_each(keys: Key[jax.Array, " B"] | None, use: int) -> Key[jax.Array, " B"]:
    """Derives a key per example for one use: 0 and 1 for dropout (`branch`), the stage (2 to 5) for MixStyle."""
    return jax.vmap(lambda key: jax.random.fold_in(key, use))(keys)


def drop(
    x: Float[jax.Array, "B D"], rate: float, keys: Key[jax.Array, " B"] | None, branch: int
) -> Float[jax.Array, "B D"]:
    """Applies dropout with a key per example, so that the result does not depend on how a batch is split."""
    if rate == 0.0:
        return x
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(fold_in_each(keys, branch))
    return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)
