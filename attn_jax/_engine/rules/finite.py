"""Whether a score mod is finite, with a finite derivative, whatever pair it is evaluated at.

A masked pair has a cotangent of 0, and 0 times an infinite derivative is NaN. A kernel must keep
masked pairs away from a score mod for which this may happen, which takes time in each partial tile.
"""

from typing import Any

import jax.numpy as jnp

from attn_jax._base import young_jax
from attn_jax._engine.rules.program import is_literal, type_of

_LINEAR = frozenset({"add", "sub", "neg", "convert_element_type", "copy", "stop_gradient"})
_FUNCTIONS = "mul abs sign max min clamp tanh sin cos logistic erf floor ceil round square"
_CHOICES = "and or xor not eq ne lt le gt ge select_n"
_BOUNDED = frozenset(" ".join((_FUNCTIONS, _CHOICES)).split(" "))


def is_finite_everywhere(jaxpr: young_jax.Jaxpr, scalars: list) -> bool:
    """True where no operation of a program can have an infinite value or derivative.

    `scalars` are the inputs that all pairs share. Other inputs of a floating point dtype may be
    infinite at a masked pair, as a bias of −inf is, and are only added; the logit is finite.
    """
    shared, added = set(scalars), set(_added(jaxpr, scalars))
    for eqn in jaxpr.eqns:
        operands = [x for x in eqn.invars if not is_literal(x)]
        if all(x in shared for x in operands):
            shared.update(eqn.outvars)
        elif any(x in added for x in operands):
            if eqn.primitive.name not in _LINEAR:
                return False
            added.update(eqn.outvars)
        elif not _is_bounded(eqn, shared):
            return False
    return True


def _added(jaxpr: young_jax.Jaxpr, scalars: list) -> list:
    """The inputs that may be infinite at a masked pair: all floats but the logit and scalars."""
    (_, *others) = jaxpr.invars
    return [x for x in others if x not in scalars and _is_float(x)]


def _is_bounded(eqn: young_jax.JaxprEqn, shared: set) -> bool:
    if eqn.primitive.name == "div":
        divisor = eqn.invars[1]
        return is_literal(divisor) or divisor in shared
    return eqn.primitive.name in _LINEAR | _BOUNDED


def _is_float(variable: Any) -> bool:
    return jnp.issubdtype(type_of(variable).dtype, jnp.floating)
