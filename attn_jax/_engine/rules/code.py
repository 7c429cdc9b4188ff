"""The elementwise rest of a rule, which a kernel evaluates on its tiles."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from attn_jax._base import young_jax
from attn_jax._base.fingerprint import fingerprint
from attn_jax._engine.rules.program import evaluate, is_literal, literal

type Kind = Literal["scalar", "query", "key", "distance", "pair"]


class Part(NamedTuple):
    """One array computed outside the kernel: what it has an entry for, and its dtype there.

    `dtype` is "float32" or "int32", by pair also "bfloat16" or "int8"; booleans are 0 or 1.
    `has_gradient`: it is floating point and depends on a floating point array of the rule.
    """

    kind: Kind
    dtype: str
    has_gradient: bool

    @property
    def tile_dtype(self) -> str:
        """The dtype on a tile, which has 32 bits."""
        return {"bfloat16": "float32", "int8": "int32"}.get(self.dtype, self.dtype)


class RuleCode:
    """A rule as a function of a tile and of parts; two that compute the same are equal."""

    def __init__(self, jaxpr: young_jax.Jaxpr, parts: tuple[Part, ...]):
        self.parts = parts
        self._jaxpr = jaxpr
        self._compared = fingerprint(jaxpr), parts
        self._hash = hash(self._compared)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, RuleCode) and self._compared == other._compared)

    def __repr__(self) -> str:
        kinds = ", ".join(f"{part.kind} {part.dtype}" for part in self.parts)
        return f"<rule of {len(self._jaxpr.eqns)} operations and parts ({kinds})>"

    def on_tile(self, arguments: tuple[Array, ...], parts: Sequence[Array]) -> Array:
        """The rule on a tile, with keys along axis 0 and queries along axis 1.

        `arguments` are (i, j) for a mask, (logit, i, j) for a score mod. Arguments and parts have
        2 axes and broadcast together: logit [s t], i [1 t] or [s t], j [s 1] or [s t]; a part of
        one scalar [1 1], by query [1 t], by key [s 1], by distance or pair [s t]. A value that
        depends on the query alone stays [1 t], and so the result has the shape [s t], or less.
        """
        variables = self._jaxpr.invars[len(arguments) :]
        restored = [_restored(part, x.aval.dtype) for part, x in zip(parts, variables, strict=True)]
        (result,) = self._jaxpr.outvars
        if is_literal(result):
            return jnp.full((1, 1), literal(result))
        (value,) = evaluate(self._jaxpr, [*arguments, *restored], _on_tile)
        return value


def _restored(part: Array, dtype: jnp.dtype) -> Array:
    """A part in the dtype that it had in the rule."""
    if dtype == jnp.bool_:
        return jax.lax.ne(part, jax.lax.full_like(part, 0))
    return jax.lax.convert_element_type(part, dtype)


def _on_tile(eqn: young_jax.JaxprEqn, compute: Callable, operands: list) -> list:
    """One equation on scalars, for all entries of its operands together."""
    variables = [x for x, atom in zip(operands, eqn.invars, strict=True) if not is_literal(atom)]
    shape = jnp.broadcast_shapes(*(x.shape for x in variables))
    tiles = [
        jax.lax.full(shape, x) if is_literal(atom) else _broadcast(x, shape)
        for x, atom in zip(operands, eqn.invars, strict=True)
    ]
    return jax.vmap(jax.vmap(compute))(*tiles)


def _broadcast(tile: Array, shape: tuple[int, ...]) -> Array:
    return tile if tile.shape == shape else jax.lax.broadcast_in_dim(tile, shape, (0, 1))
