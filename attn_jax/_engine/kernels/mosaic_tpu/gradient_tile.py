"""The derivative of one tile, from which all kernels of the backward pass take their sums.

Dao et al., "FlashAttention" (2022), algorithm 4, https://arxiv.org/abs/2205.14135. Weights are
computed again from the log-sum-exp, and the score mod is differentiated by JAX inside the kernel.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from attn_jax._engine.kernels.mosaic_tpu import tile
from attn_jax._engine.kernels.mosaic_tpu.tile import Gradient, Here, Program
from attn_jax._engine.rules import RuleCode, rewritten


class TileGradient(NamedTuple):
    """The rows of a tile, its weights after dropout, and gradients of what logits come from."""

    query: Float[Array, "t H"]
    key: Float[Array, "s H"]
    d_out: Float[Array, "t V"]
    weights: Float[Array, "s t"]
    d_raw: Float[Array, "s t"]
    d_scale: Float[Array, "1 1"] | None
    d_score_mod: list[Any]
    """The gradient of each part of the score mod: [1 1], [1 t], [s 1] or [s t]; or None."""


def tile_gradient(
    program: Program, here: Here, gradient: Gradient, *, of_scale: bool, of_score_mod: bool
) -> TileGradient:
    """The derivative of a tile; gradients of the scale and of the score mod if asked for."""
    raw = tile.scores(program, here)
    weights = jnp.exp2(tile.logits(program, raw, here) - gradient.logsumexp)
    value, d_out = tile.kept(here.inputs.value, here, 1), tile.kept(gradient.d_out, here, 0)
    by_value = tile.product(program, value, d_out, 1, 1)
    keep = tile.not_dropped(program, here)
    d_weights = tile.after_dropout(program, by_value, keep) + gradient.d_unit
    d_logit = weights * d_weights
    if here.unmasked is not None:  # NaN in the cotangent of a query that is fully masked
        d_logit = jnp.where(here.unmasked, d_logit, 0)
    d_scaled, d_score_mod = _of_score_mod(program, raw, here, d_logit, of_parts=of_score_mod)
    d_scale = None
    if of_scale:
        both = d_scaled * _finite(raw, here)
        d_scale = jnp.sum(jnp.sum(both, axis=0, keepdims=True), axis=1, keepdims=True)
    return TileGradient(
        tile.kept(here.inputs.query, here, 0),
        tile.kept(here.inputs.key, here, 1),
        d_out,
        tile.after_dropout(program, weights, keep),
        d_scaled * here.inputs.scale,
        d_scale,
        d_score_mod,
    )


def has_gradient(code: RuleCode) -> tuple[bool, ...]:
    """Which parts of a score mod have a gradient."""
    return tuple(part.has_gradient for part in code.parts)


def pulled(
    code: RuleCode, moving: tuple[bool, ...], arguments: tuple, parts: list, d_result: Array
) -> tuple[Array, list]:
    """Gradients of a score mod's logit, and of those of its parts that are `moving`."""
    logit, *positions = arguments
    given = [part for part, moves in zip(parts, moving, strict=True) if moves]

    def function(logit: Array, given: list) -> Array:
        own = iter(given)
        whole = [next(own) if moves else x for x, moves in zip(parts, moving, strict=True)]
        return jnp.broadcast_to(code.on_tile((logit, *positions), whole), d_result.shape)

    return jax.vjp(function, logit, given)[1](d_result)


def _of_score_mod(
    program: Program, raw: Array, here: Here, d_logit: Array, *, of_parts: bool
) -> tuple[Array, list[Any]]:
    """Gradients of the score mod's logit and of its parts, None for those without one."""
    code, some = program.score_mod, None
    if code is None:
        return d_logit, []
    moving = tuple(of_parts and has for has in has_gradient(code))
    values = raw * here.inputs.scale, here.query_position, here.key_position, *here.inputs.score_mod
    if here.unmasked is not None and not program.is_finite:
        values, some = _at_unmasked_pairs(here.unmasked, values)
    pull = rewritten(functools.partial(pulled, code, moving))
    d_scaled, moved = pull(tuple(values[:3]), list(values[3:]), d_logit)
    if here.unmasked is not None:
        d_scaled = jnp.where(here.unmasked, d_scaled, 0)
    found = iter(moved)
    return d_scaled, [
        _summed(_zero_unless(some, next(found)), part.shape) if moves else None
        for moves, part in zip(moving, here.inputs.score_mod, strict=True)
    ]


def _at_unmasked_pairs(
    unmasked: Bool[Array, "s t"], values: tuple[Array, ...]
) -> tuple[list[Array], Bool[Array, "1 1"]]:
    """Values in which a masked pair has those of the first unmasked pair; whether there is one.

    A score mod may have an infinite derivative at a masked pair, which no cotangent of 0 removes.
    """
    s, t = unmasked.shape
    number = jax.lax.broadcasted_iota(jnp.int32, (s, t), 0) * t
    number = number + jax.lax.broadcasted_iota(jnp.int32, (s, t), 1)
    first = _over_both(jnp.min, jnp.where(unmasked, number, s * t))
    is_first = number == first

    def replaced(values: Array) -> Array:
        whole = jnp.broadcast_to(values, (s, t))
        one = _over_both(jnp.sum, jnp.where(is_first, whole, jnp.zeros_like(whole)))
        return jnp.where(unmasked, whole, one)

    return [replaced(x) for x in values], first < s * t


def _over_both(reduce: Any, values: Array) -> Array:
    return reduce(reduce(values, axis=0, keepdims=True), axis=1, keepdims=True)


def _zero_unless(some: Bool[Array, "1 1"] | None, gradient: Array) -> Array:
    return gradient if some is None else jnp.where(some, gradient, jnp.zeros_like(gradient))


def _summed(gradient: Array, shape: tuple[int, ...]) -> Array:
    """The sum over the axes along which a part was repeated."""
    for axis in (0, 1):
        if shape[axis] == 1 and gradient.shape[axis] != 1:
            gradient = jnp.sum(gradient, axis=axis, keepdims=True)
    return gradient


def _finite(raw: Array, here: Here) -> Array:
    return raw if here.unmasked is None else jnp.where(here.unmasked, raw, 0)
