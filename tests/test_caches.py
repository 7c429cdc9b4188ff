"""Caches of every kind: a sequence in pieces is the sequence in one, and nothing is clamped."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from caches_for_tests import (
    CHUNK,
    MAKE,
    WINDOW,
    B,
    H,
    K,
    L,
    V,
    assert_holds,
    poisoned,
    rule,
    tokens,
)
from tolerance import assert_close, assert_equal

import attn_jax
from attn_jax import caches

KINDS = pytest.mark.parametrize("kind", MAKE)
CUTS = {"one by one": (1,) * L, "prompt": (L,), "mixed": (5, 3, 1, 2, 1), "chunks": (3, 3, 3, 3)}


@jax.jit
def step(cache, query, key, value, is_real=None):
    cache, held = cache.append(key, value, is_real)
    return cache, attn_jax.cached_attention(query, held), held


def in_pieces(cache, arrays, lengths):
    """Outputs side by side, and what was held at the end."""
    outs = []
    for start, end in itertools.pairwise([0, *np.cumsum(lengths).tolist()]):
        cache, out, held = step(cache, *(array[:, start:end] for array in arrays))
        outs.append(out)
    return cache, jnp.concatenate(outs, axis=1), held


@KINDS
@pytest.mark.parametrize("cut", CUTS)
def test_a_sequence_in_pieces_is_the_sequence_in_one(kind, cut):
    query, key, value = tokens()
    cache, out, _ = in_pieces(poisoned(MAKE[kind]()), (query, key, value), CUTS[cut])
    whole = attn_jax.dot_product_attention(query, key, value, mask=rule(kind))
    assert_close(out, whole)
    assert cache.lengths.tolist() == [L] * B
    assert not cache.overflowed.any()


@KINDS
def test_what_is_held_are_the_tokens_at_their_positions(kind):
    query, key, value = tokens()
    cache = poisoned(MAKE[kind]())
    for t in range(L):
        here = slice(t, t + 1)
        cache, _, held = step(cache, query[:, here], key[:, here], value[:, here])
        first = max(0, t + 1 - WINDOW - CHUNK) if kind == "sliding" else 0
        for row in range(B):
            assert_holds(held, row, key[row, first : t + 1], value[row, first : t + 1], first)


@KINDS
def test_padding_anywhere_changes_nothing(kind):
    arrays = tokens(length=7)
    is_real = jnp.array(
        [[False, False, True, True, True, True, True], [True, False] * 3 + [False], [True] * 7]
    )
    is_real = is_real.at[1, 6].set(True)
    cache, out, held = step(poisoned(MAKE[kind]()), *arrays, is_real)
    for row, real in enumerate(np.asarray(is_real)):
        query, key, value = (array[row : row + 1, real] for array in arrays)
        whole = attn_jax.dot_product_attention(query, key, value, mask=rule(kind))
        assert_close(out[row : row + 1, real], whole)
        assert not out[row, ~real].any()
        if kind != "sliding":
            assert_holds(held, row, key[0], value[0])
    assert cache.lengths.tolist() == [5, 4, 7]


@KINDS
def test_rows_of_different_length_go_on_where_they_are(kind):
    query, key, value = tokens()
    first, more = tokens(1, length=6), tokens(2, length=3)
    is_real = jnp.arange(6)[None, :] < jnp.array([2, 6, 4])[:, None]
    cache, *_ = step(poisoned(MAKE[kind]()), *first, is_real)
    cache, out, _ = step(cache, *more)
    for row, length in enumerate([2, 6, 4]):
        query, key, value = (
            jnp.concatenate([one[row, :length], other[row]])[None]
            for one, other in zip(first, more, strict=True)
        )
        whole = attn_jax.dot_product_attention(query, key, value, mask=rule(kind))
        assert_close(out[row][None], whole[:, length:])


@pytest.mark.parametrize("kind", ["contiguous", "paged"])
def test_a_token_too_many_is_refused_with_advice(kind):
    cache, *_ = step(MAKE[kind](), *tokens())
    with pytest.raises(
        caches.CacheOverflow, match=r"row 0 holds 12 tokens and is given 1 more, .* 12; make it"
    ):
        cache.append(*[array[:, :1] for array in tokens()[1:]])


@pytest.mark.parametrize("kind", ["contiguous", "paged"])
def test_a_token_too_many_is_flagged_under_jit_and_overwrites_nothing(kind):
    query, key, value = tokens()
    full, *_ = step(MAKE[kind](), query, key, value)
    after, _, held = step(full, *[array[:, :1] + 1 for array in (query, key, value)])
    assert after.overflowed.tolist() == [True] * B
    assert after.lengths.tolist() == [L] * B
    for row in range(B):
        assert_holds(held, row, key[row], value[row])
    again, *_ = step(after, *[array[:, :1] for array in (query, key, value)])
    assert again.overflowed.all()
    assert not again.reset(jnp.array([True] * B)).overflowed.any()


def test_a_sliding_cache_has_no_end():
    assert MAKE["sliding"]().capacity is None
    query, key, value = tokens(length=40)
    cache, out, _ = in_pieces(MAKE["sliding"](), (query, key, value), (15, 1, 20, 4))
    whole = attn_jax.dot_product_attention(query, key, value, mask=rule("sliding"))
    assert_close(out, whole)
    assert not cache.overflowed.any()
    assert jax.tree.leaves(cache.key)[0].shape[1] == WINDOW + CHUNK


def test_a_sliding_cache_keeps_to_its_window_without_a_mask():
    query, key, value = tokens()
    _, out, _ = in_pieces(MAKE["sliding"](), (query, key, value), (L,))
    causal = attn_jax.dot_product_attention(query, key, value, is_causal=True)
    assert not np.allclose(out[:, WINDOW + 1 :], causal[:, WINDOW + 1 :], atol=1e-3)


@KINDS
def test_what_was_taken_back_was_never_there(kind):
    arrays, others = tokens(), tokens(1)
    begun, *_ = in_pieces(poisoned(MAKE[kind]()), [a[:, :8] for a in arrays], (8,))
    drafts, *_ = step(begun, *[array[:, :CHUNK] for array in others])
    back = jax.jit(type(drafts).rewind)(drafts, jnp.array([8, 8, 8]))
    assert not back.overflowed.any()
    _, out, _ = in_pieces(back, [array[:, 8:] for array in arrays], (1, 1, 2))
    _, wanted, _ = in_pieces(begun, [array[:, 8:] for array in arrays], (1, 1, 2))
    assert_close(out, wanted)


@KINDS
def test_rows_can_change_places(kind):
    arrays = tokens()
    begun, *_ = step(MAKE[kind](), *[array[:, :5] for array in arrays])
    rows = jnp.array([2, 0, 2])
    moved = jax.jit(type(begun).reorder)(begun, rows)
    _, out, _ = step(moved, *[array[rows, 5:7] for array in arrays])
    _, wanted, _ = step(begun, *[array[:, 5:7] for array in arrays])
    assert_close(out, wanted[rows])


@KINDS
def test_a_row_that_begins_anew_knows_nothing_of_before(kind):
    arrays, others = tokens(), tokens(1)
    begun, *_ = step(MAKE[kind](), *[array[:, :5] for array in arrays])
    fresh = jax.jit(type(begun).reset)(begun, jnp.array([False, True, False]))
    assert fresh.lengths.tolist() == [5, 0, 5]
    _, out, held = step(fresh, *[array[:, :2] for array in others])
    _, wanted, _ = step(MAKE[kind](), *[array[:, :2] for array in others])
    assert_close(out[1], wanted[1])
    assert held.query_position.tolist() == [[5, 6], [0, 1], [5, 6]]


@KINDS
@pytest.mark.parametrize("int8", [False, True])
def test_one_compile_serves_every_length_and_scan_carries_it(kind, int8):
    query, key, value = (array.swapaxes(0, 1)[:, :, None] for array in tokens())
    traces = []

    def read(cache, token):
        traces.append(0)
        cache, held = cache.append(token[1], token[2])
        return cache, attn_jax.cached_attention(token[0], held)

    one = jax.jit(read, donate_argnums=0)
    cache, outs = MAKE[kind](int8=int8), []
    for t in range(L):
        cache, out = one(cache, (query[t], key[t], value[t]))
        outs.append(out)
    assert one._cache_size() == len(traces) == 1
    _, scanned = jax.lax.scan(read, MAKE[kind](int8=int8), (query, key, value))
    assert_close(scanned, jnp.stack(outs))


@KINDS
def test_eight_bits_are_off_by_half_a_step_of_their_row(kind):
    _, key, value = tokens()
    key = key.at[0, 0, 0].set(0)
    _, held = MAKE[kind](int8=True).append(key[:, :CHUNK], value[:, :CHUNK])
    for got, wanted in ((held.key, key), (held.value, value)):
        got, wanted = got[:, :CHUNK], wanted[:, :CHUNK]  # the other slots hold nothing
        bound = jnp.max(jnp.abs(wanted), axis=-1, keepdims=True) / 254
        assert jnp.all(jnp.abs(got - wanted) <= bound * (1 + 1e-5))
        assert jnp.any(got != wanted)
    assert not np.asarray(held.key[0, 0, 0]).any()


def test_reads_are_in_the_dtype_of_what_comes_and_kept_in_the_caches():
    _, key, value = (array.astype(jnp.bfloat16) for array in tokens())
    cache, held = caches.contiguous(B, L, K, H, V, dtype=jnp.float16).append(key, value)
    assert held.key.dtype == held.value.dtype == jnp.bfloat16
    assert cache.key.dtype == jnp.float16
    assert_equal(held.key, key.astype(jnp.float16).astype(jnp.bfloat16))


def test_gradients_reach_what_was_appended():
    query, key, value = tokens(length=4)

    def total(key, value):
        _, held = MAKE["contiguous"]().append(key, value)
        return jnp.sum(attn_jax.cached_attention(query, held) ** 2)

    def wanted(key, value):
        return jnp.sum(attn_jax.dot_product_attention(query, key, value, is_causal=True) ** 2)

    for got, exact in zip(
        jax.grad(total, (0, 1))(key, value), jax.grad(wanted, (0, 1))(key, value), strict=True
    ):
        assert_close(got, exact)


def test_a_sliding_cache_goes_back_a_chunk_and_no_further():
    cache, *_ = step(MAKE["sliding"](), *tokens())
    with pytest.raises(caches.CacheOverflow, match=r"more than chunk=3 tokens .* larger chunk"):
        cache.rewind(jnp.array([L - CHUNK, L, L - CHUNK - 1]))
    back = jax.jit(type(cache).rewind)(cache, jnp.array([L - CHUNK, L, L - CHUNK - 1]))
    assert back.overflowed.tolist() == [False, False, True]


_, KEY, VALUE = tokens()
MISTAKES = {
    "no capacity": (lambda: caches.contiguous(B, 0, K, H), r"must be an int >= 1; got 0"),
    "no heads": (lambda: caches.contiguous(B, L, 0, H), r"must be an int >= 1; got 0"),
    "window below 0": (lambda: caches.sliding(B, -1, K, H), r"window must be two ints >= 0"),
    "no chunk": (lambda: caches.sliding(B, 3, K, H, chunk=0), r"chunk must be an int >= 1; got 0"),
    "no page": (lambda: caches.paged(B, L, K, H, page=0), r"page must be an int >= 1; got 0"),
    "integers": (lambda: caches.contiguous(B, L, K, H, dtype=jnp.int32), r"dtype must be float"),
    "other rows": (
        lambda: MAKE["contiguous"]().append(KEY[:2], VALUE[:2]),
        r"key must have shape \[3, T, 2, 8\], as the cache was made; got \[2, 12, 2, 8\]",
    ),
    "other heads": (
        lambda: MAKE["paged"]().append(KEY[:, :, :1], VALUE),
        r"key must have shape \[3, T, 2, 8\]",
    ),
    "other width": (
        lambda: MAKE["sliding"]().append(KEY, VALUE[..., :2]),
        r"value must have shape \[3, T, 2, 5\]",
    ),
    "tokens for other keys": (
        lambda: MAKE["contiguous"]().append(KEY, VALUE[:, :3]),
        r"value must have shape .*T = 12",
    ),
    "realness in numbers": (
        lambda: MAKE["contiguous"]().append(KEY, VALUE, jnp.ones((B, L))),
        r"is_real must be bool",
    ),
    "realness of other tokens": (
        lambda: MAKE["contiguous"]().append(KEY, VALUE, jnp.ones((B, 2), bool)),
        r"is_real must have shape \[B T\]",
    ),
    "forward": (
        lambda: MAKE["contiguous"]().rewind(jnp.array([0, 1, 0])),
        r"lengths\[1\] must be between 0 and 0, what the row holds; got 1",
    ),
    "more than there is": (
        lambda: MAKE["paged"]().share(0, jnp.array([False, True, True]), 2),
        r"length must be between 0 and 0, what row 0 holds; got 2",
    ),
    "an array as a mask": (
        lambda: attn_jax.cached_attention(
            tokens()[0], MAKE["contiguous"]().append(KEY, VALUE)[1], mask=jnp.ones((L, L), bool)
        ),
        r"mask must be a rule on positions.*masks\.from_array",
    ),
}


@pytest.mark.usefixtures("no_type_hook")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused_with_advice(mistake):
    call, message = MISTAKES[mistake]
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_value_width_is_the_keys_by_default():
    assert caches.contiguous(B, L, K, H).value.shape[-1] == H != V
