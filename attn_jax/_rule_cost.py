"""How many operations a mask or score mod costs for each pair, counted in its traced program."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from attn_jax import masks, score_mods
from attn_jax._base import young_jax

POSITION_OPERATIONS = 3
"""Assumed operations that make a tile of distances, or of a function of them, from a vector."""

# Not computed for each pair: they move or repeat values, or are computed outside of the kernel.
_FREE = {"broadcast_in_dim", "reshape", "squeeze", "copy", "stop_gradient", "gather"}
_TRANSCENDENTAL = {
    *("exp", "exp2", "expm1", "log", "log1p", "logistic", "erf", "tanh", "sin", "cos", "tan"),
    *("sqrt", "rsqrt", "cbrt", "pow", "atan2", "div"),
}


class RuleCost(NamedTuple):
    """Operations for each pair: of the vector unit, and exponentials and their like."""

    operations: int = 0
    transcendental: int = 0

    def __add__(self, other: tuple) -> "RuleCost":  # not that of tuples
        return RuleCost(*map(sum, zip(self, other, strict=True)))


def cost_of_mask(mask: Any) -> RuleCost:
    """What a mask costs for each pair of a partial tile: its operations, and one select."""
    if mask is None:
        return RuleCost()
    return _cost(masks.as_pytree(mask), 0) + RuleCost(1, 0)


def cost_of_score_mod(score_mod: Any, *, has_gradients: bool) -> RuleCost:
    """What a score mod costs for each pair, with the derivative by the logit if there is one."""
    if score_mod is None:
        return RuleCost()
    rule = score_mods.as_pytree(score_mod, "float32")

    def with_gradient(logit, cotangent, i, j):
        out, pull = jax.vjp(lambda logit: rule(logit, i, j), logit)
        return out, *pull(cotangent)

    return _cost(with_gradient, 2) if has_gradients else _cost(rule, 1)


def _cost(rule: Any, logits: int) -> RuleCost:
    """Counts what a function of `logits` logits and two positions computes for a pair.

    What depends on one position alone is computed outside of the kernel. What depends on both, but
    on no logit, is counted as at most `POSITION_OPERATIONS`: it is taken to depend on their
    distance, and to arrive as a vector.
    """
    kinds = [jax.ShapeDtypeStruct((), jnp.float32)] * logits
    kinds += [jax.ShapeDtypeStruct((), jnp.int32)] * 2
    closed = jax.make_jaxpr(rule)(*kinds)
    depends = [{"logit"}] * logits + [{"i"}, {"j"}]
    counts = {"position": RuleCost(), "logit": RuleCost()}
    _count(closed.jaxpr, dict(zip(closed.jaxpr.invars, depends, strict=True)), counts)
    of_positions = min(counts["position"].operations, POSITION_OPERATIONS)
    return counts["logit"] + RuleCost(of_positions, 0)


def _count(jaxpr: young_jax.Jaxpr, known: dict, counts: dict[str, RuleCost]) -> list[set[str]]:
    """Adds the operations of a program to the counts; returns what its results depend on."""

    def depends_on(atom: Any) -> set[str]:
        return set() if isinstance(atom, young_jax.Literal) else known.get(atom, set())

    for equation in jaxpr.eqns:
        inputs = [depends_on(atom) for atom in equation.invars]
        depends = set().union(*inputs)
        outputs = [depends] * len(equation.outvars)
        inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
        if inner is not None:
            inner = getattr(inner, "jaxpr", inner)
            outputs = _count(inner, dict(zip(inner.invars, inputs, strict=True)), counts)
        elif equation.primitive.name not in _FREE and ("logit" in depends or len(depends) == 2):
            kind = "logit" if "logit" in depends else "position"
            is_slow = equation.primitive.name in _TRANSCENDENTAL
            counts[kind] += RuleCost(1, int(is_slow))
        known.update(zip(equation.outvars, outputs, strict=True))
    return [depends_on(atom) for atom in jaxpr.outvars]
