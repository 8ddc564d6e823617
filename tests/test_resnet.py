"""The JAX ResNet against a PyTorch one with the same weights, and what its options promise.

Training mode is compared in float64: batch statistics over a handful of positions and the kinks of ReLU and max pooling
enlarge float32's rounding to 1e-4 in the features and, where one unit flips, to 0.1 in a gradient. In float64 both
agree to 1e-11, so any difference is a mistake. The float32 comparison uses the running statistics, where nothing is
enlarged.
"""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mancs_jax.config.names import STAGE_SIZES
from mancs_jax.kernels.conv_norm import ConvNorm
from mancs_jax.kernels.relu_of_sum import relu_of_sum
from mancs_jax.models.resnet import STAGES, PReLU, ResNet


def make_resnet(stage_sizes, bottleneck, dtype=np.float32, **options):
    return ResNet(stage_sizes, bottleneck, partial(ConvNorm, dtype=dtype), **options)


def stage_outputs(model, x, train):
    """The output of each stage, to be called through `model.apply`."""
    x, maps = model.stem(x, train), []
    for stage in STAGES:
        x = model.stage(stage, x, train)
        maps.append(x)
    return maps


@partial(jax.jit, static_argnums=(0, 1))
def run(model, train, params, batch_stats, x, weights):
    """Gradients of `sum(stage output * weights)` by (params, x), the four stages' outputs, the new statistics."""

    def weighted_sum(params, x):
        variables = {"params": params, "batch_stats": batch_stats}
        maps, updated = model.apply(variables, x, train, method=stage_outputs, mutable=["batch_stats"])
        total = sum(jnp.sum(a * b) for a, b in zip(maps, weights, strict=True))
        return total, (maps, updated["batch_stats"])

    gradients, (maps, updated) = jax.grad(weighted_sum, argnums=(0, 1), has_aux=True)(params, x)
    return gradients, maps, updated


