"""Block masks against a loop over all pairs: no unmasked pair is skipped, full tiles are full."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn_jax
from attn_jax import masks
from tests.helpers.tolerance import assert_equal, assert_within

T, S, TILE = 11, 13, (3, 4)
AT_THE_END = jnp.arange(S - T, S)
IDS = np.repeat([0, 1, 2, -1], [4, 5, 3, 1])
RULES = {
    "causal": masks.causal(),
    "window": masks.sliding_window(4, 1),
    "padding": masks.key_padding(6),
    "documents": masks.segments(IDS),
    "array": masks.from_array(np.random.default_rng(0).random((S, S)) < 0.2),
    "callable": lambda i, j: (i - j) % 5 == 0,
    "combination": masks.causal() & ~masks.key_padding(2) & (lambda i, j: i - j < 6),
}


def built(mask, **options):
    place = {"query_position": AT_THE_END, "key_position": jnp.arange(S)}
    rows = {"query_row": AT_THE_END, "key_row": jnp.arange(S)}
    return attn_jax.block_mask(mask, T, S, **place, **rows, **{"tile": TILE, **options})


def kinds_of(block) -> np.ndarray:
    """2 for full tiles, 1 for partial ones, 0 for tiles in no list."""
    kinds = np.zeros(block.lists.order.shape, int)
    rows = zip(block.lists.order, block.lists.full, block.lists.partial, strict=True)
    for row, (order, full, partial) in zip(kinds, rows, strict=True):
        row[np.asarray(order[:full])] = 2
        row[np.asarray(order[full : full + partial])] = 1
    return kinds


def kinds_by_loop(mask) -> np.ndarray:
    """The kinds of tiles by a loop over all pairs; a tile beyond the end is never full."""
    unmasked = np.asarray(
        masks.evaluate(mask, AT_THE_END, jnp.arange(S), query_row=AT_THE_END, key_row=jnp.arange(S))
    )
    t, s = TILE
    kinds = np.zeros((-(-T // t), -(-S // s)), int)
    for I, J in np.ndindex(kinds.shape):
        part = unmasked[I * t : (I + 1) * t, J * s : (J + 1) * s]
        is_whole = part.shape == TILE
        kinds[I, J] = 2 if part.all() and is_whole else int(part.any())
    return kinds


@pytest.mark.parametrize("name", RULES)
def test_tile_lists_hold_the_tiles_that_are_not_empty(name):
    block, expected = built(RULES[name]), kinds_by_loop(RULES[name])
    given = kinds_of(block)
    if name == "combination":  # `some & some` may keep an empty tile, never lose one
        assert (given >= expected).all()
        assert_equal(given == 2, expected == 2)
    else:
        assert_equal(given, expected)
    orders = np.sort(np.asarray(block.lists.order), axis=1)
    assert_equal(orders, np.tile(np.arange(4, dtype=np.int32), (4, 1)))


def test_sparsity_is_the_fraction_of_empty_tiles():
    block = built(masks.sliding_window(4, 1))
    expected = np.mean(kinds_by_loop(masks.sliding_window(4, 1)) == 0)
    assert 0.2 < expected < 0.8
    assert_within(block.sparsity, np.float32(expected), 1e-6)


def test_printing_draws_the_tiles():
    block = attn_jax.block_mask(masks.causal(), 6, 6, tile=(2, 2))
    name, *lines = str(block).splitlines()
    assert name == "BlockMask(causal(), 6, 6, tile=(2, 2)): 33% empty"
    assert lines == ["▒··", "■▒·", "■■▒"]
    assert repr(built(lambda i, j: i < j)) == "BlockMask(<traced function>, 11, 13, tile=(3, 4))"


def test_lambdas_that_do_the_same_share_a_compiled_search():
    from attn_jax._block_mask import _build

    def near(width):
        return lambda i, j: abs(i - j) < width

    first = built(near(jnp.int32(2)))
    before = _build._cache_size()
    second = built(near(jnp.int32(4)))
    assert _build._cache_size() == before
    assert float(second.sparsity) < float(first.sparsity)


def test_a_block_mask_passes_through_jit_and_vmap():
    lengths = jnp.array([3, 9])

    @jax.jit
    @jax.vmap
    def sparsity(length):
        return attn_jax.block_mask(masks.key_padding(length), T, S, tile=TILE)

    blocks = sparsity(lengths)
    expected = [np.mean(kinds_by_loop(masks.key_padding(n)) == 0) for n in (3, 9)]
    assert_within(blocks.sparsity, np.array(expected, np.float32), 1e-6)
    assert str(blocks) == repr(blocks)
    doubled = jax.jit(lambda block: block)(built(masks.causal()))
    assert doubled.tile == TILE
    assert_equal(kinds_of(doubled), kinds_by_loop(masks.causal()))


def test_the_mask_of_a_block_mask_uses_its_positions():
    block = built(masks.segments(IDS))
    expected = np.array([[IDS[i] == IDS[j] >= 0 for j in range(S)] for i in range(S - T, S)])
    assert_equal(masks.evaluate(block.mask, block.query_position, block.key_position), expected)


WRONG = {
    "no alignment": (lambda: attn_jax.block_mask(masks.causal(), T, S), "query_position"),
    "no keys": (
        lambda: attn_jax.block_mask(masks.causal(), 3, 0),
        "key_length must be an int >= 1",
    ),
    "no tile": (lambda: attn_jax.block_mask(masks.causal(), 3, 3, tile=(0, 2)), "tile"),
    "positions of another length": (
        lambda: attn_jax.block_mask(
            masks.causal(), 3, 3, query_position=jnp.arange(3), key_position=jnp.arange(4)
        ),
        "key_position",
    ),
    "array": (lambda: attn_jax.block_mask(jnp.ones((3, 3), bool), 3, 3), "mask"),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_named(name):
    call, message = WRONG[name]
    with pytest.raises((TypeError, ValueError), match=message):
        call()
