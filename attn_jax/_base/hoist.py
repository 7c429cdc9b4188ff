"""A function as a pytree: captured arrays are leaves, and programs are compared by value.

Two lambdas that trace to the same operations are equal, so a call with a new lambda reuses the
compilation of the one before. Captured arrays are inputs of the compiled program, with gradients,
instead of constants in it.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array

from attn_jax._base import young_jax
from attn_jax._base.describe import in_short
from attn_jax._base.fingerprint import fingerprint
from attn_jax._base.log import compiles
from attn_jax._base.value import Rule


class _Program:
    """A jaxpr without its constants, equal to others with the same operations on the same types."""

    def __init__(self, jaxpr: young_jax.Jaxpr, name: str):
        self.jaxpr, self.name = jaxpr, name
        self.fingerprint = fingerprint(jaxpr)
        self._hash = hash(self.fingerprint)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        # Hashes are compared too: JAX compares trees of two dataclasses as equal.
        return self is other or (
            isinstance(other, _Program)
            and self._hash == other._hash
            and self.fingerprint == other.fingerprint
        )

    def __repr__(self) -> str:
        return f"program {self._hash:x}"

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
    """A traced function of one result, called like the original, as a pytree.

    Captured arrays may have a wider dtype than in the trace, so that gradients are summed in it.
    The function itself computes in the dtypes of its trace.
    """

    program: _Program = dataclasses.field(metadata={"static": True})
    captured: Any

    def __repr__(self) -> str:
        # The program's name can be that of another function with the same operations.
        arrays = f" of {in_short(self.captured)}" if self.captured else ""
        return f"<traced function{arrays}>"

    def __call__(self, *arguments: Array) -> Array:
        jaxpr = self.program.jaxpr
        dtypes = [var.aval.dtype for var in jaxpr.constvars]  # pyrefly: ignore[missing-attribute]
        captured = [array.astype(dtype) for array, dtype in zip(self.captured, dtypes, strict=True)]
        closed = young_jax.ClosedJaxpr(jaxpr, captured)
        (result,) = young_jax.jaxpr_as_fun(closed)(*arguments)
        return result


def hoist(function: Callable[..., Array], *arguments: jax.ShapeDtypeStruct) -> Hoisted:
    """Traces `function` on such arguments and lifts every array it captures into a leaf."""
    closed = jax.make_jaxpr(function)(*arguments)
    if len(closed.jaxpr.outvars) != 1:
        raise ValueError(f"{function} must return one array; got {len(closed.jaxpr.outvars)}")
    name = getattr(function, "__qualname__", type(function).__qualname__)
    program = _first_equal(_Program(closed.jaxpr, name))
    return Hoisted(program, tuple(map(jax.numpy.asarray, closed.consts)))


@functools.lru_cache(maxsize=1024)
def _first_equal(program: _Program) -> _Program:
    """The program itself, or the equal one that came before it."""
    inputs, equations, _ = program.fingerprint
    compiles(
        f"a program of {program.name}",
        captured_and_arguments=", ".join(kind for *_, kind in inputs),
        operations=f"{len(equations)} of hash {hash(program):x}",
    )
    return program
