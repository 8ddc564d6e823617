"""The Mancs network and its attention block: sizes of both recipes, every branch against NumPy, dropout, BatchNorm."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mancs_jax.models.fab import FullyAttentionalBlock
from mancs_jax.models.mancs import Mancs, drop

PAPER = {}  # the defaults
AUTHORS = {
    "last_activation": "prelu_shared",
    "fab_squeeze": 16,
    "fab_activation": "prelu",
    "attention_pool": "mask_times_map",
    "rank_head": "pool",
    "cls_head": "bn_prelu",
    "att_head": "bn_prelu",
    "dropout": 0.1,
}
SMALL = {"arch": "resnet10", "width": 8, "rank_dim": 12, "cls_dim": 20}
CLASSES = 5


def shapes_of(model, size=(64, 32)):
    """Shapes of the variables and of the outputs, without computing anything."""

    def init_and_apply(key, x):
        variables = model.init(key, x, train=False)
        return variables, model.apply(variables, x, train=False)

    return jax.eval_shape(init_and_apply, jax.random.key(0), jnp.zeros((2, *size, 3)))


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def dense(n_in, n_out, bias=True):
    return n_in * n_out + bias * n_out


BACKBONE = 25_557_032 - dense(2048, 1000)  # torchvision's ResNet-50 less its classifier


def test_parameter_count_of_the_paper():
    variables, _ = shapes_of(Mancs(num_classes=751, **PAPER))
    parts = {name: count(tree) for name, tree in variables["params"].items()}
    assert parts == {
        "backbone": BACKBONE + 1,  # the slope of the last PReLU
        "fab2": dense(256, 16) + dense(16, 256),
        "fab3": dense(512, 32) + dense(32, 512),
        "fab4": dense(1024, 64) + dense(64, 1024),
        "rank_fc": dense(2048, 2048),
        "cls_fc": dense(2048, 2048),
        "cls_classifier": dense(2048, 751),
        "att_classifier": dense(1792, 751),
    }
    assert sum(parts.values()) == 34_960_015


def test_parameter_count_of_the_release():
    variables, _ = shapes_of(Mancs(num_classes=676, **AUTHORS))
    parts = {name: count(tree) for name, tree in variables["params"].items()}
    assert parts == {
        "backbone": BACKBONE + 1,
        **{f"fab{stage}": dense(c, 16) + dense(16, c) + 1 for stage, c in ((2, 256), (3, 512), (4, 1024))},
        "cls_fc": dense(2048, 2048, bias=False),
        "cls_bn": 2 * 2048,
        "head_prelu": 1,  # of both heads
        "cls_classifier": dense(2048, 676),
        "att_fc": dense(1792, 1792, bias=False),
        "att_bn": 2 * 1792,
        "att_classifier": dense(1792, 676),
    }
    assert sum(parts.values()) == 33_577_661


def test_embeddings_of_a_bfloat16_network_are_not_rounded_to_it():
    network = Mancs(num_classes=3, arch="resnet10", width=8, rank_head="pool", dtype=jnp.bfloat16)
    x = jax.random.normal(jax.random.key(0), (2, 128, 64, 3))
    variables = random_like(shapes_of(network)[0])
    f_rank = network.apply(variables, x, train=False).f_rank  # op by op: a compiled program may leave roundings out
    assert np.isfinite(f_rank).all() and np.any(f_rank != f_rank.astype(jnp.bfloat16).astype(jnp.float32))


@pytest.mark.parametrize("recipe", [PAPER, AUTHORS], ids=["paper", "authors"])
def test_outputs_of_both_recipes(recipe):
    _, out = shapes_of(Mancs(num_classes=751, dtype=jnp.bfloat16, **recipe), size=(256, 128))
    masks, maps = out.masks, out.maps
    vectors = {name: value for name, value in out._asdict().items() if name not in ("masks", "maps")}
    assert {name: (value.shape, value.dtype) for name, value in vectors.items()} == {
        "f_rank": ((2, 2048), jnp.float32),
        "f_cls": ((2, 2048), jnp.float32),
        "f_att": ((2, 1792), jnp.float32),
        "cls_logits": ((2, 751), jnp.float32),
        "att_logits": ((2, 751), jnp.float32),
    }
    shapes = {2: (2, 64, 32, 256), 3: (2, 32, 16, 512), 4: (2, 16, 8, 1024), 5: (2, 8, 4, 2048)}
    assert {stage: value.shape for stage, value in maps.items()} == shapes
    assert {stage: value.shape for stage, value in masks.items()} == {s: shapes[s] for s in (2, 3, 4)}
    assert all(value.dtype == jnp.bfloat16 for value in (*masks.values(), *maps.values()))


def test_options_that_leave_branches_out():
    _, out = shapes_of(Mancs(num_classes=CLASSES, fab_stages=(), rank_head="pool", **SMALL))
    assert out.f_att is None and out.att_logits is None and out.masks == {}
    assert out.f_rank.shape == (2, 64)
    _, out = shapes_of(Mancs(num_classes=CLASSES, fab_stages=(3,), last_stride=1, **SMALL))
    assert out.f_att.shape == (2, 16) and out.maps[5].shape == (2, 4, 2, 64)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def random_like(tree, seed=0):
    """A tree of the same shapes with every number drawn, variances and scales positive."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        if path[-1].key in ("var", "scale"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        if path[-1].key == "slope":
            return np.float32(rng.uniform(0.1, 0.6))
        return rng.normal(0, 0.1 if path[-1].key == "kernel" else 0.5, leaf.shape).astype(np.float32)

    return jax.tree.map_with_path(draw, tree)


