"""Max pooling of the residual networks: XLA's own is slow on CPU, and its gradient on GPUs."""

from functools import partial, reduce

import jax
import jax.numpy as jnp
from jax import lax


def max_pool_3x3_s2(x: jax.Array) -> jax.Array:
    """Maximum over 3x3 windows, stride 2, padding 1: torch's `MaxPool2d(3, 2, padding=1)`.

    The gradient goes to the first maximum of a window in row-major order, as in torch and XLA.

    Args:
      x: [B, H, W, C], float.

    Returns:
      [B, (H + 1) // 2, (W + 1) // 2, C], dtype of `x`.
    """
    return _max_pool(x)


@jax.custom_vjp
def _max_pool(x):
    return lax.platform_dependent(x, cpu=_cpu_max_pool, default=_lax_max_pool)


def _cpu_max_pool(x):
    """Nine strided views: XLA for CPU takes a window element by element, and these with whole vectors.

    Rows after columns, as the gradient has them, would be six views, and is slower all the same.
    """
    return reduce(jnp.maximum, _window_views(x))


def _window_views(x):
    """The nine elements of each window, in row-major order."""
    height, width = ((size + 1) // 2 for size in x.shape[1:3])
    padding = [(1, 2 * count - size, 0) for count, size in zip((height, width), x.shape[1:3], strict=True)]
    x = lax.pad(x, jnp.asarray(-jnp.inf, x.dtype), [(0, 0, 0), *padding, (0, 0, 0)])
    return [
        x[:, row : row + 2 * height - 1 : 2, column : column + 2 * width - 1 : 2]
        for row in range(3)
        for column in range(3)
    ]


def _lax_max_pool(x):
    padding = ((0, 0), (1, 1), (1, 1), (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding)


def _max_pool_forward(x):
    def others(x, pool):
        y = pool(x)
        return y, jnp.zeros(y.shape, jnp.uint8)

    y, tap = lax.platform_dependent(
        x,
        cpu=partial(others, pool=_cpu_max_pool),
        cuda=pool_with_tap,
        default=partial(others, pool=_lax_max_pool),
    )
    return y, (x, tap)


def pool_with_tap(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The maximum of each window and its place there: a byte is kept in place of the map, and nothing is scattered.

    Args:
      x: [B, H, W, C], float.

    Returns:
      The maxima and the number of the first, 0 to 8 in row-major order, uint8. Both have the shape of the maxima.
    """
    y, *others = _window_views(x)
    tap = jnp.zeros(y.shape, jnp.uint8)
    for number, view in enumerate(others, start=1):
        tap = jnp.where(view > y, jnp.uint8(number), tap)
        y = jnp.maximum(y, view)
    return y, tap


def from_taps(tap: jax.Array, cotangent: jax.Array, input_shape: tuple[int, ...]) -> jax.Array:
    """Adds each cotangent where its maximum was: the gradient of `pool_with_tap`, of the shape of its input."""
    zero = jnp.zeros((), cotangent.dtype)

    def of_tap(number):
        starts = [position - 1 for position in divmod(number, 3)]
        padding = [
            (start, size - start - (2 * count - 1), 1)
            for start, size, count in zip(starts, input_shape[1:3], tap.shape[1:3], strict=True)
        ]
        return lax.pad(jnp.where(tap == number, cotangent, zero), zero, [(0, 0, 0), *padding, (0, 0, 0)])

    return reduce(jnp.add, map(of_tap, range(9)))


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


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def _triples(x, axis):
    """The first, middle and last element of each window of 3, stride 2, padding 1 along `axis`."""
    size = x.shape[axis]
    count = (size + 1) // 2
    pad = [(0, 0)] * x.ndim
    pad[axis] = (1, 2 * count - size)
    x = jnp.pad(x, pad, constant_values=-jnp.inf)
    return [lax.slice_in_dim(x, start, start + 2 * count - 1, 2, axis) for start in range(3)]


def _unpool_axis(x, cotangent, axis):
    # The elements are compared with each other, not with their maximum: XLA may have computed that from another
    # rounding of `x`, in another fusion. It would then equal none of them.
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
