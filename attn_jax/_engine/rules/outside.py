"""One part of a rule, computed by XLA for all queries, keys, distances or pairs, and all heads."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from attn_jax._base import young_jax
from attn_jax._base.axes import Axes, level
from attn_jax._engine.rules.code import Kind
from attn_jax._engine.rules.program import is_literal, needed

_ENTRIES = {"query": ("query",), "key": ("key",), "distance": ("query",), "pair": ("query", "key")}


class OutsidePart(NamedTuple):
    """The program of one scalar, and which inputs of the rule it takes.

    `labels` says of each input whether it has an entry for each query, key or pair, and `squeezed`
    which of its axes all pairs share.
    """

    kind: Kind
    program: Callable[..., list]
    inputs: tuple[int, ...]
    labels: tuple[Any, ...]
    squeezed: tuple[tuple[int, ...], ...]

    @classmethod
    def of(
        cls,
        jaxpr: young_jax.Jaxpr,
        result: Any,
        kind: Kind | None,
        inputs: list,
        labels: list,
        squeezed: list,
    ) -> "OutsidePart":
        eqns = needed(jaxpr, [result], inputs)
        read = {result, *(x for eqn in eqns for x in eqn.invars if not is_literal(x))}
        taken = tuple(n for n, x in enumerate(inputs) if x in read)
        alone = jaxpr.replace(invars=[inputs[n] for n in taken], outvars=[result], eqns=eqns)
        assert kind is not None, "a part depends on one thing"
        return cls(
            kind,
            young_jax.jaxpr_as_fun(young_jax.ClosedJaxpr(alone, ())),
            taken,
            tuple(labels[n] for n in taken),
            tuple(squeezed[n] for n in taken),
        )

    def of_one_head(self, *arrays: Array) -> Array:
        """The part of one head: [1 1], [1 T], [1 S], [1 W] or [T S]."""
        function = self._scalar
        # The map over keys is inside: the last axis of a pair is that of its keys.
        for side in reversed(_ENTRIES.get(self.kind, ())):
            in_axes = tuple(0 if label in (side, "pair") else None for label in self.labels)
            function = jax.vmap(function, in_axes=in_axes)
        values = function(*map(jnp.squeeze, arrays, self.squeezed))
        return values.reshape((1,) * (2 - values.ndim) + values.shape)

    def _scalar(self, *values: Array) -> Array:
        (result,) = self.program(*values)
        return result


def of_all_heads(part: OutsidePart, arrays: list[Array], axes: list[Axes]) -> Array:
    """A part with one leading axis for each vmapped level, of size 1 where it is shared."""
    own = [axes[n] for n in part.inputs]
    levels = len(axes[0].at) if axes else 0
    return _over_levels(part.of_one_head, own, levels)(*(arrays[n] for n in part.inputs))


def _over_levels(function: Callable, axes: list[Axes], levels: int) -> Callable:
    if levels == 0:
        return function
    here, inside = level(axes, levels - 1)
    inner = _over_levels(function, inside, levels - 1)
    if all(axis is None for axis in here):
        return lambda *arrays: inner(*arrays)[None]
    return jax.vmap(inner, in_axes=tuple(here))
