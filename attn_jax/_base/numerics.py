"""Softmax, its dtype, and what a fully masked query returns."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, DTypeLike, Float

from attn_jax._base import concrete


def accumulation_dtype(dtype: DTypeLike) -> jnp.dtype:
    """The dtype of sums: float32, or float64 for float64 where JAX enables it."""
    is_double = jax.dtypes.canonicalize_dtype(dtype) == jnp.float64
    return jnp.dtype(jnp.float64 if is_double else jnp.float32)


def wide[Tree](tree: Tree) -> Tree:
    """The floating point arrays of a tree in their accumulation dtype."""

    def widened(leaf):
        is_float = jnp.issubdtype(leaf.dtype, jnp.inexact)
        return leaf.astype(accumulation_dtype(leaf.dtype)) if is_float else leaf

    return jax.tree.map(widened, tree)


def put(values: Array, where: Bool[Array, "..."], number: float | int) -> Array:
    """`values`, with a number where `where` is True; it may lack the last axis of values.

    It is `jnp.where` without a nested jit, which takes most of the tracing time of short programs.
    """
    if where.ndim < values.ndim:
        where = jax.lax.broadcast_in_dim(where, values.shape, range(where.ndim))
    return jax.lax.select(where, jax.lax.full_like(values, number), values)


def across(
    row: Float[Array, " t"] | Float[Array, ""], tile: Float[Array, "t s"]
) -> Float[Array, "t s"]:
    """One number for each row, or one for all rows, repeated along the columns of a tile."""
    return jax.lax.broadcast_in_dim(row, tile.shape, range(row.ndim))


def as_scalar(number: float | int | np.floating | Array, dtype: DTypeLike) -> Float[Array, ""]:
    """Any kind of number as an array of one dtype, so that all kinds share one compilation."""
    return (
        number.astype(dtype)
        if isinstance(number, Array)
        else concrete.placed(np.array(number, dtype))
    )


def masked_softmax(
    logits: Float[Array, "*B S"], unmasked: Bool[Array, "*B S"] | None
) -> tuple[Float[Array, "*B S"], Float[Array, " *B"]]:
    """Softmax over the unmasked keys, and the log of its denominator.

    A fully masked row, or one whose logits are all −inf, has weights 0, log-sum-exp −inf and
    gradients exactly 0. The maximum is subtracted before `exp`, so that no finite logit overflows.
    """
    shares, total, logsumexp = exponentials(logits, unmasked)
    return shares / total, logsumexp[..., 0]


def exponentials(
    logits: Float[Array, "*B S"], unmasked: Bool[Array, "*B S"] | None
) -> tuple[Float[Array, "*B S"], Float[Array, "*B 1"], Float[Array, "*B 1"]]:
    """Softmax before its division: numerators, the denominator (1 where all keys are masked), and
    the denominator's logarithm."""
    if unmasked is not None:
        logits = jnp.where(unmasked, logits, -jnp.inf)
    maximum = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True, initial=-jnp.inf))
    is_masked = maximum == -jnp.inf
    unnormalised = jnp.exp(logits - jnp.where(is_masked, 0, maximum))
    total = jnp.sum(unnormalised, axis=-1, keepdims=True)
    safe_total = jnp.where(is_masked, 1, total)
    return (
        unnormalised,
        safe_total,
        jnp.where(is_masked, -jnp.inf, maximum + jnp.log(safe_total)),
    )
