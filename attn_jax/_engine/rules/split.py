"""Cuts a rule into parts by query, key, distance or pair, and the elementwise rest.

A mask or score mod is a function of one pair. Its program is divided at scalars: a scalar that a
kernel cannot compute, such as an entry of an array, becomes a part if it depends on the query, the
key, their distance or a table of pairs alone. Parts are computed outside the kernel, all else in
it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from attn_jax._base import young_jax
from attn_jax._base.axes import Axes
from attn_jax._engine.rules.code import Kind, Part, RuleCode
from attn_jax._engine.rules.labels import Label, Labels, depends_on, kind_of, label
from attn_jax._engine.rules.leaves import Leaf, leaves_of, of_pair, with_values
from attn_jax._engine.rules.outside import OutsidePart, of_all_heads
from attn_jax._engine.rules.program import Refused, inlined, is_literal, needed, type_of
from attn_jax._engine.rules.rewrite import check, refusal

_POSITION = jax.ShapeDtypeStruct((), jnp.int32)
_LOGIT = jax.ShapeDtypeStruct((), jnp.float32)
_LOOKUPS = ("gather", "dynamic_slice")


class RuleSplit(NamedTuple):
    """A rule in two: `outside` computes the parts, `code` the rest on a tile."""

    code: RuleCode
    leaves: tuple[Leaf, ...]
    constants: tuple[Any, ...]
    computed: tuple[OutsidePart, ...]

    def outside(
        self,
        rule: Any,
        query_position: Int[Array, "..."],
        key_position: Int[Array, "..."],
        position_axes: tuple[Axes, Axes],
        distances: Int[Array, " W"],
        sizes: tuple[int, ...],
    ) -> list[Array]:
        """The parts of all heads, in the order of `code.parts`; differentiable in the rule.

        Each has one leading axis for each vmapped level, the outermost first: of full size where
        the part depends on an array that is mapped there, else of size 1. Then follow two axes: a
        scalar has [1 1], a part by query [1 T], by key [1 S], by distance [1 W], by pair [T S].
        `code.parts` has their dtypes.

        Args:
          rule: the rule that was split, or one of equal structure.
          query_position: [T] and mapped axes.
          key_position: [S] and mapped axes.
          position_axes: the axes of both.
          distances: the values of query position - key position that the kernel needs.
          sizes: the sizes of the vmapped axes, innermost first.
        """
        shared = Axes((None,) * len(sizes))
        arrays = [*with_values(rule), *self.constants]
        axes = [*(leaf.axes for leaf in self.leaves), *(shared for _ in self.constants)]
        parts = []
        for part, (kind, dtype, _) in zip(self.computed, self.code.parts, strict=True):
            if kind == "distance":
                positions, own = (distances, jnp.int32(0)), (shared, shared)
            else:
                positions, own = (query_position, key_position), position_axes
            values = of_all_heads(part, [*arrays, *positions], [*axes, *own])
            parts.append(values.astype(dtype))
        return parts


def split(rule: Any, axes: Any, *, name: str, takes_logit: bool, in_order: bool) -> RuleSplit:
    """Cuts a mask or score mod in two.

    Args:
      rule: the rule as a pytree, with its tables in the order of the call.
      axes: the same tree with the `Axes` of each array.
      name: what messages call the rule.
      takes_logit: whether it is a score mod.
      in_order: whether positions are 0, 1, 2, … on both sides, so that i - j is a distance.

    Raises:
      Refused: a kernel cannot compute the rule.
    """
    leaves = leaves_of(rule, axes)
    arguments = [*([_LOGIT] if takes_logit else []), _POSITION, _POSITION]

    def one_pair(*values: Array) -> Array:
        return of_pair(rule, values[: len(leaves)])(*values[len(leaves) :])

    closed = inlined(one_pair, [*(leaf.type for leaf in leaves), *arguments])
    jaxpr = closed.jaxpr.replace(
        constvars=(), invars=[*closed.jaxpr.constvars, *closed.jaxpr.invars]
    )
    return _cut(jaxpr, closed.consts, leaves, name=name, in_order=in_order)


def _cut(
    jaxpr: young_jax.Jaxpr, constants: list, leaves: list[Leaf], *, name: str, in_order: bool
) -> RuleSplit:
    count, held = len(leaves), len(constants)
    of_constants, of_leaves = jaxpr.invars[:held], jaxpr.invars[held : held + count]
    arguments = jaxpr.invars[held + count :]
    kinds: list[Label | None] = [leaf.label for leaf in leaves]
    labels = label(
        jaxpr,
        dict(zip(of_leaves, kinds, strict=True)),
        arguments,
        in_order=in_order,
    )
    parts = _parts(jaxpr, labels, arguments, name)
    floats = [x for x in of_leaves if jnp.issubdtype(type_of(x).dtype, jnp.inexact)]
    trained = depends_on(jaxpr, floats)
    inputs = [*of_leaves, *of_constants, *arguments[-2:]]
    given = [*kinds, *(None for _ in of_constants), "query", "key"]
    squeezed = [*(leaf.squeezed for leaf in leaves), *(() for _ in range(held + 2))]
    computed = tuple(
        OutsidePart.of(jaxpr, x, kind_of(labels.of[x]), inputs, given, squeezed) for x in parts
    )
    described = tuple(
        Part(part.kind, _dtype(jaxpr, x, part.kind, name), x in trained)
        for x, part in zip(parts, computed, strict=True)
    )
    inside = jaxpr.replace(
        invars=[*arguments, *parts],
        eqns=needed(jaxpr, jaxpr.outvars, [*arguments, *parts]),
    )
    code = RuleCode(inside, described)
    _check(code, inside, len(arguments), name)
    return RuleSplit(code, tuple(leaves), tuple(constants), computed)


def _parts(jaxpr: young_jax.Jaxpr, labels: Labels, arguments: list, name: str) -> list:
    """The variables that are computed outside the kernel, in the order of their computation."""
    wanted = {x for x in jaxpr.outvars if not is_literal(x)}
    parts, refused = [], []
    for eqn in reversed(jaxpr.eqns):
        made = [x for x in eqn.outvars if x in wanted]
        reason = _reason(eqn) if made else None
        outside = [x for x in made if _is_part(x, labels, reason)]
        parts.extend(outside)
        if len(outside) < len(made):
            wanted.update(x for x in eqn.invars if not is_literal(x))
            refused.extend([] if reason is None else [(eqn.primitive.name not in _LOOKUPS, reason)])
    if refused:
        # The earliest lookup says most, else the earliest operation.
        raise Refused(f"{name} {min(reversed(refused), key=lambda one: one[0])[1]}")
    parts.extend(x for x in jaxpr.invars if x in wanted and x not in arguments)
    return parts[::-1]


def _is_part(variable: Any, labels: Labels, reason: str | None) -> bool:
    """Whether a value is computed outside; `reason` is why a kernel cannot compute it.

    A scalar or a value by query or key that depends on an array is computed outside as a whole:
    that is one vector, whereas a kernel would compute it again in each tile. A table of pairs would
    be written out, and a vector by distance costs a kernel more than most operations.
    """
    kind = kind_of(labels.of[variable])
    if type_of(variable).shape or kind is None:
        return False
    depends_on_array = variable not in labels.positional
    return reason is not None or (kind in ("scalar", "query", "key") and depends_on_array)


def _reason(eqn: young_jax.JaxprEqn) -> str | None:
    """Why a kernel cannot compute one equation on a tile; None where it can."""
    if eqn.primitive.name in _LOOKUPS:
        return (
            "looks an array up by more than one of query, key and logit; the TPU kernel takes "
            "array[f(i)], array[f(j)], array[i, j], and array[f(i - j)] where query_position and "
            "key_position are left out"
        )
    reason = refusal(eqn)
    if reason is not None:
        return reason
    shapes = [type_of(x).shape for x in (*eqn.invars, *eqn.outvars) if type_of(x).shape]
    if shapes:
        return f"computes with an array of shape {list(shapes[0])} for each pair"
    return None


def _dtype(jaxpr: young_jax.Jaxpr, variable: Any, kind: Kind, name: str) -> str:
    """The dtype of a part outside the kernel."""
    dtype = type_of(variable).dtype
    is_float = jnp.issubdtype(dtype, jnp.floating)
    is_integer = dtype == jnp.bool_ or jnp.issubdtype(dtype, jnp.integer)
    if not is_float and (not is_integer or dtype.itemsize > 4):
        raise Refused(f"{name} uses values of dtype {dtype}, which the TPU kernel has not")
    if kind == "pair":
        narrow = {"bfloat16": "bfloat16" if is_float else None, "bool": "int8"}
        held = narrow.get(str(_before_conversion(jaxpr, variable)))
        if held is not None:
            return held
    return "float32" if is_float else "int32"


def _before_conversion(jaxpr: young_jax.Jaxpr, variable: Any) -> jnp.dtype:
    """The dtype of the value that a variable was converted from, else its own."""
    for eqn in jaxpr.eqns:
        if variable in eqn.outvars and eqn.primitive.name == "convert_element_type":
            return type_of(eqn.invars[0]).dtype
    return type_of(variable).dtype


def _check(code: RuleCode, inside: young_jax.Jaxpr, count: int, name: str) -> None:
    """Checks that a kernel has every operation of the rule on a tile, and of its derivative."""
    shapes = {"scalar": (1, 1), "query": (1, 4), "key": (3, 1)}
    parts = [jax.ShapeDtypeStruct(shapes.get(p.kind, (3, 4)), p.dtype_on_tile) for p in code.parts]
    tiles = [
        jax.ShapeDtypeStruct((3, 4), jnp.float32),
        jax.ShapeDtypeStruct((1, 4), jnp.int32),
        jax.ShapeDtypeStruct((3, 1), jnp.int32),
    ]

    def on_tile(*arrays: Array) -> Array:
        return code.on_tile(arrays[:count], arrays[count:])

    try:
        check(on_tile, [*tiles[-count:], *parts])
    except Refused as refused:
        raise Refused(f"{name} {refused}") from None
