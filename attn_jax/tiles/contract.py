"""Matrix products that stay fast in every derivative.

JAX differentiates `einsum(bfloat16, bfloat16) -> float32` into products of a float32 cotangent with
a bfloat16 operand, which no hardware multiplies fast. Here the derivative of a contraction is a
contraction: operands are rounded, sums and cotangents stay wide, whatever the order. And a product
that sums over the first axis of both operands, as derivatives by keys and values do, is written so
that XLA's matrix routines for CPUs take it: twice as fast.
"""

import functools
import math
import string

import jax
import jax.numpy as jnp
from jax.experimental import hijax
from jaxtyping import Array, DTypeLike, Float

from attn_jax import _known, _numerics
from attn_jax._primitive import Primitive
from attn_jax._sharding import types, vary_alike


def contract(
    formula: str,
    first: Float[Array, "..."],
    second: Float[Array, "..."],
    dtype: DTypeLike,
    precision: str | None = None,
) -> Float[Array, "..."]:
    """`einsum(formula, first, second)` with operands in `dtype`, summed in float32 or wider.

    `precision` is the name of JAX's, for this product and those of its derivatives.
    """
    first, second = vary_alike((first, second))
    how = formula, jnp.dtype(dtype), precision
    return _Contraction(*how, jax.typeof(first), jax.typeof(second))(first, second)


class _Contraction(Primitive):
    """One pair product `"ab,cb->ac"`, bilinear; every letter of a side occurs on another."""

    formula: str
    dtype: jnp.dtype
    precision: str | None

    def __init__(self, formula: str, dtype: jnp.dtype, precision: str | None, first, second):
        self.in_avals = (first, second)
        self.params = {"formula": formula, "dtype": dtype, "precision": precision}
        out = jax.eval_shape(lambda a, b: _einsum(formula, a, b, dtype, precision), first, second)
        self.out_aval = types(out, first)
        super().__init__()

    def expand(self, *args):
        first, second = args
        return _einsum(self.formula, first, second, self.dtype, self.precision)

    def jvp(self, primals, tangents):
        (first, second), (d_first, d_second) = primals, tangents
        terms = []
        if not isinstance(d_first, hijax.Zero):
            terms.append(contract(self.formula, d_first, second, self.dtype, self.precision))
        if not isinstance(d_second, hijax.Zero):
            terms.append(contract(self.formula, first, d_second, self.dtype, self.precision))
        return self(first, second), sum(terms[1:], terms[0])

    lin, linearized = hijax.linearize_from_jvp

    def vjp_fwd(self, nzs_in, /, *args):
        return self(*args), args

    def vjp_bwd_retval(self, res, outgrad, /):
        first, second = res
        return self._by_first(outgrad, second), self._by_second(first, outgrad)

    def transpose(self, out_ct, *maybe_accums):
        first, second = maybe_accums
        if isinstance(first, hijax.GradAccum):
            first.accum(self._by_first(out_ct, second))
        else:
            second.accum(self._by_second(first, out_ct))

    def _by_first(self, cotangent, second):
        first, other, out = _letters(self.formula)
        gradient = contract(
            f"{out},{other}->{first}", cotangent, second, self.dtype, self.precision
        )
        return gradient.astype(self.in_avals[0].dtype)

    def _by_second(self, first, cotangent):
        one, other, out = _letters(self.formula)
        gradient = contract(f"{out},{one}->{other}", cotangent, first, self.dtype, self.precision)
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
            array if axis is None else jnp.moveaxis(array, axis, 0)
            for array, axis in zip(args, dims, strict=True)
        )
        formula = f"{mapped[0]},{mapped[1]}->{letter}{out}"
        return contract(formula, first, second, self.dtype, self.precision), 0


def _einsum(formula, first, second, dtype, precision):
    first, second = first.astype(dtype), second.astype(dtype)
    one, other, out = _letters(formula)
    sums = set(one) & set(other) - set(out)
    product = functools.partial(
        jnp.einsum,
        precision=precision,
        preferred_element_type=_numerics.accumulation_dtype(dtype),
    )
    if len(sums) > 1 or not sums.isdisjoint((one[-1], other[-1])):
        return product(formula, first, second)
    own, others = _own_size(one, other, first.shape), _own_size(other, one, second.shape)
    if _known.are_numbers(own, others) and own < others:
        one, other, first, second = other, one, second, first
    # Barriers keep XLA from folding the two transpositions, of little, into the product of much.
    (summed,) = sums
    turned = other.replace(summed, "") + summed
    batch = "".join(letter for letter in out if letter in one and letter in other)
    result = batch + "".join(x for x in other + one if x in out and x not in batch)
    second = jax.lax.optimization_barrier(jnp.einsum(f"{other}->{turned}", second))
    done = jax.lax.optimization_barrier(product(f"{turned},{one}->{result}", second, first))
    return jnp.einsum(f"{result}->{out}", done)


def _own_size(letters: str, others: str, shape: tuple[int, ...]) -> int:
    """The product of the sizes of the axes that the other operand does not have."""
    return math.prod(n for x, n in zip(letters, shape, strict=True) if x not in others)


def _letters(formula: str) -> tuple[str, str, str]:
    sides, out = formula.split("->")
    first, second = sides.split(",")
    return first, second, out
