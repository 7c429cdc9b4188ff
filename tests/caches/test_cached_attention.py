"""Decode steps, chunked prefill and one forward pass over the whole sequence agree.

Identities B7 and B8, for every cache, with windows, grouped heads, rows of unlike length and
padding anywhere; all slots that hold nothing hold NaN.
"""

import itertools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies

import attn_jax
from attn_jax import caches, masks, score_mods
from tests.helpers import oracle
from tests.helpers.cache_cases import (
    CHUNK,
    MAKE,
    PIECE,
    WINDOW,
    B,
    H,
    K,
    L,
    N,
    V,
    append,
    piece,
    poisoned,
    rewind,
    rule,
    step,
    tokens,
)
from tests.helpers.tolerance import assert_close, assert_differs, assert_equal

KINDS = pytest.mark.parametrize("kind", MAKE)
QUERY, KEY, VALUE = tokens()
MOD = score_mods.alibi(score_mods.alibi_slopes(N)[None])
EVERYTHING = {
    "mask": masks.from_array(np.random.default_rng(4).random((L, L)) < 0.6),
    "score_mod": MOD,
    "scale": 0.7,
    "sink": jnp.arange(N, dtype=jnp.float32),
}


def whole(kind, *arrays):
    return attn_jax.dot_product_attention(*arrays, mask=rule(kind))


def in_pieces(cache, arrays, lengths):
    """The cache after all pieces, and their concatenated outputs."""
    outs = []
    for start, end in itertools.pairwise([0, *np.cumsum(lengths).tolist()]):
        cache, out = step(cache, *(array[:, start:end] for array in arrays))
        outs.append(out)
    return cache, jnp.concatenate(outs, axis=1)


@KINDS
def test_prefill_chunks_and_decoding_up_to_the_capacity_are_one_forward(kind):
    cache, out = in_pieces(poisoned(MAKE[kind]()), (QUERY, KEY, VALUE), (5, 3, 1, 1, 1, 1))
    assert_close(out, whole(kind, QUERY, KEY, VALUE))
    assert cache.lengths.tolist() == [L] * B
    assert not cache.overflowed.any()


@KINDS
def test_a_whole_sequence_at_once_fits_exactly(kind):
    cache, out = step(poisoned(MAKE[kind]()), QUERY, KEY, VALUE)
    assert_close(out, whole(kind, QUERY, KEY, VALUE))
    assert cache.lengths.tolist() == [L] * B


@KINDS
@hypothesis.settings(max_examples=8, deadline=None, derandomize=True)
@hypothesis.given(lengths=strategies.lists(strategies.integers(0, PIECE), min_size=3, max_size=9))
def test_any_cut_of_a_sequence_into_pieces_gives_the_same_output(kind, lengths):
    lengths = [*itertools.takewhile(lambda n: n >= 0, np.diff([0, *np.cumsum(lengths).clip(0, L)]))]
    cache, outs = poisoned(MAKE[kind]()), []
    for start, length in zip(np.cumsum([0, *lengths])[:-1], lengths, strict=True):
        cache, out = step(cache, *piece((QUERY, KEY, VALUE), int(start), int(length)))
        outs.append(out[:, :length])
        assert not out[:, length:].any()
    total = sum(map(int, lengths))
    hypothesis.assume(total > 0)
    assert_close(jnp.concatenate(outs, axis=1), whole(kind, QUERY, KEY, VALUE)[:, :total])


@KINDS
def test_padding_and_examples_of_different_length_change_nothing(kind):
    is_real = jnp.array([[0, 0, 1, 1, 1], [1, 0, 1, 0, 0], [1, 1, 1, 1, 1]], bool)
    arrays = [
        jnp.where(is_real[:, :, None, None], array[:, :5], jnp.nan) for array in (QUERY, KEY, VALUE)
    ]
    cache, first = step(poisoned(MAKE[kind]()), *arrays, is_real)
    _, then = step(cache, *(array[:, 5:6] for array in (QUERY, KEY, VALUE)))
    for row, real in enumerate(np.asarray(is_real)):
        places = [*np.flatnonzero(real).tolist(), 5]
        out = whole(kind, *(array[row, places][None] for array in (QUERY, KEY, VALUE)))
        assert_close(jnp.concatenate([first[row, real], then[row]]), out[0])
        assert not first[row, ~real].any()


