"""`blockwise`: the same numbers for every tile shape, derivatives of every order, linear memory."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn_jax
from attn_jax import masks, scores
from tests.attention.test_conformance import check
from tests.helpers.cases import CASES
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_close, assert_differs, assert_equal

T, S, H, V, A = 11, 13, 4, 3, 5
SHAPES = [(1, 1), (2, 3), (4, 13), (11, 5), (16, 16)]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.usefixtures("x64")
def test_many_small_tiles_give_the_oracles_output_and_gradients(case, tiles):
    tiles(2, 3)
    check(case, jnp.float64, "blockwise")


def everything(implementation, query, key, value, v, slope, table):
    """An attention call whose score, score_mod and mask capture arrays."""
    return attn_jax.attend_with_logsumexp(
        query,
        key,
        value,
        score=partial(scores.additive, out_kernel=v),
        score_mod=lambda logit, i, j: (
            jnp.tanh(logit) - slope * (i - j).astype(float) ** 2 / 50 + table[i - j + S]
        ),
        mask=masks.causal() | (lambda i, j: (i + j) % 3 == 0),
        query_position=jnp.arange(S - T, S),
        key_position=jnp.arange(S),
        implementation=implementation,
    )


def operands(seed=0):
    return draw(seed, (T, A), (S, A), (S, V), (A,), (), (2 * S,))


def loss(implementation, *arrays):
    out, logsumexp = everything(implementation, *arrays)
    return jnp.sum(jnp.sin(out)) + jnp.sum(jnp.cos(logsumexp))


ARGUMENTS = tuple(range(6))
DERIVATIVES = {
    "value": lambda f, x, dx: f(*x),
    "gradient": lambda f, x, dx: jax.grad(f, ARGUMENTS)(*x),
    "directional": lambda f, x, dx: jax.jvp(f, x, dx),
    "linearised": lambda f, x, dx: jax.linearize(f, *x)[1](*dx),
    "forward over reverse": lambda f, x, dx: jax.jvp(jax.grad(f, ARGUMENTS), x, dx),
    "reverse over forward": lambda f, x, dx: jax.grad(lambda *x: jax.jvp(f, x, dx)[1], ARGUMENTS)(
        *x
    ),
    "reverse over reverse": lambda f, x, dx: jax.grad(
        lambda *x: sum(jnp.sum(jnp.sin(g)) for g in jax.grad(f, ARGUMENTS)(*x)), ARGUMENTS
    )(*x),
    "under remat": lambda f, x, dx: jax.grad(jax.checkpoint(f), ARGUMENTS)(*x),
}


@pytest.mark.parametrize("derivative", DERIVATIVES.values(), ids=DERIVATIVES)
@pytest.mark.usefixtures("x64")
def test_derivatives_of_every_order_are_the_references(derivative, tiles):
    tiles(4, 5)
    arrays, tangents = tuple(operands(1)), tuple(operands(2))
    ours, wanted = (
        jax.jit(partial(derivative, partial(loss, name)))(arrays, tangents)
        for name in ("blockwise", "reference")
    )
    for got, expected in zip(jax.tree.leaves(ours), jax.tree.leaves(wanted), strict=True):
        assert jnp.max(jnp.abs(expected)) > 1e-3
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-11 * jnp.max(jnp.abs(expected)))


@pytest.mark.parametrize("mapped", [(0, 0, 0), (0, None, None), (None, 0, None), (None, None, 0)])
@pytest.mark.usefixtures("x64")
def test_gradients_of_arrays_that_a_batch_shares_are_sums_over_it(mapped, tiles):
    tiles(4, 5)
    arrays = draw(3, (2, T, H), (2, S, H), (2, S, V))
    arrays = [a if axis == 0 else a[0] for a, axis in zip(arrays, mapped, strict=True)]

    def total(implementation, *arrays):
        attention = partial(attn_jax.attend, implementation=implementation)
        return jnp.sum(jnp.sin(jax.vmap(attention, in_axes=mapped)(*arrays)))

    ours, wanted = (
        jax.grad(partial(total, name), (0, 1, 2))(*arrays) for name in ("blockwise", "reference")
    )
    for got, expected in zip(ours, wanted, strict=True):
        assert_close(got, expected, gradient=True)


@pytest.mark.usefixtures("x64")
def test_the_gradient_of_a_scan_of_calls_is_that_of_reference(tiles):
    tiles(4, 5)
    query, key, value, back = draw(4, (T, H), (S, H), (S, V), (V, H))

    def chain(implementation, query, key, value):
        def step(query, _):
            return attn_jax.attend(query, key, value, implementation=implementation) @ back, None

        return jnp.sum(jax.lax.scan(jax.checkpoint(step), query, None, length=3)[0] ** 2)

    ours, wanted = (
        jax.grad(partial(chain, name), (0, 1, 2))(query, key, value)
        for name in ("blockwise", "reference")
    )
    for got, expected in zip(ours, wanted, strict=True):
        assert_close(got, expected, gradient=True)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.usefixtures("x64")
def test_the_shape_of_tiles_changes_nothing(shape, tiles):
    arrays = operands(5)
    wanted = everything("reference", *arrays)
    tiles(*shape)
    for got, expected in zip(everything("blockwise", *arrays), wanted, strict=True):
        assert_close(got, expected)


def test_a_score_mod_is_never_evaluated_at_masked_pairs(tiles):
    tiles(4, 5)
    query, key, value = draw(6, (T, H), (T, H), (T, V), dtype=jnp.float32)

    def total(implementation, slope):
        out = attn_jax.attend(
            query,
            key,
            value,
            mask=masks.causal(),
            score_mod=lambda logit, i, j: logit - slope * jnp.sqrt((i - j).astype(logit.dtype)),
            implementation=implementation,
        )
        return jnp.sum(jnp.square(out))

    ours, wanted = (
        jax.grad(partial(total, n))(jnp.float32(0.5)) for n in ("blockwise", "reference")
    )
    assert jnp.isfinite(wanted)
    assert_close(ours, wanted, gradient=True)


def test_an_exported_call_computes_the_same(tiles):
    tiles(4, 5)
    arrays = draw(7, (T, H), (S, H), (S, V), dtype=jnp.float32)
    attention = jax.jit(partial(attn_jax.attend, implementation="blockwise"))
    assert_equal(jax.export.export(attention)(*arrays).call(*arrays), attention(*arrays))


def temporary_bytes(length: int, **options) -> int:
    """Temporary bytes of the gradient of attention of one head."""
    array = jax.ShapeDtypeStruct((length, 64), jnp.float32)

    def gradients(query, key, value, cotangent):
        attention = partial(attn_jax.attend, implementation="blockwise", **options)
        return jax.vjp(attention, query, key, value)[1](cotangent)

    compiled = jax.jit(gradients).lower(array, array, array, array).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("options", [{}, {"mask": masks.causal()}], ids=["all", "causal"])
def test_memory_grows_with_the_length_and_no_faster(options):
    short, long = temporary_bytes(8192, **options), temporary_bytes(32768, **options)
    assert long <= 4.4 * short
    assert short < 8192 * 8192  # a quarter of the logits in float32


def test_tiles_that_a_block_mask_leaves_out_are_not_computed():
    query, key, value = draw(8, (12, H), (12, H), (12, V), dtype=jnp.float32)
    block = attn_jax.block_mask(masks.sliding_window(2, 0) & masks.causal(), 12, 12, tile=(3, 4))
    attention = partial(attn_jax.attend, query, mask=block, implementation="blockwise")
    wanted = attn_jax.attend(query, key, value, mask=masks.sliding_window(2, 0))
    assert_close(attention(key, value), wanted)
    nothing = jax.tree.map(jnp.zeros_like, block.lists)
    emptied = dataclasses.replace(block, lists=nothing)
    out = attn_jax.attend(query, key, value, mask=emptied, implementation="blockwise")
    assert_equal(out, jnp.zeros_like(out))
    assert_differs(wanted, out)


def attention_with_masks_by_example(query, key, value, lengths, documents):
    """Attention with masks that differ by example: key lengths and packed documents."""
    mask = masks.key_padding(lengths[:, None]) & masks.segments(documents[:, None])
    return attn_jax.dot_product_attention(query, key, value, mask=mask, implementation="blockwise")


def test_examples_with_different_masks_walk_over_their_tiles_in_one_loop(tiles):
    """No tile is gathered and no `select` separates finished examples from others: each would cost
    the whole array of keys at every tile."""
    tiles(4, 8)
    B, T, N, H = 3, 24, 2, 8
    arrays = draw(0, *[(B, T, N, H)] * 3, dtype=jnp.float32)
    documents = np.sort(np.random.default_rng(0).integers(0, 4, (B, T)).astype(np.int32))
    lengths, documents = jnp.array([24, 5, 11]), jnp.asarray(documents)

    def total(query, key, value):
        return jnp.sum(attention_with_masks_by_example(query, key, value, lengths, documents) ** 2)

    gradients = jax.jit(jax.grad(total, argnums=(0, 1, 2)))
    assert "gather" not in gradients.lower(*arrays).as_text()
    for n in range(B):
        alone = [array[n : n + 1] for array in (*arrays, lengths, documents)]
        together = attention_with_masks_by_example(*arrays, lengths, documents)[n : n + 1]
        assert_close(together, attention_with_masks_by_example(*alone), dtype=jnp.float32)
