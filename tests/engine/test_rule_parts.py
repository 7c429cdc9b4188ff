"""What a rule computes outside a kernel, in which dtype, and whether it is finite inside."""

import jax.numpy as jnp
import pytest

from attn_jax import masks, score_mods
from attn_jax._base import tables
from attn_jax._base.axes import unmapped
from attn_jax._engine.rules import split

WEIGHT = jnp.linspace(0.5, 2.0, 7)
FINITE = {
    "alibi": score_mods.alibi(0.5),
    "soft cap": score_mods.soft_cap(3.0),
    "alibi, then a soft cap": score_mods.alibi(0.5) >> score_mods.soft_cap(3.0),
    "a bias of distances": score_mods.relative_bias(WEIGHT[:4], bidirectional=False),
    "a bias of pairs": score_mods.dense_bias(WEIGHT[:, None] * WEIGHT[None, :]),
    "a choice": lambda logit, i, j: jnp.where(i > j, logit, 2 * logit),
}
PERHAPS_INFINITE = {
    "a root": lambda logit, i, j: logit - jnp.sqrt((i - j).astype(jnp.float32)),
    "an exponential": lambda logit, i, j: jnp.exp(logit),
    "a factor that may be infinite": lambda logit, i, j: logit * WEIGHT[i],
    "a division by the logit": lambda logit, i, j: 1 / logit,
    "a soft cap of a bias": score_mods.dense_bias(WEIGHT[:, None] * WEIGHT[None, :])
    >> score_mods.soft_cap(3.0),
}


def code_of(score_mod, T=7):
    traced = tables.order(score_mods.as_pytree(score_mod, jnp.float32), tables.Rows(T, T))
    own = unmapped(traced)
    return split(traced, own, name="score_mod", takes_logit=True, in_order=True).code


@pytest.mark.parametrize("score_mod", FINITE.values(), ids=FINITE)
def test_a_score_mod_without_singularities_is_finite_everywhere(score_mod):
    assert code_of(score_mod).is_finite_everywhere


@pytest.mark.parametrize("score_mod", PERHAPS_INFINITE.values(), ids=PERHAPS_INFINITE)
def test_a_score_mod_that_may_be_infinite_at_a_masked_pair_is_not_finite(score_mod):
    assert not code_of(score_mod).is_finite_everywhere


@pytest.mark.parametrize(
    ("dtype", "in_memory"), [(jnp.float32, "float32"), (jnp.bfloat16, "bfloat16")]
)
def test_a_table_of_pairs_keeps_its_dtype_in_memory(dtype, in_memory):
    (part,) = code_of(score_mods.dense_bias(jnp.ones((7, 7), dtype))).parts
    assert (part.kind, part.dtype, part.dtype_on_tile) == ("pair", in_memory, "float32")


def test_a_boolean_table_of_pairs_takes_a_byte_a_pair():
    mask = tables.order(
        masks.as_pytree(masks.from_array(jnp.eye(7, dtype=bool))), tables.Rows(7, 7)
    )
    cut = split(mask, unmapped(mask), name="mask", takes_logit=False, in_order=True)
    (part,) = cut.code.parts
    assert (part.kind, part.dtype, part.dtype_on_tile) == ("pair", "int8", "int32")


def test_what_depends_on_one_side_and_an_array_is_one_vector():
    def score_mod(logit, i, j):
        return logit + jnp.cos(WEIGHT[j] * 2) * WEIGHT[i]

    parts = code_of(score_mod).parts
    assert sorted(part.kind for part in parts) == ["key", "query"]