@pytest.mark.parametrize("channels, squeeze, width", [(32, 0, 2), (8, 0, 1), (32, 16, 16)])
@pytest.mark.parametrize("activation", ["relu", "prelu"])
@pytest.mark.parametrize("grid", [(3, 5), (1, 1)])
def test_fab_is_equations_1_and_2(channels, squeeze, width, activation, grid):
    fab = FullyAttentionalBlock(squeeze, activation)
    x = np.random.default_rng(1).normal(size=(2, *grid, channels)).astype(np.float32)
    params = random_like(jax.eval_shape(fab.init, jax.random.key(0), x))["params"]
    assert params["squeeze"]["kernel"].shape == (channels, width)
    assert ("prelu" in params) == (activation == "prelu")
    out, mask = fab.apply({"params": params}, x)

    slope = params["prelu"]["slope"] if activation == "prelu" else 0
    y = x.astype(np.float64) @ params["squeeze"]["kernel"] + params["squeeze"]["bias"]
    y = np.where(y > 0, y, slope * y) @ params["excite"]["kernel"] + params["excite"]["bias"]
    assert out.shape == mask.shape == x.shape
    np.testing.assert_allclose(mask, sigmoid(y), rtol=1e-5)
    np.testing.assert_allclose(out, x * sigmoid(y) + x, rtol=1e-5, atol=1e-6)


def test_fab_fits_any_cnn():
    class PlainNet(nn.Module):
        with_fab: bool

        @nn.compact
        def __call__(self, x):
            for features in (6, 10):
                x = nn.relu(nn.Conv(features, (3, 3), strides=2)(x))
                if self.with_fab:
                    x, _ = FullyAttentionalBlock(name=f"fab{features}")(x)
            return nn.Dense(3)(x.mean((1, 2)))

    x = jax.random.normal(jax.random.key(0), (2, 9, 7, 3))
    net = PlainNet(with_fab=True)
    apply = jax.jit(net.apply)
    params = jax.jit(net.init)(jax.random.key(1), x)["params"]
    plain = {name: tree for name, tree in params.items() if not name.startswith("fab")}
    closed = jax.tree.map_with_path(
        lambda path, leaf: leaf - 100 if path[0].key[:3] == "fab" and path[-1].key == "bias" else leaf, params
    )
    # A mask of zeros leaves every map as it is; another mask changes the output, and all of the FAB learns.
    without = jax.jit(PlainNet(with_fab=False).apply)({"params": plain}, x)
    np.testing.assert_allclose(apply({"params": closed}, x), without, rtol=1e-6)
    assert np.abs(apply({"params": params}, x) - without).min() > 1e-4
    gradient = jax.jit(jax.grad(lambda params: apply({"params": params}, x)[0, 0]))(random_like(params))
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(gradient))


@pytest.fixture(scope="module", params=[PAPER, AUTHORS], ids=["paper", "authors"])
def small(request):
    """(recipe, random parameters, statistics, outputs in evaluation mode) of a small network."""
    model = Mancs(num_classes=CLASSES, **SMALL, **request.param)
    x = np.random.default_rng(0).normal(size=(4, 64, 32, 3)).astype(np.float32)
    variables = random_like(shapes_of(model)[0])
    out = jax.jit(partial(model.apply, train=False))(variables, x)
    params, stats = variables["params"], variables["batch_stats"]
    return request.param, params, stats, jax.tree.map(partial(np.asarray, dtype=np.float64), out)


def apply_dense(params, x):
    return x @ params["kernel"] + params.get("bias", 0)


def apply_norm_and_prelu(params, stats, slope, x):
    y = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * params["scale"] + params["bias"]
    return np.where(y > 0, y, slope * y)


