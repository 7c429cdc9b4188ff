"""Matmuls whose derivatives of every order are as fast as they are.

JAX differentiates `einsum(bfloat16, bfloat16) -> float32` into matmuls of a float32 cotangent with
a bfloat16 operand, for which no hardware has a fast path. Here the derivative of a matmul is such a
matmul: its operands are rounded, and sums and cotangents are float32 or wider, in every order. A
matmul that sums over the first axis of both operands, as derivatives by keys and values do, is
rewritten for XLA's matmul routines on CPUs, which makes it twice as fast.
"""

import functools
import math
import string

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from attn_jax._base import concrete, numerics, young_jax
from attn_jax._base.sharding import types, vary_alike
from attn_jax._engine.operation import Primitive


def matmul(
    formula: str,
    first: Float[Array, "..."],
    second: Float[Array, "..."],
    dtype: DTypeLike,
    precision: str | None = None,
) -> Float[Array, "..."]:
    """`einsum(formula, first, second)` with operands in `dtype`, summed in float32 or wider.

    `precision` is the name of JAX's precision, for this matmul and those of its derivatives.
    """
    first, second = vary_alike((first, second))
    how = formula, jnp.dtype(dtype), precision
    return _Matmul(*how, jax.typeof(first), jax.typeof(second))(first, second)


class _Matmul(Primitive):
    """A bilinear matmul such as `"ab,cb->ac"`; every letter of a side occurs on another side."""

    formula: str
    dtype: jnp.dtype
    precision: str | None

    def __init__(self, formula: str, dtype: jnp.dtype, precision: str | None, first, second):
        self.in_avals = (first, second)
        self.params = {"formula": formula, "dtype": dtype, "precision": precision}
        one, other, out = _letters(formula)
        sizes = dict(zip(one + other, first.shape + second.shape, strict=True))
        shape = tuple(sizes[letter] for letter in out)
        wide = numerics.accumulation_dtype(dtype)
        self.out_aval = types(jax.ShapeDtypeStruct(shape, wide), first)
        super().__init__()

    def expand(self, *args):
        first, second = args
        return _product(self.formula, first, second, self.dtype, self.precision)

    def jvp(self, primals, tangents):
        (first, second), (d_first, d_second) = primals, tangents
        terms = []
        if not isinstance(d_first, young_jax.Zero):
            terms.append(matmul(self.formula, d_first, second, self.dtype, self.precision))
        if not isinstance(d_second, young_jax.Zero):
            terms.append(matmul(self.formula, first, d_second, self.dtype, self.precision))
        return self(first, second), sum(terms[1:], terms[0])

    lin, linearized = young_jax.linearize_from_jvp

    def vjp_fwd(self, nzs_in, /, *args):
        return self(*args), args

    def vjp_bwd_retval(self, res, outgrad, /):
        first, second = res
        return self._by_first(outgrad, second), self._by_second(first, outgrad)

    def transpose(self, out_ct, *maybe_accums):
        first, second = maybe_accums
        if isinstance(first, young_jax.GradAccum):
            first.accum(self._by_first(out_ct, second))
        else:
            second.accum(self._by_second(first, out_ct))

    def _by_first(self, cotangent, second):
        first, other, out = _letters(self.formula)
        gradient = matmul(f"{out},{other}->{first}", cotangent, second, self.dtype, self.precision)
        return gradient.astype(self.in_avals[0].dtype)

    def _by_second(self, first, cotangent):
        one, other, out = _letters(self.formula)
        gradient = matmul(f"{out},{one}->{other}", cotangent, first, self.dtype, self.precision)
        return gradient.astype(self.in_avals[1].dtype)

    def batch(self, axis_data, args, dims):
        if dims == (None, None):
            return self(*args), None
        *sides, out = _letters(self.formula)
        letter = next(c for c in string.ascii_uppercase if c not in self.formula)
        mapped = [
            side if axis is None else letter + side for side, axis in zip(sides, dims, strict=True)
        ]
        first, second = (
            array if not axis else jnp.moveaxis(array, axis, 0)
            for array, axis in zip(args, dims, strict=True)
        )
        formula = f"{mapped[0]},{mapped[1]}->{letter}{out}"
        return matmul(formula, first, second, self.dtype, self.precision), 0


def _product(formula, first, second, dtype, precision):
    first, second = (x if x.dtype == dtype else x.astype(dtype) for x in (first, second))
    one, other, out = _letters(formula)
    dot = functools.partial(_dot, dtype=dtype, precision=precision)
    sums = set(one) & set(other) - set(out)
    if len(sums) > 1 or not sums.isdisjoint((one[-1], other[-1])):
        return dot(one, first, other, second, out)
    own, others = _own_size(one, other, first.shape), _own_size(other, one, second.shape)
    if concrete.are_numbers(own, others) and own < others:
        one, other, first, second = other, one, second, first
    # Barriers keep XLA from fusing the two small transpositions into the large matmul.
    (summed,) = sums
    turned = other.replace(summed, "") + summed
    batch = "".join(letter for letter in out if letter in one and letter in other)
    result = batch + "".join(x for x in other + one if x in out and x not in batch)
    second = jax.lax.optimization_barrier(_ordered(other, second, turned))
    done = jax.lax.optimization_barrier(dot(turned, second, one, first, result))
    return _ordered(result, done, out)


def _dot(one, first, other, second, out, *, dtype, precision):
    """`einsum(f"{one},{other}->{out}", first, second)`, which takes five times as long to trace."""
    batch = [x for x in out if x in one and x in other]
    own = [x for x in one if x in out and x not in batch]
    others = [x for x in other if x in out and x not in batch]
    if "".join(batch + own + others) != out:
        one, first, own, other, second, others = other, second, others, one, first, own
    sums = sorted(set(one) & set(other) - set(out))

    def axes(letters: list[str]) -> tuple[list[int], list[int]]:
        return [one.index(x) for x in letters], [other.index(x) for x in letters]

    done = jax.lax.dot_general(
        first,
        second,
        (axes(sums), axes(batch)),
        precision=precision,
        preferred_element_type=numerics.accumulation_dtype(dtype),
    )
    return _ordered("".join(batch + own + others), done, out)


def _ordered(letters: str, array: Array, wanted: str) -> Array:
    """The axes in another order."""
    return (
        array if letters == wanted else jax.lax.transpose(array, list(map(letters.index, wanted)))
    )


def _own_size(letters: str, others: str, shape: tuple[int, ...]) -> int:
    """The product of the sizes of the axes that the other operand does not have."""
    return math.prod(n for x, n in zip(letters, shape, strict=True) if x not in others)


def _letters(formula: str) -> tuple[str, str, str]:
    sides, out = formula.split("->")
    first, second = sides.split(",")
    return first, second, out
