"""Which gradients a backward pass computes, and how they become those of a call's operands."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from attn_jax._base.axes import Axes, fit, in_front, map_levels
from attn_jax._engine.call import Operands
from attn_jax._engine.kernels.mosaic_tpu import tile
from attn_jax._engine.kernels.mosaic_tpu.arrays import Prepared
from attn_jax._engine.kernels.mosaic_tpu.folding import unfolded
from attn_jax._engine.kernels.mosaic_tpu.gradient_tile import has_gradient
from attn_jax._engine.kernels.mosaic_tpu.gradients import Sum
from attn_jax._engine.kernels.mosaic_tpu.launch import Kind
from attn_jax._engine.tile_sum import where_wanted

_KIND_OF_SUM: dict[Kind, Kind] = {"scalar": "total"}


def spread(
    operands: Operands, own: Operands, to: Operands, sizes: tuple[int, ...]
) -> tuple[Operands, Operands]:
    """Operands and their axes, with every small array that needs a gradient for each head repeated.

    They are the scale and the arrays of the score mod: `vmap` of a gradient asks for that.
    """

    def one(array: Any, axes: Axes, wanted: Axes | None) -> tuple[Any, Axes]:
        if wanted is None or all(
            a is not None for a, b in zip(axes.at, wanted.at, strict=True) if b is not None
        ):
            return array, axes
        everywhere = in_front(len(axes.at))
        return map_levels(lambda core: core, (axes,), everywhere, sizes)(array), everywhere

    changed: list[dict[str, Any]] = [{}, {}]
    for name in ("scale", "score_mod"):
        leaves, structure = jax.tree.flatten(getattr(operands, name))
        axes = jax.tree.leaves(getattr(own, name))
        wanted = jax.tree.leaves(getattr(to, name), is_leaf=lambda node: node is None)
        pairs = list(map(one, leaves, axes, wanted))
        for n, of in enumerate(changed):
            of[name] = jax.tree.unflatten(structure, [pair[n] for pair in pairs])
    return dataclasses.replace(operands, **changed[0]), dataclasses.replace(own, **changed[1])


def sums(
    prepared: Prepared, operands: Operands, to: Operands, sizes: tuple[int, ...]
) -> dict[Any, Sum]:
    """The gradients to compute, by name: that of an operand, or the number of a part."""
    inputs = prepared.inputs
    found: dict[Any, Sum] = {}
    for name, share in _SHARES.items():
        axes = getattr(to, name).values
        if axes is not None:
            given = getattr(inputs, name)
            dtype = getattr(operands, name).values.dtype
            shape = given.values.shape[-2:]
            found[name] = Sum(given.kind, shape, dtype, _leading(axes, sizes), share)
    if to.scale is not None:
        leading = _leading(to.scale, sizes)
        found["scale"] = Sum("total", (1, 1), jnp.float32, leading, _of_scale, "scale")
    if jax.tree.leaves(to.score_mod):
        found |= _of_parts(prepared)
    return found


def gradients_of(
    prepared: Prepared,
    operands: Operands,
    axes: tuple[Operands, Operands],
    found: dict[Any, Array],
    wanted: tuple[bool, ...],
) -> Operands:
    """The gradient of each operand that is wanted. `axes` are those of operands and gradients."""
    own, to = axes
    T, S = prepared.program.sizes
    changes: dict[str, Any] = {}
    for name, size in (("query", T), ("key", S), ("value", S)):
        if name in found:
            table = getattr(to, name)
            values = unfolded(found[name][..., :size, :], table.values)
            changes[name] = dataclasses.replace(table, values=values)
    if "scale" in found:
        changes["scale"] = unfolded(found["scale"][..., 0, 0], to.scale)
    if jax.tree.leaves(to.score_mod):
        parts = {n: _unpadded(prepared, n, g) for n, g in found.items() if isinstance(n, int)}
        changes["score_mod"] = fit(prepared.score_mod_gradient(parts), own.score_mod, to.score_mod)
    return dataclasses.replace(where_wanted(wanted, operands), **changes)


def _of_parts(prepared: Prepared) -> dict[Any, Sum]:
    """The gradients of the parts of a score mod."""
    code = prepared.program.score_mod
    has = has_gradient(code) if code is not None else ()
    found: dict[Any, Sum] = {}
    for n, part in enumerate(prepared.inputs.score_mod):
        if has[n]:
            *leading, rows, columns = part.values.shape
            kind = _KIND_OF_SUM.get(part.kind, part.kind)

            def share(program: Any, moved: Any, n: int = n) -> Array:
                del program
                return moved.d_score_mod[n]

            dtype = part.values.dtype
            found[n] = Sum(kind, (rows, columns), dtype, tuple(leading), share, "score_mod")
    return found


def _unpadded(prepared: Prepared, n: int, gradient: Array) -> Array:
    T, S = prepared.program.sizes
    kind = prepared.inputs.score_mod[n].kind
    if kind == "pair":
        return gradient[..., :T, :S]
    return gradient[..., : {"query": T, "key": S}.get(kind)]


def _leading(axes: Axes, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The sizes of leading axes, the outermost first; 1 where a gradient is summed."""
    return tuple(
        1 if at is None else size for at, size in zip(reversed(axes.at), sizes, strict=True)
    )


def _of_query(program: Any, moved: Any) -> Array:
    return tile.product(program, moved.d_raw, moved.key, 0, 0)


def _of_key(program: Any, moved: Any) -> Array:
    return tile.product(program, moved.d_raw, moved.query, 1, 0)


def _of_value(program: Any, moved: Any) -> Array:
    return tile.product(program, moved.weights, moved.d_out, 1, 0)


def _of_scale(program: Any, moved: Any) -> Array:
    del program
    return moved.d_scale


_SHARES = {"query": _of_query, "key": _of_key, "value": _of_value}