@KINDS
def test_tokens_removed_by_rewind_leave_no_trace(kind):
    begun, _ = in_pieces(poisoned(MAKE[kind]()), [a[:, :8] for a in (QUERY, KEY, VALUE)], (5, 3))
    bad = [jnp.full_like(array[:, :CHUNK], jnp.nan) for array in (QUERY, KEY, VALUE)]
    back = rewind(step(begun, *bad)[0], jnp.array([8, 8, 8]))
    _, out = in_pieces(back, [array[:, 8:] for array in (QUERY, KEY, VALUE)], (1, 1, 1, 1))
    assert_close(out, whole(kind, QUERY, KEY, VALUE)[:, 8:])


def test_a_sliding_cache_beyond_its_size_is_a_window_over_the_sequence():
    arrays = tokens(2, length=40)
    cache, out = in_pieces(MAKE["sliding"](), arrays, (20, 1, 3, 1, 12, 3))
    assert_close(out, whole("sliding", *arrays))
    assert_differs(out, whole("contiguous", *arrays))
    assert not cache.overflowed.any()


@pytest.mark.parametrize("kind", ["contiguous", "paged"])
def test_a_window_over_other_caches_is_a_sliding_cache(kind):
    _, held = append(poisoned(MAKE[kind]()), KEY, VALUE, jnp.ones((B, L), bool))
    out = attn_jax.cached_attention(QUERY, held, mask=masks.sliding_window(WINDOW, 0))
    assert_close(out, whole("sliding", QUERY, KEY, VALUE))


@KINDS
@pytest.mark.parametrize("splits", [1, 2, 5])
def test_every_option_means_what_it_means_for_the_whole(kind, splits):
    cache, _ = step(poisoned(MAKE[kind]()), *(array[:, :9] for array in (QUERY, KEY, VALUE)))
    _, held = append(cache, KEY[:, 9:], VALUE[:, 9:], jnp.ones((B, 3), bool))
    out = attn_jax.cached_attention(QUERY[:, 9:], held, splits=splits, **EVERYTHING)
    options = EVERYTHING | {"mask": rule(kind) & EVERYTHING["mask"]}
    wanted = attn_jax.dot_product_attention(QUERY, KEY, VALUE, **options)[:, 9:]
    assert_close(out, wanted)
    for name in EVERYTHING:
        others = {other: value for other, value in EVERYTHING.items() if other != name}
        assert_differs(attn_jax.cached_attention(QUERY[:, 9:], held, **others), wanted)


@pytest.mark.parametrize("splits", [2, 3, 12, 20])
def test_splits_without_tokens_have_no_weight(splits):
    """Also if a batch example has no token at all, and only the sink has weight."""
    is_real = jnp.array([[True, True], [False, False], [True, False]])
    _, held = append(poisoned(MAKE["contiguous"]()), KEY[:, :2], VALUE[:, :2], is_real)
    sink = jnp.arange(N, dtype=jnp.float32)
    out = attn_jax.cached_attention(QUERY[:, :2], held, sink=sink, splits=splits)
    assert_close(out, attn_jax.cached_attention(QUERY[:, :2], held, sink=sink))
    assert not out[1].any()
    assert out[0].all()


def test_splits_in_half_precision_are_rounded_once_more():
    half = [array.astype(jnp.bfloat16) for array in (QUERY, KEY, VALUE)]
    cache = caches.contiguous(B, L, K, H, V, dtype=jnp.bfloat16)
    _, held = append(cache, *half[1:], jnp.ones((B, L), bool))
    exact = whole("contiguous", *(array.astype(jnp.float32) for array in half))
    for splits, roundings in ((1, 1), (4, 2)):
        out = attn_jax.cached_attention(half[0], held, splits=splits)
        assert_close(out, exact, dtype=jnp.bfloat16, roundings=roundings)


