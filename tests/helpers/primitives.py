"""The operations of ours that a program is made of."""

import jax

from attn_jax._engine.operation import Primitive


def primitives(jaxpr) -> list[Primitive]:
    """Every operation of ours in a program."""
    found = []
    for eqn in jaxpr.eqns:
        for value in jax.tree.leaves(list(eqn.params.values())):
            if isinstance(value, Primitive):
                found.append(value)
            elif hasattr(value, "eqns"):
                found.extend(primitives(value))
            elif hasattr(value, "jaxpr"):
                found.extend(primitives(value.jaxpr))
    return found
