"""Arrays as the kernels take them: one leading axis for each vmapped axis, the outermost first.

A leading axis has size 1 where all heads or batch examples share the array, so that nothing is
repeated. The last two axes are those of one head.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from attn_jax._base.axes import Axes, fit


def folded(array: Array, own: Axes) -> Array:
    """The array with a leading axis for each vmapped axis."""
    levels = range(len(own.at) - 1, -1, -1)
    mapped = [axis for n in levels if (axis := own.at[n]) is not None]
    shared = [place for place, n in enumerate(levels) if own.at[n] is None]
    return jax.lax.expand_dims(jnp.transpose(array, mapped + own.core(array.ndim)), shared)


def unfolded(array: Array, to: Axes) -> Array:
    """The array with the vmapped axes of `to`, summed over those that `to` lacks."""
    levels = range(len(to.at) - 1, -1, -1)
    lacking = [place for place, n in enumerate(levels) if to.at[n] is None]
    return fit(jnp.sum(array, lacking) if lacking else array, to.in_front(), to)


def summed_to(array: Array, leading: tuple[int, ...]) -> Array:
    """The sum over the leading axes that have size 1 in `leading`, which stay as axes of size 1."""
    axes = [n for n, size in enumerate(leading) if size == 1 and array.shape[n] != 1]
    return jnp.sum(array, axes, keepdims=True) if axes else array


def padded(array: Array, axis: int, size: int, number: float = 0) -> Array:
    """The array with one axis padded to `size` entries."""
    missing = size - array.shape[axis]
    if missing == 0:
        return array
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, missing)
    return jnp.pad(array, widths, constant_values=number)
