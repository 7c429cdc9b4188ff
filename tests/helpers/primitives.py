"""The attention operations (`Primitive`) in a traced program."""

import jax

from attn_jax._engine.operation import Primitive


def primitives(jaxpr) -> list[Primitive]:
    """Every attention operation in a program, including those in its inner programs."""
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
