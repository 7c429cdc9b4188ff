"""What each value of a rule's program depends on: the query, the key, their distance, the logit."""

import functools
from collections.abc import Collection
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp

from attn_jax._base import young_jax
from attn_jax._engine.rules.code import Kind
from attn_jax._engine.rules.program import is_literal, type_of

type Label = Literal["query", "key", "distance", "pair", "logit"]

_COMPARED = frozenset({"sub", "lt", "le", "gt", "ge", "eq", "ne"})
_LOOKUPS = frozenset({"gather", "dynamic_slice"})
_SIDES = frozenset({"query", "key"})


class Labels(NamedTuple):
    """What each variable depends on.

    `positional` are those computed from positions and numbers alone, `by_side` the arrays of which
    each entry depends on one side.
    """

    of: dict[Any, frozenset]
    positional: set
    by_side: set


def kind_of(labels: frozenset) -> Kind | None:
    """What a value has one entry for; None where it depends on several, or on the logit."""
    if not labels:
        return "scalar"
    (one, *others) = labels
    return None if others or one == "logit" else one


def label(
    jaxpr: young_jax.Jaxpr, leaves: dict[Any, Label | None], arguments: list, *, in_order: bool
) -> Labels:
    """Labels every variable of a program.

    The difference of two positions in order, or a comparison of them, depends on their distance. An
    entry of an array looked up by a function of the query position and one of the key position is
    that of a pair.
    """
    *logit, i, j = arguments
    found = Labels({x: frozenset() for x in jaxpr.invars}, {i, j}, set())
    found.of.update({x: frozenset([own]) for x, own in leaves.items() if own is not None})
    found.of.update({x: frozenset(["logit"]) for x in logit})
    found.of.update({i: frozenset(["query"]), j: frozenset(["key"])})
    raw = {i: "query", j: "key"}
    for eqn in jaxpr.eqns:
        operands = [x for x in eqn.invars if not is_literal(x)]
        own = functools.reduce(frozenset.union, (found.of[x] for x in operands), frozenset())
        if all(x in found.positional for x in operands):
            found.positional.update(eqn.outvars)
        if eqn.primitive.name == "concatenate" and all(len(found.of[x]) < 2 for x in operands):
            found.by_side.update(eqn.outvars)
        if eqn.primitive.name == "convert_element_type" and _keeps_integers(eqn):
            raw.update((eqn.outvars[0], raw[x]) for x in operands if x in raw)
        if in_order and _compares(eqn, raw):
            own = frozenset(["distance"])
        if own == _SIDES and _is_lookup_by_side(eqn, found):
            own = frozenset(["pair"])
        found.of.update(dict.fromkeys(eqn.outvars, own))
    return found


def depends_on(jaxpr: young_jax.Jaxpr, sources: Collection) -> set:
    """The floating point variables with a derivative by one of the `sources`."""
    found = set(sources)
    for eqn in jaxpr.eqns:
        if any(x in found for x in eqn.invars if not is_literal(x)):
            found.update(x for x in eqn.outvars if _is_float(x))
    return found


def _is_float(variable: Any) -> bool:
    return jnp.issubdtype(type_of(variable).dtype, jnp.inexact)


def _keeps_integers(eqn: young_jax.JaxprEqn) -> bool:
    """Whether a conversion keeps every position."""
    dtype = eqn.params["new_dtype"]
    return dtype.kind == "i" and dtype.itemsize >= 4


def _compares(eqn: young_jax.JaxprEqn, raw: dict[Any, str]) -> bool:
    """Whether an equation subtracts or compares the two positions themselves."""
    if eqn.primitive.name not in _COMPARED or any(map(is_literal, eqn.invars)):
        return False
    return {raw.get(x) for x in eqn.invars} == _SIDES


def _is_lookup_by_side(eqn: young_jax.JaxprEqn, found: Labels) -> bool:
    """Whether an array is looked up by functions of one position each."""
    if eqn.primitive.name not in _LOOKUPS:
        return False
    array, *index = (x for x in eqn.invars if not is_literal(x))
    return len(found.of[array]) < 2 and all(
        x in found.positional and (len(found.of[x]) < 2 or x in found.by_side) for x in index
    )
