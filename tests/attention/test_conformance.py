"""Every implementation has the output and gradients of the oracle on every named case."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn_jax
from tests.helpers import oracle
from tests.helpers.cases import CASES, IMPLEMENTATIONS, ROUNDINGS, in_dtype
from tests.helpers.tolerance import assert_close, assert_differs

every_implementation = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)


def call(case, dtype, implementation, seed=0):
    """The attention function of a case, its arrays (query, key, value, bias) and a cotangent."""
    options = {name: in_dtype(option, dtype) for name, option in case.options.items()}
    *arrays, cotangent = (jnp.asarray(array, dtype) for array in case.operands(seed))
    if "bias" in options:
        arrays.append(options.pop("bias"))
    attention = partial(attn_jax.dot_product_attention, implementation=implementation, **options)
    return attention, arrays, cotangent


def exact(case, arrays):
    """Float64 inputs for the oracle, equal to those of the call after rounding to its dtype."""
    names = ("query", "key", "value", "bias")[: len(arrays)]
    seen = [np.asarray(array).astype(np.float64) for array in arrays]
    return case.options | dict(zip(names, seen, strict=True))


def check(case, dtype, implementation):
    """Output and gradients of a case against the oracle, by the tolerance of the dtype."""
    attention, arrays, cotangent = call(case, dtype, implementation)

    @jax.jit
    def output_and_gradients(arrays, cotangent):
        out, transpose = jax.vjp(attention, *arrays)
        return out, transpose(cotangent)

    with jax.default_matmul_precision("highest"):
        out, gradients = output_and_gradients(arrays, cotangent)
    inputs, cotangent = exact(case, arrays), np.asarray(cotangent).astype(np.float64)
    tolerated = partial(assert_close, dtype=dtype, roundings=ROUNDINGS[implementation])
    tolerated(out, oracle.multi_head(**inputs))
    if case.options:  # each option must change the output
        plain = {name: inputs[name] for name in ("query", "key", "value")}
        assert_differs(out, oracle.multi_head(**plain))
    expected = oracle.multi_head_gradients(cotangent=cotangent, **inputs)
    for ours, wanted in zip(gradients, expected, strict=True):
        tolerated(ours, wanted, gradient=True)


@every_implementation
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.usefixtures("x64")
def test_in_float64_output_and_gradients_are_the_oracles(case, implementation):
    check(case, jnp.float64, implementation)


@every_implementation
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("name", ["plain", "everything", "bias for heads and keys", "one key head"])
def test_smaller_dtypes_round_only_at_the_end(name, dtype, implementation):
    check(CASES[name], dtype, implementation)
