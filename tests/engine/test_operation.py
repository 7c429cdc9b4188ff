"""Attention is one operation under vmap, gradients and jax.checkpoint, lowered by platform."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn_jax
from attn_jax import masks, score_mods
from tests.helpers.draws import draw
from tests.helpers.primitives import primitives
from tests.helpers.tolerance import assert_close, assert_equal

B, T, S, N, K, H, V = 2, 5, 7, 6, 3, 4, 8
ATTEND = partial(attn_jax.attend, implementation="blockwise")
HEADS = partial(attn_jax.dot_product_attention, implementation="blockwise")


def made_by(function, *arrays) -> list:
    return primitives(jax.make_jaxpr(function)(*arrays).jaxpr)


def named(ops: list, name: str) -> list:
    return [op for op in ops if type(op).__name__ == name]


def loss(attention, *arrays):
    return jnp.sum(jnp.sin(attention(*arrays)))


def grouped():
    return draw(0, (B, T, N, H), (B, S, K, H), (B, S, K, V), dtype=jnp.float32)


def by_hand(query, key, value):
    """Grouped heads as three `vmap`s of one head, without repeated keys."""
    query = query.reshape(B, T, K, N // K, H)
    group = jax.vmap(ATTEND, in_axes=(1, None, None), out_axes=1)
    heads = jax.vmap(group, in_axes=(1, 1, 1), out_axes=1)
    return jax.vmap(heads)(query, key, value).reshape(B, T, N, V)


def test_many_heads_are_the_operation_that_vmap_makes_of_one():
    arrays = grouped()
    (mapped,), (heads,) = made_by(by_hand, *arrays), made_by(HEADS, *arrays)
    assert mapped == heads
    assert heads.sizes == (N // K, K, B)
    assert_equal(by_hand(*arrays), HEADS(*arrays))


def test_another_order_of_batch_and_head_axes_is_another_operation():
    arrays = grouped()
    outer = jax.vmap(by_hand)
    repeated = [jnp.stack([array, array]) for array in arrays]
    (deeper,) = made_by(outer, *repeated)
    assert deeper.sizes == (N // K, K, B, 2)
    assert deeper != made_by(HEADS, *arrays)[0]


@pytest.mark.parametrize("argnums", [(0,), (1,), (0, 2), (0, 1, 2)])
def test_only_gradients_that_are_wanted_are_computed(argnums):
    arrays = draw(1, (T, H), (S, H), (S, V), dtype=jnp.float32)
    gradient = jax.grad(partial(loss, ATTEND), argnums=argnums)
    (op,) = named(made_by(gradient, *arrays), "_Vjp")
    assert [n for n, wanted in enumerate(op.wanted) if wanted] == list(argnums)
    every = jax.grad(partial(loss, ATTEND), argnums=(0, 1, 2))(*arrays)
    for n, ours in zip(argnums, gradient(*arrays), strict=True):
        assert_close(ours, every[n], gradient=True)


def test_a_wanted_gradient_of_a_captured_array_is_computed_alone():
    arrays = draw(2, (T, H), (T, H), (T, V), dtype=jnp.float32)

    def by_slope(slope):
        return loss(partial(ATTEND, score_mod=score_mods.alibi(slope)), *arrays)

    (op,) = named(made_by(jax.grad(by_slope), jnp.float32(0.5)), "_Vjp")
    assert sum(op.wanted) == 1
    step = 1e-2
    slope = (by_slope(0.5 + step) - by_slope(0.5 - step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(by_slope)(0.5), slope, rtol=1e-2)


def lowered(platform: str, length: int) -> str:
    arrays = [jax.ShapeDtypeStruct((B, length, 8, 16), jnp.float32)] * 3
    both = jax.value_and_grad(partial(loss, partial(HEADS, is_causal=True)), argnums=(0, 1, 2))
    return jax.jit(both).trace(*arrays).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_each_platform_gets_its_own_tiles(platform):
    """64 MiB of logits: a loop on a CPU, one matmul elsewhere; 2 GiB: a loop everywhere."""
    assert "stablehlo.while" in lowered("cpu", 1024)
    assert "stablehlo.while" not in lowered(platform, 1024)
    assert "stablehlo.while" in lowered(platform, 8192)


def test_a_program_for_two_platforms_has_both():
    arrays = [jax.ShapeDtypeStruct((B, 1024, 8, 16), jnp.float32)] * 3
    exported = jax.export.export(jax.jit(HEADS), platforms=("cpu", "tpu"))(*arrays)
    assert exported.platforms == ("cpu", "tpu")
    assert "stablehlo.while" in exported.mlir_module()
    drawn = draw(3, *[(B, 1024, 8, 16)] * 3, dtype=jnp.float32)
    assert_close(exported.call(*drawn), HEADS(*drawn))


NAMES = jax.checkpoint_policies.save_only_these_names("attention_out", "attention_logsumexp")
NOTHING = jax.checkpoint_policies.nothing_saveable


@pytest.mark.parametrize(("policy", "runs"), [(NAMES, 1), (NOTHING, 2)], ids=["names", "nothing"])
def test_a_checkpoint_policy_that_saves_the_named_results_computes_them_once(policy, runs):
    arrays = draw(4, (T, H), (T, H), (T, V), dtype=jnp.float32)
    attention = partial(ATTEND, mask=masks.causal())
    kept = jax.checkpoint(lambda *rows: attention(*(jnp.cos(row) for row in rows)), policy=policy)
    gradient = jax.grad(partial(loss, kept), argnums=(0, 1, 2))
    assert len(named(made_by(gradient, *arrays), "_Attention")) == runs
    plain = jax.grad(
        lambda *rows: loss(attention, *(jnp.cos(row) for row in rows)), argnums=(0, 1, 2)
    )
    for ours, wanted in zip(gradient(*arrays), plain(*arrays), strict=True):
        assert_close(ours, wanted, gradient=True)


def test_the_gradient_of_a_cotangent_is_transposed():
    """The backward pass is linear in its cotangent, so it can be transposed."""
    *arrays, cotangent = draw(5, (T, H), (S, H), (S, V), (T, V), dtype=jnp.float32)
    _, pull = jax.vjp(ATTEND, *arrays)
    transposed = jax.linear_transpose(pull, cotangent)
    tangents = draw(6, (T, H), (S, H), (S, V), dtype=jnp.float32)
    _, pushed = jax.jvp(ATTEND, tuple(arrays), tuple(tangents))
    assert_close(transposed(tuple(tangents))[0], pushed, gradient=True)


def test_a_tangent_that_examples_share_gets_the_sum_of_their_cotangents():
    """Each example has its own keys and all share one tangent: the transpose sums over examples."""
    query, key, value = draw(7, (T, H), (B, S, H), (S, V), dtype=jnp.float32)
    (cotangent,) = draw(8, (B, T, V), dtype=jnp.float32)

    def tangents(tangent):
        def one(key):
            return jax.jvp(lambda key: ATTEND(query, key, value), (key,), (tangent,))[1]

        return jax.vmap(one)(key)

    (ours,) = jax.linear_transpose(tangents, key[0])(cotangent)
    each = jax.vmap(lambda key, c: jax.vjp(lambda k: ATTEND(query, k, value), key)[1](c)[0])
    assert_close(ours, each(key, cotangent).sum(axis=0), gradient=True)
