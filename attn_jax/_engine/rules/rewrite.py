"""Rewrites a function of tiles in the operations that Mosaic TPU has, and refuses the others.

tests/programs/compile_rules_for_tpu.py compiles each operation named here.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from attn_jax._base import young_jax
from attn_jax._engine.rules import formulas
from attn_jax._engine.rules.program import (
    CALLS,
    WITH_DERIVATIVES,
    Refused,
    call_inner,
    evaluate,
    inlined,
    inner_programs,
    type_of,
)

_ARITHMETIC = (
    "add sub mul div rem neg abs sign max min clamp floor ceil round square integer_pow pow "
    "reduce_precision"
)
_FUNCTIONS = "exp exp2 log log2 log1p tanh logistic sin cos tan atan2 sqrt rsqrt erf"
_BITS = "and or xor not shift_left shift_right_arithmetic shift_right_logical population_count clz"
_CHOICES = "eq ne lt le gt ge select_n convert_element_type bitcast_convert_type stop_gradient"
# The sums are in derivatives of values that a tile repeats.
_SHAPES = "broadcast_in_dim reshape squeeze reduce_sum"
TAKEN = frozenset(" ".join((_ARITHMETIC, _FUNCTIONS, _BITS, _CHOICES, _SHAPES)).split(" "))
FORMULAS: dict[str, Callable] = {
    "add_any": jax.lax.add,
    "one_minus_square": lambda x: (1 + x) * (1 - x),
    "polynomial": lambda x, *coefficients: formulas.polynomial(x, coefficients),
    "copy": lambda x: x,
    "is_finite": formulas.is_finite,
    "expm1": formulas.expm1,
    "sinh": formulas.sinh,
    "cosh": formulas.cosh,
    "asinh": formulas.asinh,
    "acosh": formulas.acosh,
    "atanh": formulas.atanh,
    "asin": formulas.asin,
    "acos": formulas.acos,
    "atan": formulas.atan,
    "cbrt": formulas.cbrt,
    "erfc": formulas.erfc,
}
OF_BOOLEANS: dict[str, Callable] = {"max": jax.lax.bitwise_or, "min": jax.lax.bitwise_and}
_DTYPES = frozenset({"float32", "int32", "uint32", "bool"})
_LACKING = frozenset({("clamp", "bool"), ("reduce_sum", "uint32")})
_INLINED = CALLS | WITH_DERIVATIVES


def rewritten(function: Callable) -> Callable:
    """The same function of 2-D tiles, in operations that Mosaic TPU has.

    Derivatives must be taken inside of `function`: inner programs, those of functions with
    derivative rules of their own included, are written out.

    Raises:
      Refused: there is an operation, a dtype or a rank that Mosaic TPU lacks.
    """

    def of_tiles(*arrays: Any) -> Any:
        traced, results = jax.make_jaxpr(function, return_shape=True)(*arrays)
        values = evaluate(traced.jaxpr, [*traced.consts, *jax.tree.leaves(arrays)], _apply)
        return jax.tree.unflatten(jax.tree.structure(results), values)

    return of_tiles


def check(function: Callable, types: list[jax.ShapeDtypeStruct]) -> None:
    """Checks that `rewritten` takes a function and its derivative by its floating point arrays.

    Raises:
      Refused: it does not, or the function has no derivative.
    """
    floats = [n for n, x in enumerate(types) if jnp.issubdtype(x.dtype, jnp.floating)]

    def derivative(*arrays: Array) -> Any:
        def of_floats(*given: Array) -> Array:
            others = list(arrays)
            for n, array in zip(floats, given, strict=True):
                others[n] = array
            return function(*others)

        result, pull = jax.vjp(of_floats, *(arrays[n] for n in floats))
        return result, pull(result)

    result = jax.eval_shape(function, *types)
    is_float = jnp.issubdtype(result.dtype, jnp.floating)
    try:
        traced = inlined(derivative if is_float and floats else function, types, _INLINED)
    except Exception as error:  # a rule for derivatives is any function of a user, and may raise
        raise Refused(f"has no derivative ({error})") from error
    for eqn in traced.jaxpr.eqns:
        reason = refusal(eqn)
        if reason is not None:
            raise Refused(reason)


def refusal(eqn: young_jax.JaxprEqn) -> str | None:
    """Why Mosaic TPU cannot compute an equation of scalars or of tiles; None where it can."""
    name = eqn.primitive.name
    if name in _INLINED or name == "cond":
        inner = (refusal(one) for program in inner_programs(eqn) for one in program.jaxpr.eqns)
        return next((reason for reason in inner if reason is not None), None)
    if name not in TAKEN and name not in FORMULAS:
        return f"uses {name}, which the TPU kernel has not"
    if not isinstance(eqn.params.get("accuracy"), jax.lax.AccuracyMode | None):
        return f"uses {name} of a chosen tolerance, which the TPU kernel has not"
    for x in (*eqn.invars, *eqn.outvars):
        dtype, shape = str(type_of(x).dtype), type_of(x).shape
        if dtype not in _DTYPES or (name, dtype) in _LACKING:
            return f"uses {name} of dtype {dtype}, which the TPU kernel has not"
        if len(shape) > 2:
            return f"uses {name} of shape {list(shape)}, which the TPU kernel has not"
    return None


def _apply(eqn: young_jax.JaxprEqn, compute: Callable, operands: list) -> list:
    name = eqn.primitive.name
    if name in _INLINED:
        return call_inner(eqn, operands, _apply)
    reason = refusal(eqn)
    if reason is not None or name == "cond":
        raise Refused(reason or "uses cond, which the TPU kernel has not")
    result = type_of(eqn.outvars[0])
    if name in FORMULAS:
        return [FORMULAS[name](*(_full(x, result.shape) for x in operands))]
    if name in OF_BOOLEANS and result.dtype == jnp.bool_:
        return [OF_BOOLEANS[name](*(_full(x, result.shape) for x in operands))]
    if name == "select_n" and len(operands) > 3:
        return [_select(operands[0], operands[1:])]
    if eqn.params.get("accuracy") is not None:  # Mosaic TPU has one accuracy, its highest
        return [eqn.primitive.bind(*operands, **{**eqn.params, "accuracy": None})]
    return compute(*operands)


def _select(which: Array, cases: list[Array]) -> Array:
    """`select_n` of many cases, by selections between two."""
    result = cases[-1]
    for n, case in reversed(list(enumerate(cases[:-1]))):
        is_case = jax.lax.le(which, jax.lax.full_like(which, n))
        result = jax.lax.select(is_case, case, result)
    return result


def _full(operand: Any, shape: tuple[int, ...]) -> Array:
    """An operand in full shape, where a constant is a scalar."""
    return operand if jnp.shape(operand) == shape else jax.lax.full(shape, operand)
