"""Caches of every kind: tokens are stored at their positions, and overflow never clamps."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_jax import caches
from tests.helpers.cache_cases import (
    CHUNK,
    MAKE,
    PIECE,
    WINDOW,
    B,
    H,
    K,
    L,
    Row,
    V,
    append,
    assert_holds,
    contents_of,
    piece,
    poisoned,
    reorder,
    reset,
    rewind,
    stored,
    tokens,
)
from tests.helpers.tolerance import assert_equal

KINDS = pytest.mark.parametrize("kind", MAKE)
BOUNDED = pytest.mark.parametrize("kind", ["contiguous", "paged"])
_, KEY, VALUE = tokens()


def filled(kind, length=L, **kept):
    """A cache whose rows hold so many tokens; its other slots hold NaN."""
    cache = poisoned(MAKE[kind](**kept))
    for start in range(0, length, PIECE):
        count = min(PIECE, length - start)
        cache, held = append(cache, *piece((KEY, VALUE), start, count))
    return cache, held


@KINDS
def test_a_cache_holds_the_tokens_at_their_positions(kind):
    for length in (1, 4, 7, L):
        _, held = filled(kind, length)
        first = max(0, length - WINDOW - CHUNK) if kind == "sliding" else 0
        for row in range(B):
            assert_holds(held, row, KEY[row, first:length], VALUE[row, first:length], first)


def test_slot_i_holds_token_i():
    cache, held = filled("contiguous", 7)
    assert_equal(cache.key[:, :, :7].swapaxes(1, 2), KEY[:, :7])
    assert_equal(cache.value[:, :, :7].swapaxes(1, 2), VALUE[:, :7])
    assert np.isnan(cache.key[:, :, 7:]).all()
    assert held.key_position.tolist() == [[*range(7), *[caches.UNUSED] * 5]] * B


@KINDS
def test_positions_count_only_real_tokens(kind):
    cache, _ = filled(kind, 4)
    is_real = jnp.array([[False, True, True], [True, False, True], [False, False, False]])
    assert cache.positions(is_real).tolist() == [[-1, 4, 5], [4, -1, 5], [-1, -1, -1]]
    cache, held = append(cache, KEY[:, :3], VALUE[:, :3], is_real)
    assert cache.lengths.tolist() == [6, 6, 4]
    assert held.query_position.tolist() == [[-1, 4, 5], [4, -1, 5], [-1, -1, -1]]


@KINDS
def test_padding_is_not_kept_even_in_a_full_row(kind):
    cache, _ = filled(kind)
    after, held = append(cache, *piece((KEY, VALUE), 0, 0))
    assert after.lengths.tolist() == [L] * B
    assert not after.overflowed.any()
    first = L - WINDOW - CHUNK if kind == "sliding" else 0
    for row in range(B):
        assert_holds(held, row, KEY[row, first:], VALUE[row, first:], first)


@BOUNDED
def test_a_token_too_many_is_refused_with_advice(kind):
    cache, _ = filled(kind)
    assert cache.capacity == L
    message = (
        r"batch example 0 holds 12 tokens and gets 1 more, .* 12; make the cache with .* >= 13"
    )
    with pytest.raises(caches.CacheOverflow, match=message):
        cache.append(KEY[:, :1], VALUE[:, :1])


@BOUNDED
def test_under_jit_tokens_that_fit_are_stored_and_the_others_set_the_overflow_flag(kind):
    cache, _ = filled(kind, 10)
    three, _ = append(
        cache, KEY[:, :3], VALUE[:, :3], (jnp.arange(B) == 0)[:, None].repeat(3, axis=1)
    )
    assert three.overflowed.tolist() == [True, False, False]
    assert three.lengths.tolist() == [L, 10, 10]
    again, held = append(three, KEY[:, :3], VALUE[:, :3], jnp.zeros((B, 3), bool))
    assert again.overflowed.tolist() == [True, False, False]
    assert_holds(
        held, 0, jnp.concatenate([KEY[0, :10], KEY[0, :2]]), [*VALUE[0, :10], *VALUE[0, :2]]
    )
    assert_holds(held, 1, KEY[1, :10], VALUE[1, :10])
    assert not reset(again, jnp.array([True, False, False])).overflowed.any()


def test_a_sliding_cache_never_overflows():
    cache = MAKE["sliding"]()
    size = sum(leaf.size for leaf in jax.tree.leaves((cache.key, cache.value)))
    assert (cache.capacity, cache.chunk) == (None, CHUNK)
    assert size == B * (WINDOW + CHUNK) * K * (H + V)
    for _ in range(4):
        cache, _ = append(cache, KEY, VALUE, jnp.ones((B, L), bool))
    assert cache.lengths.tolist() == [4 * L] * B
    positions, keys, _ = stored(contents_of(cache), 1)
    assert positions.tolist() == list(range(4 * L - WINDOW - CHUNK, 4 * L))
    np.testing.assert_array_equal(keys, KEY[1, L - WINDOW - CHUNK :])


@KINDS
@pytest.mark.parametrize("seed", range(2))
def test_after_random_operations_examples_hold_their_tokens(kind, seed):
    """Many random operations on a cache and on plain lists of the same tokens."""
    rng, numbers = np.random.default_rng(seed), itertools.count()
    cache = poisoned(MAKE[kind]())
    rows = [Row(WINDOW + CHUNK if kind == "sliding" else None) for _ in range(B)]
    for _ in range(40):
        action = rng.choice(
            [
                append_random_tokens,
                append_random_tokens,
                append_random_tokens,
                rewind_by_random_lengths,
                reorder_at_random,
                reset_at_random,
            ]
        )
        cache, rows = action(cache, rows, rng, numbers)
        check(cache, rows)


def append_random_tokens(cache, rows, rng, numbers):
    room = PIECE if cache.capacity is None else L - max(row.length for row in rows)
    real = rng.permuted(np.arange(PIECE)[None, :] < rng.integers(room + 1, size=(B, 1)), axis=1)
    new = np.array([[next(numbers) for _ in range(PIECE)] for _ in range(B)], np.float32)
    key = jnp.broadcast_to(jnp.asarray(new)[..., None, None], (B, PIECE, K, H))
    cache, _ = append(cache, key, key[..., :V], jnp.asarray(real))
    for row, number, is_real in zip(rows, new, real, strict=True):
        for one in number[is_real]:
            row.append(float(one))
    return cache, rows


def rewind_by_random_lengths(cache, rows, rng, _):
    lengths = [
        int(rng.choice([n for n in range(row.length + 1) if row.can_rewind_to(n)])) for row in rows
    ]
    rows = [row.copy(length) for row, length in zip(rows, lengths, strict=True)]
    return rewind(cache, jnp.array(lengths)), rows


def reorder_at_random(cache, rows, rng, _):
    order = rng.integers(B, size=B)
    return reorder(cache, jnp.asarray(order)), [rows[b].copy() for b in order]


def reset_at_random(cache, rows, rng, _):
    which = rng.random(B) < 0.5
    fresh = [row.copy(0) if new else row for row, new in zip(rows, which, strict=True)]
    return reset(cache, jnp.asarray(which)), fresh


def check(cache, rows):
    assert cache.lengths.tolist() == [row.length for row in rows]
    assert not cache.overflowed.any()
    held = contents_of(cache)
    for b, row in enumerate(rows):
        positions, keys, values = stored(held, b)
        expected = sorted(row.stored_numbers().items())
        assert positions.tolist() == [place for place, _ in expected]
        numbers = np.array([number for _, number in expected], np.float32)[:, None, None]
        np.testing.assert_array_equal(keys, np.broadcast_to(numbers, keys.shape))
        np.testing.assert_array_equal(values, np.broadcast_to(numbers, values.shape))


def test_a_sliding_cache_rewinds_at_most_one_chunk_from_its_greatest_length():
    cache, _ = filled("sliding")
    back = rewind(cache, jnp.array([L - 2, L, L - CHUNK]))
    with pytest.raises(caches.CacheOverflow, match=r"lengths\[1\] must be at least 9, .* been 12 "):
        back.rewind(jnp.array([L - 2, L - CHUNK - 1, L - CHUNK]))
    twice = rewind(back, jnp.array([L - 4, L - CHUNK, L - CHUNK]))
    assert twice.overflowed.tolist() == [True, False, False]
    assert twice.lengths.tolist() == [L - 2, L - CHUNK, L - CHUNK]
    assert rewind(back, jnp.zeros(B, int)).overflowed.tolist() == [False] * B


@KINDS
def test_impossible_operations_change_nothing_and_set_the_overflow_flag_under_jit(kind):
    cache, _ = filled(kind, 4)
    forward = rewind(cache, jnp.array([5, 4, -1]))
    assert forward.lengths.tolist() == [4, 4, 4]
    assert forward.overflowed.tolist() == [True, False, True]
    moved = reorder(cache, jnp.array([B, 1, -1]))
    assert moved.overflowed.tolist() == [True, False, True]
    for row in range(B):
        assert_holds(contents_of(moved), row, KEY[row, :4], VALUE[row, :4])


@KINDS
@pytest.mark.parametrize("int8", [False, True])
def test_every_method_keeps_the_structure_and_compiles_once_for_every_length(kind, int8):
    start = MAKE[kind](int8=int8)
    structure = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), start)
    one = jax.jit(lambda cache, key, value: cache.append(key, value)[0], donate_argnums=0)
    cache = MAKE[kind](int8=int8)
    for t in range(L):
        cache = one(cache, KEY[:, t : t + 1], VALUE[:, t : t + 1])
    assert one._cache_size() == 1
    steps = tuple(array.swapaxes(0, 1)[:, :, None] for array in (KEY, VALUE))
    scanned, _ = jax.lax.scan(lambda cache, token: (cache.append(*token)[0], None), start, steps)
    jax.tree.map(assert_equal, scanned, cache)
    later = cache.reorder(jnp.array([2, 0, 1])).rewind(jnp.full(B, L - 1))
    later = later.reset(jnp.array([True, False, False]))
    for other in (cache, scanned, later):
        assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), other) == structure


@KINDS
def test_a_stack_of_caches_is_mapped(kind):
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), filled(kind)[0], filled(kind, 4)[0])
    both, held = jax.vmap(lambda cache: cache.append(KEY[:, :1], VALUE[:, :1]))(stack)
    too_many = kind != "sliding"
    assert both.overflowed.tolist() == [[too_many] * B, [False] * B]
    second = jax.tree.map(lambda leaf: leaf[1], held)
    for row in range(B):
        assert_holds(second, row, [*KEY[row, :4], KEY[row, 0]], [*VALUE[row, :4], VALUE[row, 0]])


@KINDS
def test_a_donated_cache_is_written_in_place(kind):
    make = {
        "contiguous": lambda: caches.contiguous(B, 1024, K, H, V),
        "sliding": lambda: caches.sliding(B, 1023, K, H, V),
        "paged": lambda: caches.paged(B, 1024, K, H, V),
    }[kind]
    one = jax.jit(lambda cache, key, value: cache.append(key, value)[0], donate_argnums=0)
    memory = one.lower(make(), KEY[:, :1], VALUE[:, :1]).compile().memory_analysis()
    size = B * 1024 * K * (H + V) * 4
    assert memory.alias_size_in_bytes >= size
    assert memory.temp_size_in_bytes < size / 8


@pytest.mark.parametrize("kind", ["contiguous", "sliding"])
def test_sharded_examples_and_heads_need_no_communication(kind):
    mesh = jax.make_mesh((4, 2), ("row", "head"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    make = {"contiguous": caches.contiguous, "sliding": caches.sliding}[kind]

    def place(leaf):
        spec = ("row", "head") if leaf.ndim == 4 else ("row",)
        return jax.NamedSharding(mesh, jax.P(*spec))

    cache = make(4, 8, K, H, V)
    by_token = jax.NamedSharding(mesh, jax.P("row", None, "head"))
    keys, values = (jax.device_put(jnp.ones((4, 1, K, W)), by_token) for W in (H, V))
    cache = jax.device_put(cache, jax.tree.map(place, cache))
    one = jax.jit(lambda cache, key, value: cache.append(key, value))
    text = one.lower(cache, keys, values).compile().as_text()
    assert "dynamic-update-slice" in text or "scatter" in text
    assert not any(word in text for word in ("all-gather", "all-reduce", "permute(", "all-to-all"))
    assert one(cache, keys, values)[0].key.sharding.spec[:2] == ("row", "head")


@KINDS
def test_int8_entries_are_off_by_at_most_half_a_step(kind):
    key = KEY.at[0, 0, 0].set(0).at[1].multiply(1e4).at[2].multiply(1e-30)
    _, held = append(MAKE[kind](int8=True), key[:, :PIECE], VALUE[:, :PIECE])
    for row, b in itertools.product((0, 1), range(B)):
        got, wanted = stored(held, b)[1 + row], np.asarray((key, VALUE)[row])[b, :PIECE]
        bound = np.abs(wanted).max(axis=-1, keepdims=True) / 254
        assert (np.abs(got - wanted) <= bound * (1 + 1e-5)).all()
        assert (got != wanted).any()
    assert not np.asarray(held.key)[0, 0, 0].any()


@pytest.mark.parametrize("kind", ["contiguous", "sliding"])
def test_a_long_piece_is_rounded_to_int8_before_it_is_attended_to(kind):
    real = jnp.ones((B, L), bool)
    _, held = append(poisoned(MAKE[kind](int8=True)), KEY, VALUE, real)
    cache, later = filled(kind, int8=True)
    first = L - WINDOW - CHUNK if kind == "sliding" else 0
    np.testing.assert_array_equal(stored(held, 1)[1][first:], stored(later, 1)[1])
    assert jax.tree.leaves(cache.key)[0].dtype == jnp.int8


def test_tokens_are_stored_in_the_dtype_of_the_cache_and_returned_in_their_own():
    key, value = (array.astype(jnp.bfloat16) for array in (KEY, VALUE))
    cache, held = append(caches.contiguous(B, L, K, H, V, dtype=jnp.float16), key, value)
    assert held.key.dtype == held.value.dtype == jnp.bfloat16
    assert cache.key.dtype == cache.value.dtype == jnp.float16
    assert_equal(held.key, key.astype(jnp.float16).astype(jnp.bfloat16))
