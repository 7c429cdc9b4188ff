"""Masks and score mods with positions, windows and lengths near the limits of int32."""

import jax.numpy as jnp
import numpy as np
import pytest

import attn_jax
from attn_jax import masks, score_mods
from attn_jax._base.grid import Grid, TileShape
from attn_jax._block_mask import classify
from tests.helpers.tolerance import assert_equal

END = 2**31 - 1
QUERIES = [-END - 1, -END, -7, 0, 2, END - 1, END]
KEYS = [-END - 1, -9, -1, 0, 4, 2**30, END - 3, END - 2, END]

RULES = {
    "causal": (masks.causal(), lambda i, j: j <= i),
    "near": (masks.sliding_window(3, 1), lambda i, j: -3 <= j - i <= 1),
    "far back": (masks.sliding_window(END - 1, 0), lambda i, j: -END < j - i <= 0),
    "far ahead": (masks.sliding_window(2, END - 1), lambda i, j: -2 <= j - i < END),
    "not far back": (~masks.sliding_window(END - 1, 0), lambda i, j: not -END < j - i <= 0),
    "dilated": (
        masks.dilated(3, 1, 2**29),
        lambda i, j: -3 * 2**29 <= j - i <= 2**29 and (j - i) % 2**29 == 0,
    ),
    "dilated by 3": (masks.dilated(2, 1, 3), lambda i, j: j - i in (-6, -3, 0, 3)),
    "padding": (masks.key_padding(END), lambda i, j: j < END),
}


def written(rule) -> np.ndarray:
    return np.array([[rule(i, j) for j in KEYS] for i in QUERIES])


@pytest.mark.parametrize("name", RULES)
def test_masks_follow_their_definitions_where_differences_do_not_fit_int32(name):
    mask, rule = RULES[name]
    i, j = jnp.array(QUERIES, jnp.int32), jnp.array(KEYS, jnp.int32)
    assert_equal(masks.evaluate(mask, i, j), written(rule))


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("shape", [TileShape(1, 1), TileShape(2, 3)], ids=str)
def test_tiles_of_far_positions_are_never_wrongly_empty_or_full(name, shape):
    mask, rule = RULES[name]
    i, j = jnp.array(QUERIES, jnp.int32), jnp.array(KEYS, jnp.int32)
    given = classify(mask, Grid.of(i, j, shape))
    unmasked = written(rule)
    for (row, column), some in np.ndenumerate(np.asarray(given.some)):
        t, s = shape
        part = unmasked[row * t : (row + 1) * t, column * s : (column + 1) * s]
        assert some or not part.any(), "a tile with unmasked pairs is skipped"
        assert part.all() or not given.every[row, column], "a tile with hidden pairs is read whole"
        if shape == (1, 1):
            assert some == part.any()
            assert given.every[row, column] == part.all()


def test_alibi_decreases_with_far_distances_up_to_the_greatest_int32():
    mod = score_mods.alibi(2.0**-31)
    for i in QUERIES:
        for j in KEYS:
            steps = min(abs(i - j), END)
            given = mod(jnp.float32(1), jnp.int32(i), jnp.int32(j))
            assert float(given) == float(1 - np.float32(2.0**-31) * np.float32(steps))


@pytest.mark.parametrize("bidirectional", [True, False])
def test_far_positions_are_in_the_last_bucket_of_their_direction(bidirectional):
    table = jnp.arange(8, dtype=jnp.float32)
    mod = score_mods.relative_bias(table, bidirectional=bidirectional, max_distance=100)
    far = {-1: 3 if bidirectional else 7, 1: 7 if bidirectional else 0}
    for i, j in ((-END - 1, END), (END, -END - 1), (END, -1), (-9, END - 2), (2, -END)):
        assert float(mod(jnp.float32(0), jnp.int32(i), jnp.int32(j))) == far[1 if j > i else -1]
    ends = jnp.array([-END - 1, -END, END], jnp.int32)
    buckets = score_mods.relative_bucket(ends, bidirectional=bidirectional, num_buckets=8)
    assert buckets.tolist() == [far[-1], far[-1], far[1]]


def attention(**options):
    x = jnp.ones((1, 2, 1, 4))
    return attn_jax.dot_product_attention(x, x, x, **options)


BEYOND = {
    "window": (lambda: masks.sliding_window(2**31, 0), "window must be below 2147483647"),
    "window ahead": (lambda: masks.sliding_window(0, END), "window must be below 2147483647"),
    "window of a call": (
        lambda: attention(local_window_size=2**40),
        "local_window_size must be below",
    ),
    "dilation": (lambda: masks.dilated(2**16, 0, 2**16), "window times dilation must be below"),
    "length": (lambda: masks.key_padding(2**40), "length must be at most 2147483647"),
    "prefix": (lambda: masks.prefix(2**31), "length must be at most 2147483647"),
    "array of lengths": (
        lambda: masks.key_padding(np.array([3, 2**31])),
        "length must be within int32; got 2147483648",
    ),
    "documents": (
        lambda: masks.segments(np.array([5, 2**32 + 5])),
        "query_ids must be within int32; got 4294967301",
    ),
    "positions": (
        lambda: attn_jax.attend(*[jnp.ones((2, 4))] * 3, query_position=np.array([0, 2**40])),
        "query_position must be within int32",
    ),
    "positions of a call": (
        lambda: attention(key_position=np.array([0, -(2**32)])),
        "key_position must be within int32",
    ),
}


@pytest.mark.parametrize("name", BEYOND)
def test_numbers_beyond_int32_are_refused_where_they_are_given(name, no_type_hook):
    call, message = BEYOND[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_jax_arrays_of_64_bit_lengths_are_clipped_to_int32(x64):
    mask = masks.key_padding(jnp.array([2, 2**40, -(2**40)]))
    assert mask.length.dtype == jnp.int32
    assert mask.length.tolist() == [2, END, -END]
