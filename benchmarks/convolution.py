"""Compares every convolution of the ResNets in milliseconds: `lax` against `mancs_jax.kernels.convolution`.

Run: python benchmarks/convolution.py [--depth=18|50] [--batch=N] [--repeats=N]
"""

import argparse
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mancs_jax.kernels.convolution import convolve
from mancs_jax.kernels.pooling import max_pool_3x3_s2

# height, width, channels in, channels out, kernel size, stride
LAYERS = {
    18: [  # 128x64 images
        (128, 64, 3, 64, 7, 2),
        (32, 16, 64, 64, 3, 1),
        (32, 16, 64, 128, 3, 2),
        (32, 16, 64, 128, 1, 2),
        (16, 8, 128, 128, 3, 1),
        (16, 8, 128, 256, 3, 2),
        (8, 4, 256, 256, 3, 1),
        (8, 4, 256, 512, 3, 2),
        (4, 2, 512, 512, 3, 1),
    ],
    50: [  # 256x128 images
        (256, 128, 3, 64, 7, 2),
        (64, 32, 64, 64, 3, 1),
        (64, 32, 64, 256, 1, 1),
        (64, 32, 128, 128, 3, 2),
        (32, 16, 128, 128, 3, 1),
        (32, 16, 128, 512, 1, 1),
        (32, 16, 256, 256, 3, 2),
        (16, 8, 256, 256, 3, 1),
        (16, 8, 1024, 256, 1, 1),
        (16, 8, 512, 512, 3, 2),
        (8, 4, 512, 512, 3, 1),
        (8, 4, 512, 2048, 1, 1),
    ],
}


def lax_convolve(x, kernel, *, stride, padding):
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), [(padding, padding)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def lax_max_pool(x):
    padding = ((0, 0), (1, 1), (1, 1), (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding)


def milliseconds(functions, arguments, repeats):
    """The shortest wall-clock time of each function; runs alternate, so a busy machine slows all alike."""
    compiled = [jax.jit(function) for function in functions]
    for function in compiled:
        jax.block_until_ready(function(*arguments))
    times = np.empty((repeats, len(compiled)))
    for repeat in range(repeats):
        for column, function in enumerate(compiled):
            start = time.perf_counter()
            jax.block_until_ready(function(*arguments))
            times[repeat, column] = time.perf_counter() - start
    return 1e3 * times.min(0)


def directions(operation):
    """The operation and its gradients, each as a function of (x, kernel, cotangent)."""
    return (
        lambda x, kernel, cotangent: operation(x, kernel),
        lambda x, kernel, cotangent: jax.vjp(lambda x: operation(x, kernel), x)[1](cotangent),
        lambda x, kernel, cotangent: jax.vjp(lambda kernel: operation(x, kernel), kernel)[1](cotangent),
    )


def print_row(name, pairs):
    cells = [f"{before:8.1f} {after:8.1f} {before / after:6.1f}x" for before, after in pairs]
    print(f"{name:34s}" + " |".join(cells), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depth", type=int, choices=LAYERS, default=18)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    titles = " |".join(f"{title:^25s}" for title in ("forward: lax, ours", "d input", "d kernel"))
    print(f"{'ms, batch ' + str(arguments.batch) + ', ' + jax.default_backend():34s}{titles}")
    generator = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(generator.normal(size=shape), jnp.float32)

    for height, width, channels_in, channels_out, size, stride in LAYERS[arguments.depth]:
        x = draw(arguments.batch, height, width, channels_in)
        kernel = draw(size, size, channels_in, channels_out)
        cotangent = draw(arguments.batch, height // stride, width // stride, channels_out)
        options = {"stride": stride, "padding": size // 2}
        operations = (partial(lax_convolve, **options), partial(convolve, **options))
        functions = zip(*map(directions, operations), strict=True)
        pairs = [milliseconds(pair, (x, kernel, cotangent), arguments.repeats) for pair in functions]
        print_row(f"{height}x{width} {channels_in}->{channels_out} {size}x{size}/{stride}", pairs)
    height, width = (length // 2 for length in LAYERS[arguments.depth][0][:2])
    x = draw(arguments.batch, height, width, 64)
    cotangent = draw(arguments.batch, height // 2, width // 2, 64)
    pools = (lax_max_pool, max_pool_3x3_s2)
    gradients = [lambda x, cotangent, pool=pool: jax.vjp(pool, x)[1](cotangent) for pool in pools]
    pairs = [
        milliseconds(pools, (x,), arguments.repeats),
        milliseconds(gradients, (x, cotangent), arguments.repeats),
    ]
    print_row(f"{height}x{width} max pool 3x3/2", pairs)


if __name__ == "__main__":
    main()
