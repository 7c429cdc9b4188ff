"""Evaluates a traced program equation by equation, and writes out its inner programs."""

from collections.abc import Callable, Collection
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from attn_jax._base import young_jax

CALLS = frozenset({"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"})
WITH_DERIVATIVES = frozenset({"custom_jvp_call", "custom_vjp_call"})

type Apply = Callable[["young_jax.JaxprEqn", Callable, list], list]


class Refused(Exception):  # noqa: N818  (a reported result, not a failure)
    """A kernel cannot compute a rule; the message says why."""


def evaluate(jaxpr: young_jax.Jaxpr, inputs: list, apply: Apply) -> list:
    """The results of a program whose equations `apply` computes.

    `inputs` are the values of its constants and of its arguments. `apply(equation, function,
    operands)` returns the results of one equation. `function` computes them as JAX does.
    """
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), inputs, strict=True))

    def read(atom: Any) -> Any:
        return literal(atom) if isinstance(atom, young_jax.Literal) else values[atom]

    for eqn in jaxpr.eqns:
        results = apply(eqn, alone(jaxpr, eqn), [read(atom) for atom in eqn.invars])
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def type_of(atom: Any) -> Any:
    """Shape and dtype of a variable or literal of a program."""
    return atom.aval


def literal(atom: Any) -> np.ndarray:
    """The value of a literal."""
    return np.asarray(atom.val, type_of(atom).dtype)


def alone(jaxpr: young_jax.Jaxpr, eqn: young_jax.JaxprEqn) -> Callable[..., list]:
    """The function of all operands of one equation that computes its results.

    An equation with a derivative rule of its own keeps it.
    """
    variables = list(dict.fromkeys(x for x in eqn.invars if not is_literal(x)))
    results = [x for x in eqn.outvars if not isinstance(x, young_jax.DropVar)]
    program = jaxpr.replace(constvars=(), invars=variables, outvars=results, eqns=[eqn])
    function = young_jax.jaxpr_as_fun(young_jax.ClosedJaxpr(program, ()))

    def of_operands(*operands: Any) -> list:
        given = {x: value for x, value in zip(eqn.invars, operands, strict=True) if x in variables}
        computed = dict(zip(results, function(*given.values()), strict=True))
        return [computed.get(x) for x in eqn.outvars]

    return of_operands


def is_literal(atom: Any) -> bool:
    return isinstance(atom, young_jax.Literal)


def inner_programs(eqn: young_jax.JaxprEqn) -> list[young_jax.ClosedJaxpr]:
    """The programs that one equation contains."""
    programs = []
    for value in eqn.params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            if isinstance(one, young_jax.ClosedJaxpr):
                programs.append(one)
            elif isinstance(one, young_jax.Jaxpr):
                programs.append(young_jax.ClosedJaxpr(one, ()))
    return programs


def call_inner(eqn: young_jax.JaxprEqn, operands: list, apply: Apply) -> list:
    """The results of an equation that calls one inner program."""
    inner = inner_programs(eqn)[0]
    return evaluate(inner.jaxpr, [*inner.consts, *operands], apply)


def inlined(
    function: Callable, types: list, calls: Collection[str] = CALLS
) -> young_jax.ClosedJaxpr:
    """A function's program with the inner programs of such calls written out."""

    def apply(eqn: young_jax.JaxprEqn, compute: Callable, operands: list) -> list:
        if eqn.primitive.name in calls:
            return call_inner(eqn, operands, apply)
        return compute(*operands)

    traced = jax.make_jaxpr(function)(*types)

    def flat(*arguments: Array) -> list:
        return evaluate(traced.jaxpr, [*traced.consts, *arguments], apply)

    return jax.make_jaxpr(flat)(*types)


def needed(jaxpr: young_jax.Jaxpr, results: list, given: Collection) -> list:
    """The equations that compute variables from `given` ones, in order."""
    wanted, equations = {x for x in results if not is_literal(x)}, []
    wanted.difference_update(given)
    for eqn in reversed(jaxpr.eqns):
        if wanted.intersection(eqn.outvars):
            equations.append(eqn)
            wanted.update(x for x in eqn.invars if not is_literal(x))
            wanted.difference_update(given)
    return equations[::-1]
