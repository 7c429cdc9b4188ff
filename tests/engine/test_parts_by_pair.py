"""An array by pair in a mask or score mod is as narrow outside the kernel as it was given."""

import jax
import jax.numpy as jnp
import pytest

from attn_jax import masks, score_mods
from attn_jax._base import tables
from attn_jax._base.axes import Axes, unmapped
from attn_jax._engine.rules import split
from tests.helpers.tolerance import assert_equal

T, S = 5, 7
BIAS = jax.random.normal(jax.random.key(0), (T, S))
NARROW = BIAS.astype(jnp.bfloat16)
RULES = {
    "bfloat16": (score_mods.as_pytree(score_mods.dense_bias(NARROW), jnp.float32), NARROW),
    "float32": (score_mods.as_pytree(score_mods.dense_bias(BIAS), jnp.float32), BIAS),
    "int8": (masks.as_pytree(masks.from_array(BIAS > 0)), (BIAS > 0).astype(jnp.int8)),
}


@pytest.mark.parametrize("dtype", RULES)
def test_an_array_by_pair_keeps_its_width_and_a_mask_takes_bytes(dtype):
    rule, array = RULES[dtype]
    rule = tables.order(rule, tables.Rows(T, S))
    takes_logit = dtype != "int8"
    cut = split(rule, unmapped(rule), name="rule", takes_logit=takes_logit, in_order=True)
    assert [(part.kind, part.dtype) for part in cut.code.parts] == [("pair", dtype)]
    positions = jnp.arange(T), jnp.arange(S)
    (found,) = cut.outside(rule, *positions, (Axes(), Axes()), jnp.arange(-S, T), ())
    assert_equal(found, array)
    assert jnp.dtype(cut.code.parts[0].dtype_on_tile).itemsize == 4
