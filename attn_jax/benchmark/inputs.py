"""Random operands for a case: several sets, so a call's operands are not in the CPU's caches."""

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
    """The operands of one call; the cotangent is that of the output, [B T N H]."""

    query: Float[Numbers, "B T N H"]
    key: Float[Numbers, "B S K H"]
    value: Float[Numbers, "B S K H"]
    bias: Float[Numbers, "1 N T S"] | None
    cotangent: Float[Numbers, "B T N H"]


class Inputs:
    """The operand sets of one case, as numpy arrays and as JAX arrays."""

    def __init__(self, case: Case, seed: int, sets: int = SETS):
        rng = np.random.default_rng(seed)
        self.case = case
        self.numpy = [_draw(case, rng) for _ in range(sets)]

    @functools.cached_property
    def jax(self) -> list[Operands]:
        """The same numbers on JAX's default device, in the dtype of the case."""
        dtype = jnp.dtype(self.case.dtype)
        return [
            jax.tree.map(lambda part: jnp.asarray(part, dtype), operands) for operands in self.numpy
        ]


def _draw(case: Case, rng: np.random.Generator) -> Operands:
    shape = case.shape
    query_shape = (shape.B, shape.T, shape.N, shape.H)
    key_shape = (shape.B, shape.keys, shape.kv_heads, shape.H)
    bias_shape = (1, shape.N, shape.T, shape.keys)

    def normal(size: tuple[int, ...]) -> np.ndarray:
        return rng.standard_normal(size, dtype=np.float32)

    bias = normal(bias_shape) if shape.pair_bias else None
    query, key, value = normal(query_shape), normal(key_shape), normal(key_shape)
    return Operands(query, key, value, bias, cotangent=normal(query_shape))
