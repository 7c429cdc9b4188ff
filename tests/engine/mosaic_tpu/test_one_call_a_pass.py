"""All heads and examples are one `pallas_call` a pass, and XLA writes no array of all pairs."""

import math

import jax
import jax.numpy as jnp
import pytest

import attn_jax
from attn_jax import masks, score_mods
from attn_jax._base.young_jax import Target
from tests.helpers.draws import draw
from tests.helpers.primitives import primitives

B, T, N, H, V = 3, 1100, 2, 8, 5
pytestmark = pytest.mark.usefixtures("interpreted")


def calls_and_sizes(jaxpr) -> tuple[int, int]:
    """How many Pallas calls a program has, and the size of its greatest array outside of them."""
    calls, greatest = 0, 0
    for eqn in jaxpr.eqns:
        greatest = max(greatest, *(math.prod(x.aval.shape) for x in (*eqn.invars, *eqn.outvars)))
        if eqn.primitive.name == "pallas_call":
            calls += 1
            continue
        for value in jax.tree.leaves(list(eqn.params.values())):
            inner = value if hasattr(value, "eqns") else getattr(value, "jaxpr", None)
            if inner is not None:
                found = calls_and_sizes(inner)
                calls, greatest = calls + found[0], max(greatest, found[1])
    return calls, greatest


HERE = Target("cpu", is_divided=False)


def passes(function, *arrays) -> list[tuple[str, int, int]]:
    """Each operation of a program by name, with its Pallas calls and its greatest array."""
    found = []
    for operation in primitives(jax.make_jaxpr(function)(*arrays).jaxpr):
        jaxpr = jax.make_jaxpr(lambda *args, of=operation: of.on(HERE, *args))(*operation.in_avals)
        found.append((type(operation).__name__, *calls_and_sizes(jaxpr.jaxpr)))
    return found


def loss(score_mod, documents, query, key, value, learned):
    """The sum of the outputs of all heads and examples, by `vmap`."""

    def head(query, key, value, learned, ids):
        return attn_jax.attend(
            query,
            key,
            value,
            mask=masks.causal() & masks.segments(ids),
            score_mod=score_mod(learned),
            implementation="mosaic_tpu",
        )

    heads = jax.vmap(head, (1, 1, 1, 0, None), 1)
    return jnp.sum(jax.vmap(heads, (0, 0, 0, None, 0))(query, key, value, learned, documents))


def gradients(score_mod, *learned_shape):
    arrays = draw(0, (B, T, N, H), (B, T, N, H), (B, T, N, V), learned_shape, dtype=jnp.float32)
    documents = jnp.cumsum(jnp.asarray(draw(1, (B, T), dtype=jnp.float32)[0] > 2, jnp.int32), 1)

    def gradient(*arrays):
        return jax.grad(lambda *args: loss(score_mod, documents, *args), (0, 1, 2, 3))(*arrays)

    return passes(gradient, *arrays)


def test_slopes_per_head_and_documents_per_example_are_one_call_forward_and_two_backward():
    (forward, *of_forward), (backward, *of_backward) = gradients(score_mods.alibi, N)
    assert (forward, backward) == ("_Attention", "_Vjp")
    assert [of_forward[0], of_backward[0]] == [1, 2]
    assert max(of_forward[1], of_backward[1]) < T * T


def test_a_trained_dense_bias_is_one_more_call():
    (_, forward, _), (_, backward, _) = gradients(score_mods.dense_bias, N, T, T)
    assert [forward, backward] == [1, 3]


def test_the_greatest_array_is_seen():
    assert all(
        greatest >= N * T * T for _, _, greatest in gradients(score_mods.dense_bias, N, T, T)
    )
