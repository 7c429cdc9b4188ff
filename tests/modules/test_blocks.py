"""Encoder and decoder blocks: their formulas, and the transforms of Flax and JAX on them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from attn_jax import caches, masks, score_mods
from attn_jax.modules import (
    FeedForward,
    MultiHeadAttention,
    Residual,
    Rotary,
    TransformerDecoderBlock,
    TransformerEncoderBlock,
)
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_close, assert_differs, assert_equal

B, T, S, N, K, H, V, D, E, A, LAYERS = 2, 5, 7, 4, 2, 8, 3, 6, 10, 9, 3
CAUSAL = masks.causal()
PLACEMENTS = ("pre", "post", "both")


def attention(rngs, **options):
    sizes = {"num_kv_heads": K, "head_dim": H, "value_dim": V, "use_bias": True}
    return MultiHeadAttention(D, N, **sizes | options, rngs=rngs)


def encoder_block(*, rngs, **options):
    """A block of a language model; its attention has constant arrays, sinks and positions."""
    mod = score_mods.alibi(score_mods.alibi_slopes(N)[None])
    known = {"mask": CAUSAL, "score_mod": mod, "use_sink": True, "rotary": Rotary()}
    feed_forward = FeedForward(D, A, rngs=rngs)
    return TransformerEncoderBlock(attention(rngs, **known), feed_forward, rngs=rngs, **options)


def decoder_block(*, rngs, **options):
    self_attention, cross_attention = attention(rngs, mask=CAUSAL), attention(rngs, memory_dim=E)
    return TransformerDecoderBlock(
        self_attention, cross_attention, FeedForward(D, A, rngs=rngs), rngs=rngs, **options
    )


def tokens(seed=0, *, length=T, width=D):
    return draw(seed, (B, length, width), dtype=jnp.float32)[0]


def noisy(module):
    """The block with random norms, biases and sinks."""
    for seed, (_, parameter) in enumerate(nnx.to_flat_state(nnx.state(module, nnx.Param))):
        parameter[...] += 0.3 * draw(seed, parameter.shape, dtype=jnp.float32)[0]
    return module


def normalised(kind, norm, x):
    x = np.asarray(x, np.float64)
    centre = x.mean(-1, keepdims=True) if kind == "layer" else 0.0
    scaled = (x - centre) / np.sqrt(((x - centre) ** 2).mean(-1, keepdims=True) + 1e-6)
    bias = np.asarray(norm.bias[...]) if kind == "layer" else 0.0
    return jnp.asarray(scaled * np.asarray(norm.scale[...]) + bias, jnp.float32)


def residual_connection(kind, residual, x, sublayer):
    """The three formulas of `Residual`, written out."""
    norm = functools.partial(normalised, kind)
    if residual.placement == "post":
        return norm(residual.norm, x + sublayer(x))
    out = sublayer(norm(residual.norm, x))
    return x + (norm(residual.norm_after, out) if residual.placement == "both" else out)


@pytest.mark.parametrize("kind", ["layer", "rms"])
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_an_encoder_block_is_two_sublayers_with_residual_connections(placement, kind):
    block = noisy(encoder_block(rngs=nnx.Rngs(0), placement=placement, norm=kind))
    x = tokens()
    attended = residual_connection(kind, block.attention_residual, x, block.attention)
    expected = residual_connection(kind, block.feed_forward_residual, attended, block.feed_forward)
    assert_close(block(x), expected)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_decoder_block_is_three_sublayers_with_residual_connections(placement):
    block = noisy(decoder_block(rngs=nnx.Rngs(0), placement=placement))
    x, memory = tokens(1), tokens(2, length=S, width=E)
    cross_attention = functools.partial(block.cross_attention, memory=memory)
    step = functools.partial(residual_connection, "layer")
    expected = step(block.self_residual, x, block.self_attention)
    expected = step(block.cross_residual, expected, cross_attention)
    expected = step(block.feed_forward_residual, expected, block.feed_forward)
    assert_close(block(x, memory), expected)


def test_masks_and_positions_reach_the_attention():
    block, x = encoder_block(rngs=nnx.Rngs(0)), tokens(3)
    mask = jnp.asarray(np.random.default_rng(4).random((B, 1, T, T)) < 0.6)
    place = jnp.array([0, 1, 5, 6, 20])
    attended = block.attention(block.attention_residual.enter(x), mask=mask, query_position=place)
    after_attention = block.attention_residual.leave(x, attended)
    out = block.feed_forward(block.feed_forward_residual.enter(after_attention))
    assert_close(block(x, mask=mask, position=place), after_attention + out)
    assert_differs(block(x, mask=mask), after_attention + out)
    assert_differs(block(x, position=place), after_attention + out)


def test_masks_of_a_decoder_block_are_each_for_one_sequence():
    block, x, memory = decoder_block(rngs=nnx.Rngs(0)), tokens(5), tokens(6, length=S, width=E)
    seen = jnp.arange(S) < 4
    hidden = jnp.where(seen[None, :, None], memory, jnp.nan)
    out = block(x, hidden, memory_mask=seen[None, None, None])
    assert_close(out, block(x, memory[:, :4]))
    alone = block(x, memory, mask=jnp.eye(T, dtype=bool)[None, None])
    assert_close(alone[:, 2], block(x[:, 2:3], memory)[:, 0])
    assert_differs(alone, block(x, memory))


def test_a_residual_connection_and_its_sublayer_have_different_dropout_keys():
    residual, x = Residual(4000, dropout_rate=0.5, rngs=nnx.Rngs(0)), jnp.zeros(4000)

    def sublayer(x, rng):
        return jax.random.bernoulli(rng, 0.5, x.shape).astype(x.dtype)

    out = residual(x, sublayer, rng=jax.random.key(8))
    assert set(out.tolist()) == {0.0, 2.0}
    # A quarter; with one key for both it would be a half.
    assert 0.22 < float(jnp.mean(out > 0)) < 0.28


def test_dropout_of_a_block_is_off_without_a_key_and_follows_the_key():
    kept, x = encoder_block(rngs=nnx.Rngs(0)), tokens(9)
    block = encoder_block(rngs=nnx.Rngs(0), dropout_rate=0.5)
    assert_equal(block(x), kept(x))
    first, again, other = (block(x, rng=jax.random.key(seed)) for seed in (1, 1, 2))
    assert_equal(first, again)
    assert_differs(first, other)
    assert_equal(kept(x, rng=jax.random.key(1)), kept(x))


def test_each_rate_of_a_block_drops_something():
    x, rng = tokens(10), jax.random.key(3)

    def block(weights=0.0, hidden=0.0, out=0.0):
        rngs = nnx.Rngs(0)
        feed_forward = FeedForward(D, A, dropout_rate=hidden, rngs=rngs)
        return TransformerEncoderBlock(
            attention(rngs, dropout_rate=weights), feed_forward, dropout_rate=out, rngs=rngs
        )(x, rng=rng)

    for rates in ({"weights": 0.5}, {"hidden": 0.5}, {"out": 0.5}):
        assert_differs(block(**rates), block())


def test_an_encoder_block_decodes_step_by_step_as_in_one_pass():
    block, x = noisy(encoder_block(rngs=nnx.Rngs(0), placement="both")), tokens(11)
    cache = caches.contiguous(B, T, K, H, V)
    first, cache = block.extend(x[:, :3], cache)
    rest, cache = block.extend(x[:, 3:], cache)
    assert_close(jnp.concatenate([first, rest], axis=1), block(x))


def test_a_decoder_block_decodes_step_by_step_as_in_one_pass():
    block, x = noisy(decoder_block(rngs=nnx.Rngs(0))), tokens(12)
    memory, out = tokens(13, length=S, width=E), []
    mask = jnp.asarray(np.random.default_rng(14).random((B, 1, 1, S)) < 0.6)
    projected, cache = (
        block.cross_attention.project_memory(memory),
        caches.contiguous(B, T, K, H, V),
    )
    extend = jax.jit(functools.partial(block.extend, memory_mask=mask))
    for t in range(T):
        step, cache = extend(x[:, t : t + 1], cache, projected)
        out.append(step)
    assert_close(jnp.concatenate(out, axis=1), block(x, memory, memory_mask=mask))


@pytest.mark.parametrize("graph", [False, True])
def test_a_block_goes_through_jit_as_a_graph_and_as_a_tree(graph):
    block, x = noisy(encoder_block(rngs=nnx.Rngs(0))), tokens(15)
    assert_close(nnx.jit(lambda block, x: block(x), graph=graph)(block, x), block(x))


def test_a_block_that_is_split_goes_through_jax_jit_and_is_merged_again():
    block, x = noisy(encoder_block(rngs=nnx.Rngs(0))), tokens(16)
    graph, parameters, constants = nnx.split(block, nnx.Param, ...)

    @jax.jit
    def call(parameters, constants, x):
        return nnx.merge(graph, parameters, constants)(x)

    assert_close(call(parameters, constants, x), block(x))
    other = noisy(encoder_block(rngs=nnx.Rngs(1)))
    nnx.update(other, nnx.state(block))
    assert_equal(other(x), block(x))


@nnx.vmap(in_axes=0, out_axes=0, transform_metadata={nnx.PARTITION_NAME: "layers"})
def stacked(rngs):
    return encoder_block(rngs=rngs)


def loop(block, x):
    """The layers of a stacked block, one after the other."""
    graph, state = nnx.split(block)
    for n in range(LAYERS):
        x = nnx.merge(graph, jax.tree.map(lambda leaf, n=n: leaf[n], state))(x)
    return x


def scan(layer, block, x):
    return nnx.scan(layer, in_axes=(0, nnx.Carry), out_axes=nnx.Carry)(block, x)


def test_a_scan_over_layers_is_the_loop_over_them():
    block, x = noisy(stacked(nnx.Rngs(0).split(LAYERS))), tokens(17)
    assert_close(scan(lambda block, x: block(x), block, x), loop(block, x))


def test_layers_may_be_rematerialised_for_the_gradient():
    block, x = noisy(stacked(nnx.Rngs(0).split(LAYERS))), tokens(17)
    (weight,) = draw(18, x.shape, dtype=jnp.float32)

    def gradient(layer):
        return nnx.jit(nnx.grad(lambda block: jnp.sum(weight * scan(layer, block, x))))(block)

    plain, anew = (gradient(f) for f in (lambda b, x: b(x), nnx.remat(lambda b, x: b(x))))
    for one, other in zip(jax.tree.leaves(anew), jax.tree.leaves(plain), strict=True):
        assert float(jnp.abs(one - other).max()) < 1e-5


def test_a_stack_of_blocks_names_its_new_axis():
    block = stacked(nnx.Rngs(0).split(LAYERS))
    assert block.attention.w_query.shape == (LAYERS, D, N, H)
    assert block.attention.w_query.out_sharding == ("layers", "model", "heads", "head")


def test_a_list_of_blocks_is_one_module():
    class Stack(nnx.Module):
        def __init__(self, rngs):
            self.blocks = nnx.List([encoder_block(rngs=rngs) for _ in range(2)])

        def __call__(self, x):
            for block in self.blocks:
                x = block(x)
            return x

    stack, x = Stack(nnx.Rngs(0)), tokens(19)
    assert_close(nnx.jit(lambda stack, x: stack(x))(stack, x), stack(x))
    found = nnx.jit(nnx.grad(lambda stack, x: jnp.sum(stack(x) ** 2)))(stack, x)
    assert jax.tree.structure(found) == jax.tree.structure(nnx.state(stack, nnx.Param))
    assert all(
        np.isfinite(leaf).all() and jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(found)
    )


def test_a_block_is_a_linen_module_by_to_linen():
    linen, x = nnx.bridge.to_linen(encoder_block, placement="post"), tokens(20)
    variables = linen.init(jax.random.key(0), x)
    kernel = variables["params"]["feed_forward"]["w_up"].unbox()
    block = encoder_block(rngs=nnx.Rngs(1), placement="post")
    for path, parameter in nnx.to_flat_state(nnx.state(block, nnx.Param)):
        boxed = functools.reduce(lambda tree, name: tree[name], path, variables["params"])
        parameter[...] = boxed.unbox()
    assert_equal(block.feed_forward.w_up[...], kernel)
    assert_close(jax.jit(linen.apply)(variables, x), block(x))


def test_the_shapes_of_a_large_block_cost_no_memory():
    def large():
        rngs = nnx.Rngs(0)
        feed_forward = FeedForward(16_384, 53_248, gated=True, use_bias=False, rngs=rngs)
        layer = MultiHeadAttention(16_384, 128, num_kv_heads=8, rngs=rngs)
        return TransformerEncoderBlock(layer, feed_forward, norm="rms", rngs=rngs)

    sizes = [leaf.size for leaf in jax.tree.leaves(nnx.state(nnx.eval_shape(large)))]
    assert sum(sizes) == 3_187_703_808  # a layer of Llama 3.1 405B


def test_a_block_of_half_precision_returns_half_precision():
    block, x = noisy(encoder_block(rngs=nnx.Rngs(0), norm="rms")), tokens(21)
    half = block(x.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    assert jnp.abs(half.astype(jnp.float32) - block(x)).max() < 0.05 * jnp.abs(block(x)).max()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"placement": "before"}, "placement='before' is unknown"),
        ({"norm": "batch"}, "norm='batch' is unknown"),
        ({"dropout_rate": 1.0}, "dropout_rate"),
    ],
)
def test_invalid_options_of_a_block_are_refused(options, message):
    with pytest.raises((ValueError, TypeError)) as error:
        encoder_block(rngs=nnx.Rngs(0), **options)
    assert message in str(error.value) or "Type-check" in str(error.value)
