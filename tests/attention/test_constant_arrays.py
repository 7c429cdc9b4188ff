"""Large constant masks and biases are not folded by XLA at compile time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn_jax
from attn_jax import masks, score_mods
from attn_jax._base import concrete
from tests.helpers.tolerance import assert_equal

T = S = 256  # enough pairs for a large array
MASK = np.random.default_rng(0).random((T, S)) < 0.7
ARRAY, BIAS = jnp.asarray(MASK), jnp.asarray(MASK, jnp.float32)
OF_HEADS, BIAS_OF_HEADS = ARRAY[None, None], BIAS[None, None]
BLOCK = attn_jax.block_mask(masks.from_array(ARRAY), T, S, tile=(64, 32))
X = jnp.asarray(np.random.default_rng(1).normal(size=(T, 3)), jnp.float32)


def heads(x, **options):
    x = x[None, :, None, :]
    return attn_jax.dot_product_attention(x, x, x, **options)


CALLS = {
    "array": lambda x: attn_jax.attend(x, x, x, mask=ARRAY),
    "array of NumPy": lambda x: attn_jax.attend(x, x, x, mask=MASK),
    "rule that looks up": lambda x: attn_jax.attend(x, x, x, mask=masks.from_array(ARRAY)),
    "function that looks up": lambda x: attn_jax.attend(x, x, x, mask=lambda i, j: ARRAY[i, j]),
    "bias by row": lambda x: attn_jax.attend(x, x, x, score_mod=score_mods.dense_bias(BIAS)),
    "block mask": lambda x: attn_jax.attend(x, x, x, mask=BLOCK),
    "weights": lambda x: attn_jax.attention_weights(x, x, mask=ARRAY),
    "array of heads": lambda x: heads(x, mask=OF_HEADS),
    "bias of heads": lambda x: heads(x, bias=BIAS_OF_HEADS),
    "rule of heads": lambda x: heads(x, mask=masks.causal() & masks.from_array(ARRAY)),
}


def uses_of_large_constants(jaxpr) -> list[str]:
    """The primitives with a constant operand of at least `T` · `S` entries."""
    found = []
    for eqn in jaxpr.eqns:
        for operand in eqn.invars:
            if operand in jaxpr.constvars and operand.aval.size >= T * S:
                found.append(eqn.primitive.name)
        for inner in jax.tree.leaves(list(eqn.params.values())):
            if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                found.extend(uses_of_large_constants(getattr(inner, "jaxpr", inner)))
    return found


@pytest.mark.parametrize("name", CALLS)
def test_large_constants_beside_a_tracer_pass_a_barrier_first(name, no_type_hook):
    for function in (CALLS[name], jax.grad(lambda x: CALLS[name](x).sum())):
        uses = uses_of_large_constants(jax.make_jaxpr(function)(X))
        assert "optimization_barrier" in uses
        assert set(uses) <= {"optimization_barrier"}


def test_a_mask_that_is_made_of_a_constant_passes_a_barrier():
    for function in (
        lambda x: attn_jax.attend(x, x, x, mask=ARRAY & ARRAY.T),
        lambda x: heads(x, mask=ARRAY[None, None]),
    ):
        jaxpr = jax.make_jaxpr(function)(X)
        assert "optimization_barrier" in [eqn.primitive.name for eqn in jaxpr.eqns]


def test_nothing_passes_a_barrier_beside_known_arrays_or_where_it_is_small():
    assert concrete.at_run_time(ARRAY, beside=X) is ARRAY
    jaxpr = jax.make_jaxpr(lambda x: attn_jax.attend(x, x, x, mask=ARRAY[:9, :9]))(X[:9])
    assert "optimization_barrier" not in [eqn.primitive.name for eqn in jaxpr.eqns]


def test_xla_indexes_at_run_time_behind_the_barrier_and_at_compile_time_without(monkeypatch):
    order = jnp.asarray(np.random.default_rng(2).permutation(9), jnp.int32)
    options = {"mask": masks.from_array(ARRAY[:9, :9]), "query_row": order}
    x, lookups, outs = X[:9], [], []
    for large in (4, 10**9):
        monkeypatch.setattr(concrete, "_LARGE", large)
        program = jax.jit(lambda x: attn_jax.attend(x, x, x, key_row=order, **options))
        lookups.append(program.lower(x).compile().as_text().count(" gather("))
        outs.append(program(x))
    assert lookups[0] > lookups[1]
    assert_equal(*outs)