def test_in_float64_a_cache_is_exact(x64):
    query, key, value = tokens(3, dtype=jnp.float64)
    cache, outs = caches.paged(B, L, K, H, V, page=5, dtype=jnp.float64), []
    for start in range(0, L, 4):
        here = slice(start, start + 4)
        cache, held = jax.jit(type(cache).append)(cache, key[:, here], value[:, here])
        outs.append(attn_jax.cached_attention(query[:, here], held, splits=1 + start // 4))
    causal = np.tril(np.ones((L, L), bool))
    exact = oracle.multi_head(*map(np.asarray, (query, key, value)), mask=causal)
    assert_close(jnp.concatenate(outs, axis=1), exact)


@KINDS
def test_an_int8_cache_gives_the_same_output_for_any_pieces_and_close_to_exact(kind):
    _, once = step(MAKE[kind](int8=True), QUERY, KEY, VALUE)
    _, out = in_pieces(MAKE[kind](int8=True), (QUERY, KEY, VALUE), (5, 3, 1, 1, 1, 1))
    exact = whole(kind, QUERY, KEY, VALUE)
    assert_close(out, once)
    error = jnp.linalg.norm(out - exact) / jnp.linalg.norm(exact)
    assert 1e-4 < error < 2e-2


@KINDS
@pytest.mark.parametrize("splits", [1, 3])
def test_a_cache_compiles_once_for_every_length_and_is_a_loop_carry(kind, splits):
    def attention(cache, token):
        cache, held = cache.append(*token[1:])
        return cache, attn_jax.cached_attention(token[0], held, splits=splits)

    one, cache, outs = jax.jit(attention, donate_argnums=0), MAKE[kind](), []
    steps = tuple(array.swapaxes(0, 1)[:, :, None] for array in (QUERY, KEY, VALUE))
    for t in range(L):
        cache, out = one(cache, tuple(array[t] for array in steps))
        outs.append(out)
    assert one._cache_size() == 1
    _, scanned = jax.lax.scan(attention, MAKE[kind](), steps)
    assert_close(scanned, jnp.stack(outs))
    assert_close(jnp.concatenate(outs, axis=1), whole(kind, QUERY, KEY, VALUE))


@pytest.mark.parametrize("splits", [1, 5])
def test_gradients_reach_the_appended_tokens(splits):
    def total(query, key, value):
        _, held = MAKE["contiguous"]().append(key, value)
        return jnp.sum(attn_jax.cached_attention(query, held, splits=splits) ** 2)

    def wanted(query, key, value):
        return jnp.sum(whole("contiguous", query, key, value) ** 2)

    arrays = [array[:, :5] for array in (QUERY, KEY, VALUE)]
    gradients = (jax.jit(jax.grad(f, (0, 1, 2)))(*arrays) for f in (total, wanted))
    for got, exact in zip(*gradients, strict=True):
        assert_close(got, exact, gradient=True)


def test_blockwise_attention_skips_tiles_of_unused_slots(tiles):
    tiles(2, 4)
    cache, _ = step(
        poisoned(MAKE["contiguous"]()), *(array[:, :5] for array in (QUERY, KEY, VALUE))
    )
    _, held = append(cache, KEY[:, 5:6], VALUE[:, 5:6], jnp.ones((B, 1), bool))
    out = attn_jax.cached_attention(QUERY[:, 5:6], held, implementation="blockwise")
    assert_close(out, whole("contiguous", QUERY, KEY, VALUE)[:, 5:6])
    report = attn_jax.explain(
        QUERY[:, 5:6],
        held.key,
        held.value,
        mask=masks.causal(),
        query_position=held.query_position,
        key_position=held.key_position,
        implementation="blockwise",
    )
    assert report.tiles_visited < report.tiles


def test_examples_are_independent():
    _, alone = step(
        caches.contiguous(1, L, K, H, V), *(array[1:2] for array in (QUERY, KEY, VALUE))
    )
    _, together = step(MAKE["contiguous"](), QUERY, KEY, VALUE)
    assert_close(together[1:2], alone)
    assert_equal(together, step(MAKE["contiguous"](), QUERY, KEY, VALUE)[1])