def test_heads_equal_numpy(small):
    recipe, params, stats, out = small
    pooled = out.maps[5].mean((1, 2))
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    if recipe is PAPER:
        f_att = np.concatenate([out.masks[stage].mean((1, 2)) for stage in (2, 3, 4)], axis=1)
        f_rank, f_cls = apply_dense(params["rank_fc"], pooled), apply_dense(params["cls_fc"], pooled)
    else:
        attended = [(out.masks[stage] * out.maps[stage]).mean((1, 2)) for stage in (2, 3, 4)]
        f_rank, slope = pooled, params["head_prelu"]["slope"]
        f_cls = apply_dense(params["cls_fc"], pooled)
        f_cls = apply_norm_and_prelu(params["cls_bn"], stats["cls_bn"], slope, f_cls)
        f_att = apply_dense(params["att_fc"], np.concatenate(attended, axis=1))
        f_att = apply_norm_and_prelu(params["att_bn"], stats["att_bn"], slope, f_att)
    assert f_att.shape == (4, 8 + 16 + 32)
    close(out.f_rank, f_rank)
    close(out.f_cls, f_cls)
    close(out.f_att, f_att)
    close(out.cls_logits, apply_dense(params["cls_classifier"], f_cls))
    close(out.att_logits, apply_dense(params["att_classifier"], f_att))
    assert all(np.ptp(getattr(out, name)) > 0.01 for name in ("f_rank", "f_cls", "f_att", "cls_logits", "att_logits"))


def test_masks_are_the_fabs_of_what_enters_them(small):
    recipe, params, _, out = small
    for stage in (2, 3, 4):
        # F_out = F * (M + 1), so that F = F_out / (M + 1).
        entering = out.maps[stage] / (out.masks[stage] + 1)
        fab = params[f"fab{stage}"]
        slope = fab["prelu"]["slope"] if recipe is AUTHORS else 0
        y = apply_dense(fab["squeeze"], entering)
        mask = sigmoid(apply_dense(fab["excite"], np.where(y > 0, y, slope * y)))
        np.testing.assert_allclose(out.masks[stage], mask, rtol=1e-4)


def test_head_initialisation():
    model = Mancs(num_classes=64, head_init=0.02, cls_head="bn_prelu", att_head="bn_prelu", arch="resnet10", width=16)
    x = jnp.zeros((1, 32, 32, 3))
    params = jax.jit(partial(model.init, train=False))(jax.random.key(0), x)["params"]
    for name in ("rank_fc", "cls_fc", "cls_classifier"):
        np.testing.assert_allclose(np.std(params[name]["kernel"]), 0.02, rtol=0.15)
    width = 16 + 32 + 64
    for name in ("att_fc", "att_classifier"):  # PyTorch's default: uniform in +-1 / sqrt(inputs)
        kernel = np.abs(params[name]["kernel"])
        assert kernel.shape[0] == width and 0.98 < kernel.max() * np.sqrt(width) <= 1


def test_fab_initialisation():
    for init in (0.0, 0.001):
        fab = FullyAttentionalBlock(squeeze=64, kernel_sd=init)
        params = fab.init(jax.random.key(0), jnp.zeros((1, 2, 2, 256)))["params"]
        for name, inputs in (("squeeze", 256), ("excite", 64)):
            kernel = np.abs(params[name]["kernel"])
            if init:
                np.testing.assert_allclose(np.std(params[name]["kernel"]), init, rtol=0.05)
            else:  # uniform in +-1 / sqrt(inputs)
                assert 0.98 < kernel.max() * np.sqrt(inputs) <= 1


def test_drop_depends_on_the_key_of_the_example_alone():
    x = jnp.arange(1.0, 6 * 1000 + 1).reshape(6, 1000)
    keys = jax.random.split(jax.random.key(3), 6)
    dropped = np.asarray(drop(x, 0.25, keys, branch=0))
    parts = [drop(x[part], 0.25, keys[part], branch=0) for part in (slice(0, 2), slice(2, 6))]
    np.testing.assert_array_equal(np.concatenate(parts), dropped)
    order = np.array([3, 0, 5, 1, 4, 2])
    np.testing.assert_array_equal(drop(x[order], 0.25, keys[order], branch=0), dropped[order])
    kept = dropped != 0
    np.testing.assert_allclose(dropped[kept], (np.asarray(x) / 0.75)[kept], rtol=1e-6)
    assert abs(kept.mean() - 0.75) < 0.03
    assert not np.array_equal(kept[0], kept[1])
    assert not np.array_equal(kept, np.asarray(drop(x, 0.25, keys, branch=1)) != 0)
    assert drop(x, 0.0, None, branch=0) is x


def test_dropout_is_on_in_training_only():
    model = Mancs(num_classes=CLASSES, **SMALL, **AUTHORS | {"dropout": 0.5})
    x = np.random.default_rng(0).normal(size=(4, 64, 32, 3)).astype(np.float32)
    variables = random_like(shapes_of(model)[0])
    keys = jax.random.split(jax.random.key(0), 4)
    out, _ = jax.jit(partial(model.apply, train=True, mutable=["batch_stats"]))(variables, x, keys=keys)
    for branch, name in enumerate(("f_cls", "f_att")):
        ones = jnp.ones(getattr(out, name).shape)
        np.testing.assert_array_equal(getattr(out, name) != 0, drop(ones, 0.5, keys, branch) != 0)
    evaluated = jax.jit(partial(model.apply, train=False))(variables, x)
    assert np.all(evaluated.f_cls != 0) and np.all(evaluated.f_att != 0)
