"""Everything that determines what a traced function computes, as a comparable value."""

from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from attn_jax._base import concrete, young_jax

_ORDERS = 2
_WITH_RULES = ("custom_jvp_call", "custom_vjp_call")
_SMALL = 4096  # bytes: smaller arrays are compared by content


def fingerprint(jaxpr: young_jax.Jaxpr, orders: int = _ORDERS) -> tuple:
    """Everything that determines what a jaxpr computes, with variables numbered by appearance.

    Custom derivative rules are compared by what they compute, up to the given order of derivatives.
    A parameter that cannot be compared by value is compared by identity: two equal functions may
    then be compiled twice, but two different ones never compare as equal.
    """
    numbers: dict[young_jax.Var, int] = {}

    def atom(var: Any) -> tuple:
        if isinstance(var, young_jax.Literal):
            value = np.asarray(var.val)
            return ("literal", value.dtype.str, value.tobytes(), str(var.aval))
        return ("var", numbers.setdefault(var, len(numbers)), str(var.aval))

    inputs = tuple(atom(var) for var in (*jaxpr.constvars, *jaxpr.invars))
    equations = tuple(
        (
            eqn.primitive,
            tuple(map(atom, eqn.invars)),
            _parameters(jaxpr, eqn, orders),
            tuple(map(atom, eqn.outvars)),
        )
        for eqn in jaxpr.eqns
    )
    return inputs, equations, tuple(map(atom, jaxpr.outvars))


def _parameters(jaxpr: young_jax.Jaxpr, eqn: young_jax.JaxprEqn, orders: int) -> tuple:
    derivative = None
    if eqn.primitive.name in _WITH_RULES and not eqn.params["symbolic_zeros"]:
        derivative = _derivative(jaxpr, eqn, orders)
    return derivative, *(
        (name, _parameter(value, orders))
        for name, value in sorted(eqn.params.items())
        if derivative is None or not _is_rule(value)
    )


def _is_rule(value: Any) -> bool:
    return callable(value) or type(value).__name__ == "WrappedFun"


def _derivative(jaxpr: young_jax.Jaxpr, eqn: young_jax.JaxprEqn, orders: int) -> Hashable | None:
    """What the rules of one equation compute; None where it has no derivative."""
    if orders == 0:
        return "of a higher order"
    operands = list(dict.fromkeys(x for x in eqn.invars if not isinstance(x, young_jax.Literal)))
    results = [x for x in eqn.outvars if not isinstance(x, young_jax.DropVar)]
    alone = jaxpr.replace(constvars=(), invars=operands, outvars=results, eqns=[eqn])
    function = young_jax.jaxpr_as_fun(young_jax.ClosedJaxpr(alone, ()))
    is_float = [jnp.issubdtype(x.dtype, np.inexact) for x in _types(operands)]

    def derivative(values: list, tangents: list) -> Any:
        def of_floats(*floats: Any) -> Any:
            rest = iter(floats)
            pairs = zip(values, is_float, strict=True)
            return function(*(next(rest) if own else x for x, own in pairs))

        floats = [x for x, own in zip(values, is_float, strict=True) if own]
        if eqn.primitive.name == "custom_jvp_call":
            return jax.jvp(of_floats, floats, tangents)
        return jax.vjp(of_floats, *floats)[1](tangents)

    floats = [x for x, own in zip(operands, is_float, strict=True) if own]
    tangents = floats if eqn.primitive.name == "custom_jvp_call" else results
    try:
        traced = jax.make_jaxpr(derivative)(_types(operands), _types(tangents))
    except Exception:  # a custom rule is any function of a user, and may raise
        return None
    return _parameter(traced, orders - 1)


def _types(variables: list[Any]) -> list[jax.ShapeDtypeStruct]:
    return [jax.ShapeDtypeStruct(x.aval.shape, x.aval.dtype) for x in variables]


def _parameter(value: Any, orders: int) -> Hashable:
    if isinstance(value, young_jax.ClosedJaxpr):
        constants = tuple(_parameter(constant, orders) for constant in value.consts)
        return "jaxpr", fingerprint(value.jaxpr, orders), constants
    if isinstance(value, young_jax.Jaxpr):
        return "jaxpr", fingerprint(value, orders)
    if isinstance(value, tuple | list):
        return tuple(_parameter(part, orders) for part in value)
    if isinstance(value, jax.Array) and _is_small(value):
        known = concrete.at_hand(value)
        value = value if known is None else known
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.str, value.shape, value.tobytes()
    try:
        hash(value)
    except TypeError:
        return _Same(value)
    return type(value), value


def _is_small(array: jax.Array) -> bool:
    is_key = jax.dtypes.issubdtype(array.dtype, jax.dtypes.extended)
    return not is_key and array.size * array.dtype.itemsize <= _SMALL


class _Same:
    """A value that is equal to itself alone, kept alive so that its id is not reused."""

    def __init__(self, value: object):
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value