def assert_close(actual, expected, tolerance):
    """Every array of a tree within `tolerance` of the largest magnitude of the expected one."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(actual), jax.tree.leaves(expected), strict=True):
        assert a.shape == b.shape, path
        error, scale = np.abs(np.asarray(a) - b).max(), np.abs(b).max()
        assert error <= tolerance * scale, f"{jax.tree_util.keystr(path)}: {error:.2e} off, largest {scale:.2e}"


def check_parity(stage_sizes, bottleneck, size, dtype, train, tolerance, remat=(), **options):
    torch = pytest.importorskip("torch")
    import torch_resnet

    reference = torch_resnet.randomize(torch_resnet.TorchResNet(stage_sizes, bottleneck, **options), seed=0)
    reference = reference.to(getattr(torch, np.dtype(dtype).name)).train(train)
    params, batch_stats = jax.tree.map(np.copy, torch_resnet.to_flax(reference.state_dict()))
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.normal(size=(4, 3, *size)).astype(dtype)).requires_grad_()
    stages = reference(x)
    weights = [rng.normal(size=tuple(stage.shape)).astype(dtype) for stage in stages]
    sum((stage * torch.from_numpy(w)).sum() for stage, w in zip(stages, weights, strict=True)).backward()

    with jax.enable_x64(dtype == np.float64):
        model = make_resnet(stage_sizes, bottleneck, dtype, remat=remat, **options)
        (by_params, by_x), maps, updated = run(
            model, train, params, batch_stats, torch_resnet.nhwc(x), [w.transpose(0, 2, 3, 1) for w in weights]
        )
    assert maps[-1].dtype == by_x.dtype == dtype
    assert_close(maps, [torch_resnet.nhwc(stage) for stage in stages], tolerance)
    assert_close(by_x, torch_resnet.nhwc(x.grad), tolerance)
    gradients = {name: parameter.grad for name, parameter in reference.named_parameters()}
    assert_close(by_params, torch_resnet.to_flax(gradients)[0], tolerance)
    _, expected = torch_resnet.to_flax(reference.state_dict())
    if train:  # torch keeps the unbiased variance, flax the biased one: only the means are the same
        updated, expected = (jax.tree.map_with_path(_only_means, tree) for tree in (updated, expected))
    assert_close(updated, expected, tolerance)


def _only_means(path, leaf):
    return leaf if path[-1].key == "mean" else np.zeros(leaf.shape)


@pytest.mark.parametrize(
    "stage_sizes, bottleneck, size, train, options",
    [
        ((1, 2, 1, 1), False, (96, 48), True, {"width": 8}),
        (STAGE_SIZES["resnet50"], True, (64, 32), True, {}),
        ((1, 2, 1, 1), True, (64, 32), False, {"width": 8}),  # a whole ResNet-50: test_imagenet.py and test_authors.py
    ],
)
def test_blocks_equal_torch(stage_sizes, bottleneck, size, train, options):
    check_parity(stage_sizes, bottleneck, size, np.float64, train, 1e-9, **options)


@pytest.mark.parametrize(
    "blocks, bottleneck, last_activation, last_stride, remat, size",
    [
        (2, True, "prelu_shared", 1, (2, 3), (71, 45)),
        (1, True, "prelu", 1, (2, 3, 4, 5), (64, 32)),
        (1, False, "prelu_shared", 2, (), (50, 34)),
    ],
)
def test_options_equal_torch(blocks, bottleneck, last_activation, last_stride, remat, size):
    options = {"width": 8, "last_activation": last_activation, "last_stride": last_stride}
    check_parity((1, 1, 1, blocks), bottleneck, size, np.float64, True, 1e-9, remat=remat, **options)


def test_prelu_by_hand():
    module = PReLU()
    x = jnp.array([-4.0, -1.0, 0.0, 2.0])
    params = module.init(jax.random.key(0), x)
    np.testing.assert_allclose(module.apply(params, x), [-1.0, -0.25, 0.0, 2.0])
    gradient = jax.grad(lambda params: module.apply(params, x).sum())(params)
    assert gradient["params"]["slope"] == -5.0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_relu_of_sum_is_exact(dtype):
    x, y = jax.random.normal(jax.random.key(0), (2, 1000)).astype(dtype)
    x, y = (jnp.concatenate([a, jnp.asarray(b, dtype)]) for a, b in ((x, [3e38, 1, 0, -3e38]), (y, [3e38, -1, 0, -1])))
    np.testing.assert_array_equal(relu_of_sum(x, y), jnp.maximum(x + y, 0))
    assert np.isnan(relu_of_sum(jnp.float32([np.nan, np.inf, 1.0]), jnp.float32([1.0, -np.inf, -np.inf]))).all()
    gradients = jax.grad(lambda x, y: (relu_of_sum(x, y) * jnp.arange(1.0, 5.0)).sum(), argnums=(0, 1))(
        jnp.float32([1, -3, 1, 0]), jnp.float32([2, 1, -1, 0])
    )
    np.testing.assert_array_equal(gradients, [[1, 0, 0, 0]] * 2)


def test_no_block_computes_the_ones_before_again():
    """On CPU a block's end reads what enters the block and what its last convolution gives, no map besides.

    Read off the program that XLA compiled for inference: another XLA may write it in other words.
    """
    model = make_resnet((4, 1, 1, 1), False, width=8)
    x = jnp.zeros((2, 64, 32, 3))
    variables = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), x)
    program = jax.jit(partial(model.apply, train=False)).lower(variables, x).compile().as_text()
    main = program[program.index("\nENTRY") :]
    first_stage = set(re.findall(r"%(\S+) = f32\[2,1[67],8,8\]", main))
    ends = [set(re.findall(r"%([^\s,)]+)", line)) & first_stage for line in main.splitlines() if " fusion(" in line]
    assert max(map(len, ends)) == 3  # with the result; a row more leaves the convolution (convolution.py)


@pytest.fixture(scope="module")
def tiny():
    """A bottleneck net of one block a stage, its variables and a batch [4,64,32,3]."""
    model = make_resnet((1, 1, 1, 1), True, width=8)
    x = jax.random.normal(jax.random.key(0), (4, 64, 32, 3))
    return model, jax.jit(partial(model.init, train=False))(jax.random.key(1), x), x


def test_remat_is_in_the_program(tiny):  # that it changes no value or gradient is in test_options_equal_torch
    model, variables, x = tiny
    program = str(jax.make_jaxpr(partial(model.clone(remat=(2, 3, 4, 5)).apply, train=False))(variables, x))
    assert program.count("remat2") + program.count("checkpoint") >= 4


def test_bfloat16_computes_in_bfloat16_with_float32_parameters(tiny):
    model, variables, x = tiny
    low = make_resnet((1, 1, 1, 1), True, dtype=jnp.bfloat16, width=8)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    y = jax.jit(partial(low.apply, train=False))(variables, x.astype(jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    expected = jax.jit(partial(model.apply, train=False))(variables, x)
    assert np.abs(y.astype(np.float32) - expected).max() < 0.05 * np.abs(expected).max()
