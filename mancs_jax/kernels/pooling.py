"""Max pooling of the residual networks: XLA's own is slow on CPU, and its gradient is slow on GPU."""

from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, UInt8

Maps = Float[jax.Array | np.ndarray, "B H W C"]
Pooled = Float[jax.Array, "B (H+1)//2 (W+1)//2 C"]


@jax.custom_vjp
def max_pool_3x3_s2(x: Maps) -> Pooled:
    """Takes the maximum over 3x3 windows with stride 2 and padding 1, as torch's `MaxPool2d(3, 2, padding=1)`.

    The gradient goes to the first maximum of a window in row-major order, as in torch and XLA.
    """
    return lax.platform_dependent(x, cpu=_cpu_max_pool, default=_lax_max_pool)


def _cpu_max_pool(x: Maps) -> Pooled:
    """Takes the maximum of nine strided views: XLA for CPU reads a window by elements, and these by vectors.

    Columns first and then rows, as in the gradient, would need only six views, but is slower.
    """
    return reduce(jnp.maximum, _window_views(x))


def _window_views(x: Maps) -> list[jax.Array]:
    """Returns the nine elements of each window, in row-major order."""
    height, width = ((size + 1) // 2 for size in x.shape[1:3])
    padding = [(1, 2 * count - size, 0) for count, size in zip((height, width), x.shape[1:3], strict=True)]
    x = lax.pad(x, jnp.asarray(-jnp.inf, x.dtype), [(0, 0, 0), *padding, (0, 0, 0)])
    return [
        x[:, row : row + 2 * height - 1 : 2, column : column + 2 * width - 1 : 2]
        for row in range(3)
        for column in range(3)
    ]


def _lax_max_pool(x: Maps) -> Pooled:
    padding = ((0, 0), (1, 1), (1, 1), (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding)


def _max_pool_forward(x):
    def without_tap(x, pool):
        y = pool(x)
        return y, jnp.zeros(y.shape, jnp.uint8)

    y, tap = lax.platform_dependent(
        x,
        cpu=partial(without_tap, pool=_cpu_max_pool),
        cuda=pool_with_tap,
        default=partial(without_tap, pool=_lax_max_pool),
    )
    return y, (x, tap)


def pool_with_tap(x: Maps) -> tuple[Pooled, UInt8[jax.Array, "B (H+1)//2 (W+1)//2 C"]]:
    """Returns the maxima, and the position (tap) of each in its window, 0 to 8 in row-major order.

    The gradient then keeps a byte per maximum instead of the map, and scatters nothing.
    """
    y, *views = _window_views(x)
    tap = jnp.zeros(y.shape, jnp.uint8)
    for number, view in enumerate(views, start=1):
        tap = jnp.where(view > y, jnp.uint8(number), tap)
        y = jnp.maximum(y, view)
    return y, tap


def from_taps(
    tap: UInt8[jax.Array, "B H W C"], cotangent: Float[jax.Array, "B H W C"], input_shape: tuple[int, ...]
) -> jax.Array:
    """Adds each cotangent where its maximum was: the gradient of `pool_with_tap`, of the shape of its input."""
    zero = jnp.zeros((), cotangent.dtype)

    def one_tap(number):
        starts = [position - 1 for position in divmod(number, 3)]
        padding = [
            (start, size - start - (2 * count - 1), 1)
            for start, size, count in zip(starts, input_shape[1:3], tap.shape[1:3], strict=True)
        ]
        return lax.pad(jnp.where(tap == number, cotangent, zero), zero, [(0, 0, 0), *padding, (0, 0, 0)])

    return reduce(jnp.add, map(one_tap, range(9)))


def _max_pool_backward(residuals, cotangent):
    def separable(x, tap, cotangent):
        # First along the columns, then the rows: so the first maximum in row-major order wins a tie.
        by_columns = reduce(jnp.maximum, _triples(x, 2))
        return (_unpool_axis(x, _unpool_axis(by_columns, cotangent, 1), 2),)

    def by_tap(x, tap, cotangent):
        return (from_taps(tap, cotangent, x.shape),)

    def by_lax(x, tap, cotangent):
        return jax.vjp(_lax_max_pool, x)[1](cotangent)

    return lax.platform_dependent(*residuals, cotangent, cpu=separable, cuda=by_tap, default=by_lax)


max_pool_3x3_s2.defvjp(_max_pool_forward, _max_pool_backward)


def _triples(x: jax.Array, axis: int) -> list[jax.Array]:
    """Returns the first, middle and last element of each window of 3, stride 2, padding 1 along `axis`."""
    size = x.shape[axis]
    count = (size + 1) // 2
    pad = [(0, 0)] * x.ndim
    pad[axis] = (1, 2 * count - size)
    x = jnp.pad(x, pad, constant_values=-jnp.inf)
    return [lax.slice_in_dim(x, start, start + 2 * count - 1, 2, axis) for start in range(3)]


def _unpool_axis(x: jax.Array, cotangent: jax.Array, axis: int) -> jax.Array:
    # Elements are compared with each other, not with their maximum, which XLA may compute in another fusion from
    # another rounding of `x`, so that it would equal none of them.
    first, middle, last = _triples(x, axis)
    to_first = first >= jnp.maximum(middle, last)
    to_middle = ~to_first & (middle >= last)
    zero = jnp.zeros((), cotangent.dtype)
    from_first = jnp.where(to_first, cotangent, zero)
    from_last = jnp.where(to_first | to_middle, zero, cotangent)
    # The last element of a window is the first of the next.
    following = lax.slice_in_dim(from_first, 1, None, axis=axis)
    pad = [(0, 0)] * x.ndim
    pad[axis] = (0, 1)
    odd = from_last + jnp.pad(following, pad)
    pairs = jnp.stack([jnp.where(to_middle, cotangent, zero), odd], axis + 1)
    shape = list(x.shape)
    shape[axis] = 2 * cotangent.shape[axis]
    return lax.slice_in_dim(pairs.reshape(shape), 0, x.shape[axis], axis=axis)
