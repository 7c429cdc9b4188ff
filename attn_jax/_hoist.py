"""Any function as a pytree: what it captures are leaves, what it computes is compared by value.

Two lambdas that trace to the same operations are equal, so a call with a fresh lambda finds the
function that was compiled for the one before; and arrays that a lambda captured are inputs of that
compiled function, with gradients, instead of constants in it.
"""

import dataclasses
from collections.abc import Callable, Hashable
from typing import Any

import jax
import numpy as np
from jax.extend import core
from jaxtyping import Array

from attn_jax._value import Rule


class _Program:
    """A jaxpr without its constants, equal to any other that does the same to the same types."""

    def __init__(self, jaxpr: core.Jaxpr):
        self.jaxpr = jaxpr
        self._fingerprint = fingerprint(jaxpr)
        self._hash = hash(self._fingerprint)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        # Hashes as well, for JAX takes trees of two kinds of dataclasses for equal.
        return (
            isinstance(other, _Program)
            and self._hash == other._hash
            and self._fingerprint == other._fingerprint
        )

    def __deepcopy__(self, memo: dict) -> "_Program":
        return self

    def __reduce__(self) -> Any:
        raise TypeError(
            "a traced function cannot be pickled: pickle the function itself, and trace it with "
            "as_pytree or block_mask where it is loaded"
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Hoisted(Rule):
    """A traced function of one result: calls like the original, and is an ordinary pytree.

    What it captured may come in a wider dtype than it was traced in, so that gradients are summed
    there; the function itself computes in the dtypes of its trace.
    """

    program: _Program = dataclasses.field(metadata={"static": True})
    captured: Any

    def __call__(self, *arguments: Array) -> Array:
        jaxpr = self.program.jaxpr
        dtypes = [var.aval.dtype for var in jaxpr.constvars]  # pyrefly: ignore[missing-attribute]
        captured = [array.astype(dtype) for array, dtype in zip(self.captured, dtypes, strict=True)]
        closed = core.ClosedJaxpr(jaxpr, captured)
        (result,) = core.jaxpr_as_fun(closed)(*arguments)
        return result


def hoist(function: Callable[..., Array], *arguments: jax.ShapeDtypeStruct) -> Hoisted:
    """Traces `function` on such arguments and lifts every array it captures into a leaf."""
    closed = jax.make_jaxpr(function)(*arguments)
    if len(closed.jaxpr.outvars) != 1:
        raise ValueError(f"{function} must return one array; got {len(closed.jaxpr.outvars)}")
    return Hoisted(_Program(closed.jaxpr), tuple(map(jax.numpy.asarray, closed.consts)))


def fingerprint(jaxpr: core.Jaxpr) -> Hashable:
    """All that decides what a jaxpr computes, with variables numbered in order of appearance.

    A parameter that cannot be compared by value is compared by identity: two equal functions may
    then be compiled twice, two different ones are never taken for each other.
    """
    numbers: dict[core.Var, int] = {}

    def atom(var: Any) -> Hashable:
        if isinstance(var, core.Literal):
            value = np.asarray(var.val)
            return ("literal", str(var.aval), value.dtype.str, value.tobytes())
        return ("var", numbers.setdefault(var, len(numbers)), str(var.aval))

    inputs = tuple(atom(var) for var in (*jaxpr.constvars, *jaxpr.invars))
    equations = tuple(
        (
            eqn.primitive,
            tuple(map(atom, eqn.invars)),
            tuple((name, _parameter(value)) for name, value in sorted(eqn.params.items())),
            tuple(map(atom, eqn.outvars)),
        )
        for eqn in jaxpr.eqns
    )
    return inputs, equations, tuple(map(atom, jaxpr.outvars))


def _parameter(value: Any) -> Hashable:
    if isinstance(value, core.ClosedJaxpr):
        constants = tuple(_parameter(constant) for constant in value.consts)
        return "jaxpr", fingerprint(value.jaxpr), constants
    if isinstance(value, core.Jaxpr):
        return "jaxpr", fingerprint(value)
    if isinstance(value, tuple | list):
        return tuple(map(_parameter, value))
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.str, value.shape, value.tobytes()
    try:
        hash(value)
    except TypeError:
        return _Same(value)
    return type(value), value


class _Same:
    """A value that is equal to itself alone, and kept alive so that no other takes its place."""

    def __init__(self, value: object):
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value
