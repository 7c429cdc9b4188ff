"""Arrays and dropout are indexed by row number, masks by position; the two differ if packed."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import attn_jax
from attn_jax import masks, score_mods
from attn_jax.modules import FeedForward, MultiHeadAttention, TransformerDecoderBlock
from tests.helpers.cases import IMPLEMENTATIONS
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_close, assert_equal

every_implementation = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
close = partial(assert_close, dtype=np.float32)
T, S, H, N = 5, 7, 3, 2
RESTARTS = jnp.array([0, 1, 2, 3, 0, 1, 2])  # positions of two packed documents
IDS = jnp.array([0, 0, 0, 0, 1, 1, 1])
WRITTEN = np.random.default_rng(0).random((S, S)) < 0.6
BIAS = np.random.default_rng(1).normal(size=(S, S)).astype(np.float32)
SAME = np.asarray(IDS)[:, None] == np.asarray(IDS)
LOOKED_UP = {
    "segments": ({"mask": masks.segments(IDS)}, SAME, 0),
    "from_array": ({"mask": masks.from_array(WRITTEN)}, WRITTEN, 0),
    "dense_bias": ({"score_mod": score_mods.dense_bias(BIAS)}, np.ones((S, S), bool), BIAS),
}


def operands(seed=2):
    return draw(seed, (S, H), (S, H), (S, S), dtype=jnp.float32)


def by_hand(unmasked, bias):
    """The weights of all queries on all keys, in float64."""
    query, key, _ = (np.asarray(array, np.float64) for array in operands())
    logits = np.where(unmasked, query @ key.T / np.sqrt(H) + bias, -np.inf)
    most = logits.max(axis=1, keepdims=True)
    weights = np.where(unmasked, np.exp(logits - np.where(np.isfinite(most), most, 0)), 0)
    return weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-300)


@every_implementation
@pytest.mark.parametrize("name", LOOKED_UP)
def test_arrays_are_looked_up_by_row_where_positions_restart(name, implementation, tiles):
    tiles(2, 3)
    options, unmasked, bias = LOOKED_UP[name]
    query, key, value = operands()
    expected = by_hand(unmasked, bias)
    place = {"query_position": RESTARTS, "key_position": RESTARTS}
    attention = partial(attn_jax.attend, implementation=implementation, **options)
    close(attention(query, key, value, **place), expected @ np.asarray(value, np.float64))
    rows = jnp.array([6, 1, 4])
    part = {"query_position": RESTARTS[rows], "key_position": RESTARTS, "query_row": rows}
    close(
        attention(query[rows], key, value, **part), (expected @ np.asarray(value, np.float64))[rows]
    )
    one = partial(lambda row, query: attention(query[None], key, value, query_row=row[None])[0])
    close(jax.vmap(one)(rows, query[rows]), attention(query, key, value)[rows])


@pytest.mark.parametrize("name", LOOKED_UP)
def test_every_function_takes_row_numbers_of_a_part_of_the_sequence(name):
    options, unmasked, bias = LOOKED_UP[name]
    query, key, value = operands()
    rows, keys = jnp.array([6, 1, 4]), jnp.array([2, 6, 5, 0])
    place = {"query_row": rows, "key_row": keys}
    whole = np.where(unmasked, np.exp(np.asarray(query @ key.T) / np.sqrt(H) + bias), 0)
    part = whole[np.asarray(rows)][:, np.asarray(keys)]
    total = part.sum(axis=1, keepdims=True)
    expected = part / np.where(total == 0, 1, total)
    weights = attn_jax.attention_weights(query[rows], key[keys], **options, **place)
    close(weights, expected)
    _, logsumexp = attn_jax.attend_with_logsumexp(
        query[rows], key[keys], value[keys], **options, **place
    )
    close(jnp.exp(logsumexp), total[:, 0])
    stats = attn_jax.attention_stats(query[rows], key[keys], top=1, **options, **place)
    close(stats.received, expected.sum(axis=0))
    heads = [array[:, None] for array in (query[rows], key[keys], value[keys])]
    out = attn_jax.dot_product_attention(*heads, **options, **place)
    close(out[:, 0], expected @ np.asarray(value[keys]))
    if "mask" in options:
        block = attn_jax.block_mask(options["mask"], 3, 4, **place, tile=(2, 2))
        close(attn_jax.attention_weights(query[rows], key[keys], mask=block), expected)
        i, j = jnp.zeros(3, jnp.int32), jnp.zeros(4, jnp.int32)
        written = masks.evaluate(options["mask"], i, j, **place)
        assert_equal(written, unmasked[np.asarray(rows)][:, np.asarray(keys)])


@every_implementation
def test_each_packed_document_drops_its_own_weights(implementation, tiles):
    tiles(2, 3)
    rng, rate = jax.random.key(3), 0.5
    zeros, place = jnp.zeros((8, H)), jnp.arange(8) % 4
    options = {"dropout_rate": rate, "dropout_rng": rng, "implementation": implementation}
    options |= {"query_position": place, "key_position": place}
    weights = attn_jax.attend(zeros, zeros, jnp.eye(8), **options)
    keep = attn_jax.dropout_mask(rng, rate, jnp.arange(8), jnp.arange(8))
    assert_equal(weights > 0, keep)
    assert (weights[:4, :4] != weights[4:, 4:]).any()
    block = attn_jax.block_mask(
        masks.causal() | ~masks.causal(), 4, 8, tile=(2, 3), query_row=jnp.arange(4, 8),
        query_position=place[4:], key_position=place,
    )  # fmt: skip
    drops = {"dropout_rate": rate, "dropout_rng": rng, "implementation": implementation}
    assert_equal(attn_jax.attend(zeros[4:], zeros, jnp.eye(8), mask=block, **drops), weights[4:])


@pytest.mark.parametrize("name", LOOKED_UP)
def test_arrays_of_another_size_require_row_numbers(name):
    options, _, _ = LOOKED_UP[name]
    query, key, value = operands()
    place = {"query_position": jnp.arange(2, S), "key_position": jnp.arange(S)}
    with pytest.raises(ValueError, match=r"query_row is needed.* array of 7 entries.* 5 queries"):
        attn_jax.attend(query[2:], key, value, **options, **place)
    with pytest.raises(ValueError, match=r"key_row is needed.* array of 7 entries.* 6 keys"):
        attn_jax.attention_weights(query, key[1:], **options)
    heads = [array[:, None] for array in (query[2:], key, value)]
    with pytest.raises(ValueError, match="query_row is needed"):
        attn_jax.dot_product_attention(*heads, **options)
    if "mask" in options:
        with pytest.raises(ValueError, match="query_row is needed"):
            attn_jax.block_mask(options["mask"], T, S)
        with pytest.raises(ValueError, match="key_row is needed"):
            masks.evaluate(options["mask"], jnp.arange(S), jnp.arange(T))


def _layer(x, **place):
    layer = MultiHeadAttention(4, N, mask=masks.causal(), rngs=nnx.Rngs(0))
    return layer(jnp.ones((x.shape[0], 4)), **place)


def _heads(x, **place):
    return attn_jax.dot_product_attention(*[x[:, None]] * 3, is_causal=True, **place)


def _cross(x, **place):
    layer = MultiHeadAttention(4, N, mask=masks.causal(), rngs=nnx.Rngs(0))
    return layer(jnp.ones((x.shape[0], 4)), jnp.ones((x.shape[0], 4)), **place)


CAUSAL = {"mask": masks.causal()}
ALIBI = {"score_mod": score_mods.alibi(0.5)}
COMPARING = {
    "attend": lambda x, **place: attn_jax.attend(x, x, x, **CAUSAL, **place),
    "score_mod": lambda x, **place: attn_jax.attend(x, x, x, **ALIBI, **place),
    "logsumexp": lambda x, **place: attn_jax.attend_with_logsumexp(x, x, x, **CAUSAL, **place),
    "weights": lambda x, **place: attn_jax.attention_weights(x, x, **CAUSAL, **place),
    "stats": lambda x, **place: attn_jax.attention_stats(x, x, **CAUSAL, **place),
    "block mask": lambda x, **place: attn_jax.block_mask(masks.causal(), T, T, **place),
    "explain": lambda x, **place: attn_jax.explain(x, x, x, **CAUSAL, **place),
    "heads": _heads,
    "cross attention": _cross,
}


@pytest.mark.parametrize("side", ["query_position", "key_position"])
@pytest.mark.parametrize("name", COMPARING)
def test_query_or_key_positions_alone_are_refused_at_equal_lengths_too(name, side):
    x = jnp.ones((T, H))
    other = {"query_position": "key_position", "key_position": "query_position"}[side]
    message = rf"{other} is needed.*{side} is given alone; pass both, {other}=jnp.arange"
    with pytest.raises(ValueError, match=message):
        COMPARING[name](x, **{side: jnp.arange(T)})


def test_a_self_attention_layer_needs_query_positions_only():
    x = jnp.ones((T, H))
    assert _layer(x, query_position=jnp.arange(T)).shape == (T, 4)
    with pytest.raises(ValueError, match="query_position is needed"):
        _layer(x, key_position=jnp.arange(T))


@every_implementation
def test_lengths_count_rows_whatever_their_positions(implementation):
    query, key, value = (array[None, :, None] for array in operands())
    attention = partial(
        attn_jax.dot_product_attention, query, key, value, implementation=implementation
    )
    backwards = {"query_position": jnp.arange(S), "key_position": jnp.arange(S)[::-1]}
    out = attention(query_seq_lengths=[T], key_value_seq_lengths=[3], is_causal=True, **backwards)
    unmasked = (np.arange(S)[:, None] >= np.arange(S)[::-1]) & (np.arange(S) < 3)
    unmasked &= np.arange(S)[:, None] < T
    close(out[0, :, 0], by_hand(unmasked, 0) @ np.asarray(value[0, :, 0], np.float64))
    as_arrays = attention(query_seq_lengths=jnp.array([T]), key_value_seq_lengths=jnp.array([3]))
    assert_equal(as_arrays, attention(query_seq_lengths=[T], key_value_seq_lengths=[3]))


def test_a_decoder_block_indexes_arrays_by_row_in_each_decode_step():
    rngs, memory = nnx.Rngs(0), draw(4, (1, S, 4), dtype=jnp.float32)[0]
    layers = (MultiHeadAttention(4, N, mask=rule, rngs=rngs) for rule in (masks.causal(), None))
    block = TransformerDecoderBlock(*layers, FeedForward(4, 5, rngs=rngs), rngs=rngs)
    mask = masks.from_array(WRITTEN[:T])
    [x] = draw(5, (1, T, 4), dtype=jnp.float32)
    whole = block(x, memory, memory_mask=mask)
    cache, kept = attn_jax.caches.contiguous(1, T, N, 2), block.cross_attention
    steps, projected = [], kept.project_memory(memory)
    for t in range(T):
        out, cache = block.extend(x[:, t : t + 1], cache, projected, memory_mask=mask)
        steps.append(out)
    close(jnp.concatenate(steps, axis=1), whole)
