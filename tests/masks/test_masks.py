"""Masks against their definitions in loops: for pairs, for tiles and in combinations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_jax import masks
from attn_jax._base import tables
from attn_jax._base.grid import Grid, TileShape
from attn_jax._base.tables import Rows
from attn_jax._block_mask import classify
from tests.helpers.tolerance import assert_equal

T, S, P = 7, 11, 16
IDS = np.array([0, 0, 0, 2, 2, 5, 5, 5, 5, 7, 7, -1, 8, 8, -1, -1])
KEY_IDS = np.array([5, 5, 0, 0, -1, 2, 2, 2, 8, 8, 7, 7, 7, 0, 5, -1])
WRITTEN = np.random.default_rng(3).random((P, P)) < 0.3

# A mask, and its definition on two Python ints.
RULES = {
    "causal": (masks.causal(), lambda i, j: j <= i),
    "window": (masks.sliding_window(3, 1), lambda i, j: i - 3 <= j <= i + 1),
    "padding": (masks.key_padding(6), lambda i, j: j < 6),
    "prefix": (masks.prefix(4), lambda i, j: j < 4 or j <= i),
    "dilated": (masks.dilated(3, 2, 2), lambda i, j: j - i in (-6, -4, -2, 0, 2, 4)),
    "segments": (masks.segments(IDS), lambda i, j: IDS[i] == IDS[j] and IDS[i] >= 0),
    "two segments": (
        masks.segments(IDS, KEY_IDS),
        lambda i, j: IDS[i] == KEY_IDS[j] and IDS[i] >= 0,
    ),
    "array": (masks.from_array(WRITTEN), lambda i, j: WRITTEN[i, j]),
    "array of keys": (masks.from_array(WRITTEN[:1]), lambda i, j: WRITTEN[0, j]),
    "array of queries": (masks.from_array(WRITTEN[:, :1]), lambda i, j: WRITTEN[i, 0]),
    "and": (masks.causal() & masks.sliding_window(2, 2), lambda i, j: i - 2 <= j <= i),
    "or": (masks.key_padding(3) | masks.segments(IDS), lambda i, j: j < 3 or IDS[i] == IDS[j] >= 0),
    "not": (~(masks.causal() | masks.key_padding(5)), lambda i, j: j > i and j >= 5),
    "callable": (
        masks.causal() & (lambda i, j: (i + j) % 3 == 0),
        lambda i, j: j <= i and (i + j) % 3 == 0,
    ),
    "plain callable": (lambda i, j: (i + 2 * j) % 5 == 0, lambda i, j: (i + 2 * j) % 5 == 0),
    "callable first": (
        (lambda i, j: j % 2 == 0) | masks.causal(),
        lambda i, j: j % 2 == 0 or j <= i,
    ),
}
EXACT = ["causal", "padding", "prefix", "array", "plain callable"]
EXACT_WITHOUT_GAPS = ["window", "dilated"]


def loops(rule, query_position, key_position) -> np.ndarray:
    return np.array([[bool(rule(int(i), int(j))) for j in key_position] for i in query_position])


def positions(seed: int) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(rng.permutation(P)[:n], jnp.int32) for n in (T, S))


def tiles(unmasked: np.ndarray, t: int, s: int) -> tuple[np.ndarray, np.ndarray]:
    """Whether some, and whether every real pair of each tile is unmasked."""
    rows, columns = range(0, T, t), range(0, S, s)
    parts = [[unmasked[i : i + t, j : j + s] for j in columns] for i in rows]
    some = [[part.any() for part in row] for row in parts]
    every = [[part.all() for part in row] for row in parts]
    return np.array(some), np.array(every)


def evaluate(mask, i, j):
    """The mask as an array, with row numbers as positions."""
    return masks.evaluate(mask, i, j, query_row=i, key_row=j)


def tile_kinds(mask, i, j, shape):
    return classify(tables.order(mask, Rows(i.size, j.size, i, j)), Grid.of(i, j, shape))


@pytest.mark.parametrize("name", RULES)
def test_masks_follow_their_definitions_at_any_positions(name, run):
    mask, rule = RULES[name]
    i, j = positions(0)
    assert_equal(run(evaluate)(masks.as_pytree(mask), i, j), loops(rule, i, j))
    assert_equal(evaluate(mask, i, j), loops(rule, i, j))


@pytest.mark.parametrize("name", RULES)
def test_a_mask_with_tables_in_order_evaluates_to_the_same(name):
    mask, rule = RULES[name]
    i, j = positions(1)
    ordered = tables.order(mask, Rows(i.size, j.size, i, j))
    assert_equal(masks.evaluate(ordered, i, j), loops(rule, i, j))


@pytest.mark.parametrize("hoisted", [False, True], ids=["as given", "as pytree"])
@pytest.mark.parametrize("name", RULES)
def test_tiles_are_never_wrongly_empty_or_full(name, hoisted):
    mask, rule = RULES[name]
    shape = TileShape(3, 2)
    for seed in range(5):
        i, j = positions(seed)
        given = tile_kinds(masks.as_pytree(mask) if hoisted else mask, i, j, shape)
        some, every = tiles(loops(rule, i, j), *shape)
        assert given.some.shape == given.every.shape == some.shape
        assert not (some & ~np.asarray(given.some)).any(), "a tile with unmasked pairs is skipped"
        assert not (np.asarray(given.every) & ~every).any(), (
            "a tile with masked pairs counts as full"
        )
        if name in EXACT:
            assert_equal(given.some, some)
            assert_equal(given.every, every)
        if name == "window":
            assert_equal(given.every, every)


@pytest.mark.parametrize("name", [*EXACT, *EXACT_WITHOUT_GAPS])
@pytest.mark.parametrize("start", [0, 4])
def test_kinds_of_tiles_are_exact_if_positions_have_no_gaps(name, start):
    mask, rule = RULES[name]
    i, j = jnp.arange(start, start + T, dtype=jnp.int32), jnp.arange(S, dtype=jnp.int32)
    for shape in (TileShape(2, 3), TileShape(1, 1)):
        given = tile_kinds(mask, i, j, shape)
        some, every = tiles(loops(rule, i, j), *shape)
        assert some.any()
        assert not some.all()
        assert_equal(given.some, some)
        assert_equal(given.every, every)


def test_tiles_of_pairs_of_different_documents_are_empty():
    i = jnp.arange(12, dtype=jnp.int32)
    mask = masks.segments(np.array([0, 0, 0, 1, 1, 1, 2, -1, -1, -1, -1, -1]))
    given = tile_kinds(mask, i, i, TileShape(3, 3))
    assert_equal(given.some, np.diag([True, True, True, False]))
    assert_equal(given.every, np.diag([True, True, False, False]))


def test_rows_beyond_the_end_of_a_table_are_fully_masked():
    i, j = jnp.array([1, P, -1]), jnp.array([0, 1, P, -1])
    expected = np.zeros((3, 4), bool)
    expected[0, :2] = True
    for mask in (masks.segments(IDS), masks.from_array(np.ones((P, P), bool))):
        assert_equal(evaluate(mask, i, j), expected)


@pytest.mark.parametrize("sizes", [(0, 3), (3, 0), (0, 0)])
def test_no_queries_or_no_keys_give_an_empty_array(sizes):
    i, j = (jnp.arange(n) for n in sizes)
    for mask in (masks.causal(), masks.segments(IDS), lambda i, j: i < j):
        out = evaluate(mask, i, j)
        assert out.shape == sizes
        assert out.dtype == jnp.bool_


def test_two_lambdas_that_do_the_same_are_compiled_once():
    traces = []

    @jax.jit
    def count(mask):
        traces.append(mask)
        return masks.evaluate(mask, jnp.arange(4), jnp.arange(5)).sum()

    def near(width):
        return masks.as_pytree(masks.causal() & (lambda i, j: i - j < width))

    assert [int(count(near(jnp.int32(width)))) for width in (1, 2, 3)] == [4, 7, 9]
    assert len(traces) == 1
    assert int(count(masks.as_pytree(masks.causal() & (lambda i, j: i - j <= jnp.int32(0))))) == 4
    assert len(traces) == 2


def test_lengths_share_one_compilation():
    traces = []

    @jax.jit
    def count(mask):
        traces.append(mask)
        return masks.evaluate(mask, jnp.arange(2), jnp.arange(5)).sum()

    lengths = (3, np.int64(4), jnp.array([5])[0], jnp.array(1, jnp.int8))
    masked = [masks.as_pytree(masks.key_padding(length)) for length in lengths]
    assert [int(count(mask)) for mask in masked] == [6, 8, 10, 2]
    assert len(traces) == 1


def test_a_mask_as_a_pytree_has_arrays_as_leaves_and_is_unchanged():
    mask = masks.as_pytree(masks.prefix(2) & masks.segments(IDS) & (lambda i, j: i > j))
    leaves = jax.tree.leaves(mask)
    assert len(leaves) == 3
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    again = masks.as_pytree(mask)
    assert jax.tree.structure(again) == jax.tree.structure(mask)


def test_masks_map_over_their_arrays():
    lengths, ids = jnp.array([1, 3]), jnp.array([[0, 0, 1], [0, 1, 1]])
    at = jnp.arange(3)

    def written(length, ids):
        return masks.evaluate(masks.key_padding(length) & masks.segments(ids), at, at)

    expected = [
        [[row[i] == row[j] and j < n for j in range(3)] for i in range(3)]
        for n, row in zip(lengths.tolist(), ids.tolist(), strict=True)
    ]
    assert_equal(jax.vmap(written)(lengths, ids), np.array(expected))


@pytest.mark.parametrize("through", [lambda mask: mask, masks.as_pytree], ids=["given", "pytree"])
def test_composed_and_hoisted_masks_still_require_positions(through):
    def rule(i, j):
        return j < 2

    padding = masks.key_padding(3)
    aligned = [masks.causal(), masks.prefix(2), masks.dilated(1, 1, 2)]
    for mask in (*aligned, rule, padding & rule, ~masks.causal()):
        assert masks.is_aligned(through(mask))
    by_row = masks.segments(IDS), masks.from_array(WRITTEN)
    for mask in (padding, ~padding, padding | masks.key_padding(1), *by_row):
        assert not masks.is_aligned(through(mask))


def test_printing_a_mask_draws_it_under_its_name():
    mask = ~masks.causal() & masks.key_padding(jnp.int32(3))
    name, *lines = str(mask).splitlines()
    assert name == repr(mask) == "(~causal() & key_padding(length=3))"
    assert lines == ["·■■·····", "··■·····", *["········"] * 6]


def test_a_mask_of_unknown_arrays_prints_its_name_alone():
    printed = []

    @jax.jit
    def trace(length):
        printed.append(str(masks.key_padding(length)))
        printed.append(str(masks.causal() & (lambda i, j: j < length)))
        return length

    trace(jnp.int32(3))
    printed.append(str(masks.key_padding(jnp.array([3, 4]))))
    printed.append(str(masks.segments(np.zeros((2, 6), int))))
    assert printed == [
        "key_padding(length=int32[])",
        "(causal() & <lambda>)",
        "key_padding(length=int32[2])",
        "segments(query_ids=int32[2, 6], key_ids=int32[2, 6])",
    ]


WRONG = {
    "length is negative": (lambda: masks.key_padding(-1), "length must be >= 0; got -1"),
    "length is no integer": (lambda: masks.prefix(jnp.float32(2)), "length"),
    "window is negative": (lambda: masks.dilated(-1, 0, 2), "window must be two ints"),
    "dilation is zero": (lambda: masks.dilated(1, 0, 0), "dilation must be an int >= 1; got 0"),
    "ids are no integers": (lambda: masks.segments(jnp.zeros(3)), "query_ids"),
    "key ids are no integers": (lambda: masks.segments(IDS, jnp.zeros(3)), "key_ids"),
    "ids are a scalar": (lambda: masks.segments(jnp.int32(0)), "query_ids"),
    "array is additive": (lambda: masks.from_array(jnp.zeros((2, 3))), "mask"),
    "array is a row": (lambda: masks.from_array(np.ones(3, bool)), "mask"),
    "part is an array": (lambda: masks.causal() & WRITTEN[0, 0].item(), "masks.from_array|other"),
    "rule returns integers": (lambda: masks.as_pytree(lambda i, j: i - j), "mask must return"),
    "rule returns a row": (
        lambda: masks.as_pytree(lambda i, j: jnp.ones(2, bool)),
        r"mask must return .*got bool\[2\]",
    ),
    "rule returns nothing": (lambda: masks.as_pytree(lambda i, j: None), "mask must return"),
    "mask is no rule": (lambda: masks.as_pytree(3), "mask"),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_named(name):
    call, message = WRONG[name]
    with pytest.raises((TypeError, ValueError), match=message):
        call()
