"""Normal draws for a case: several sets of them, so that no call finds its operands in a cache."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from attn_jax.benchmark.shapes import Case

type Numbers = np.ndarray | Array

SETS = 3


class Operands(NamedTuple):
    """What one call reads; the cotangent is of the output, [B T N H]."""

    query: Float[Numbers, "B T N H"]
    key: Float[Numbers, "B S K H"]
    value: Float[Numbers, "B S K H"]
    bias: Float[Numbers, "1 N T S"] | None
    cotangent: Float[Numbers, "B T N H"]


class Inputs:
    """The sets of one case, as numpy draws them and as JAX holds them."""

    def __init__(self, case: Case, seed: int, sets: int = SETS):
        rng = np.random.default_rng(seed)
        self.case = case
        self.numpy = [_draw(case, rng) for _ in range(sets)]

    @functools.cached_property
    def jax(self) -> list[Operands]:
        """The same numbers on JAX' default device, in the dtype of the case; made once."""
        dtype = jnp.dtype(self.case.dtype)
        return [
            jax.tree.map(lambda part: jnp.asarray(part, dtype), operands) for operands in self.numpy
        ]


def _draw(case: Case, rng: np.random.Generator) -> Operands:
    shape = case.shape
    rows = (shape.B, shape.T, shape.N, shape.H)
    columns = (shape.B, shape.keys, shape.kv_heads, shape.H)
    pairs = (1, shape.N, shape.T, shape.keys)

    def normal(size: tuple[int, ...]) -> np.ndarray:
        return rng.standard_normal(size, dtype=np.float32)

    bias = normal(pairs) if shape.pair_bias else None
    return Operands(normal(rows), normal(columns), normal(columns), bias, normal(rows))
