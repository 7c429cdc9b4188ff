"""Pages are never lost, never overwritten while shared, and a shared prefix is stored once."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_jax import caches
from tests.caches.test_caches import (
    append_random_tokens,
    check,
    reorder_at_random,
    reset_at_random,
    rewind_by_random_lengths,
)
from tests.helpers.cache_cases import (
    MAKE,
    PAGE,
    PIECE,
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
    reorder,
    reset,
    rewind,
    tokens,
)

PAGES = B * L // PAGE
_, KEY, VALUE = tokens()
_, OTHER_KEY, OTHER_VALUE = tokens(1)
share = jax.jit(lambda cache, rows, length: cache.share(0, rows, length))


def these(*rows):
    return jnp.isin(jnp.arange(B), jnp.array(rows, int))


def filled(length, cache=None, rows=(0, 1, 2)):
    cache = MAKE["paged"]() if cache is None else cache
    for start in range(0, length, PIECE):
        *arrays, is_real = piece((KEY, VALUE), start, min(PIECE, length - start))
        cache, _ = append(cache, *arrays, is_real & these(*rows)[:, None])
    return cache


def more(cache, *rows):
    """One more token for these batch examples, different for each."""
    *arrays, is_real = piece((OTHER_KEY, OTHER_VALUE), 0, 1)
    return append(cache, *arrays, is_real & these(*rows)[:, None])


def examples_per_page(cache):
    return sorted((n for n in cache.references.tolist() if n), reverse=True)


@pytest.mark.parametrize(("length", "pages"), [(0, 0), (1, 3), (4, 3), (5, 6), (12, 9)])
def test_an_example_takes_as_many_pages_as_its_tokens_fill(length, pages):
    cache = filled(length)
    assert int(cache.free) == PAGES - pages
    assert examples_per_page(cache) == [1] * pages
    assert int(reset(cache, these(0, 1, 2)).free) == PAGES


def test_pages_are_freed_when_tokens_are_rewound():
    assert int(rewind(filled(9), jnp.array([8, 1, 0])).free) == PAGES - 2 - 1


def test_capacity_is_rounded_up_to_whole_pages():
    assert caches.paged(B, 9, K, H, page=PAGE).capacity == 12


def test_a_shared_prefix_is_stored_once():
    cache = share(filled(6), these(1, 2), 6)
    assert examples_per_page(cache) == [3, 3]
    for row in range(B):
        assert_holds(contents_of(cache), row, KEY[0, :6], VALUE[0, :6])


@pytest.mark.parametrize(
    ("length", "writers", "after"),
    [(6, (0, 1, 2), [3, 1, 1, 1]), (6, (1,), [3, 3]), (8, (0, 2), [3, 3, 1, 1])],
)
def test_a_page_is_copied_only_if_another_example_shares_it(length, writers, after):
    cache, held = more(share(filled(length), these(1, 2), length), *writers)
    assert examples_per_page(cache) == after
    for row in range(B):
        own = slice(0, 1 if row in writers else 0)
        assert_holds(
            held,
            row,
            [*KEY[0, :length], *OTHER_KEY[row, own]],
            [*VALUE[0, :length], *OTHER_VALUE[row, own]],
        )


def test_an_example_that_shares_a_part_of_a_page_gets_a_copy():
    cache, held = more(share(filled(4), these(1), 3), 1)
    assert_holds(held, 0, KEY[0, :4], VALUE[0, :4])
    assert_holds(held, 1, [*KEY[0, :3], OTHER_KEY[1, 0]], [*VALUE[0, :3], OTHER_VALUE[1, 0]])
    assert examples_per_page(cache) == [1, 1, 1]


def test_beams_that_continue_one_example_share_its_pages():
    moved = reorder(filled(9), jnp.array([1, 1, 1]))
    assert examples_per_page(moved) == [3, 3, 3]
    assert examples_per_page(more(moved, 0, 1, 2)[0]) == [3, 3, 1, 1, 1]


def test_without_free_pages_tokens_are_refused_or_flagged_and_the_other_examples_continue():
    cache = filled(4, caches.paged(B, L, K, H, V, page=PAGE, pages=4))
    with pytest.raises(caches.CacheOverflow, match=r"2 pages are missing, and all 4 are in use"):
        cache.append(KEY[:, 4:5], VALUE[:, 4:5])
    after, held = more(cache, 0, 1, 2)
    assert after.overflowed.tolist() == [False, True, True]
    assert after.lengths.tolist() == [5, 4, 4]
    for row in (1, 2):
        assert_holds(held, row, KEY[row, :4], VALUE[row, :4])


def test_tokens_that_fit_on_the_last_page_are_stored():
    cache = filled(3, caches.paged(B, L, K, H, V, page=PAGE, pages=1), rows=(1,))
    *arrays, is_real = piece((KEY, VALUE), 3, 3)
    after, held = append(cache, *arrays, is_real & these(1)[:, None])
    assert (after.lengths.tolist(), after.overflowed.tolist()) == ([0, 4, 0], [False, True, False])
    assert_holds(held, 1, KEY[1, :4], VALUE[1, :4])


def test_a_copy_without_a_free_page_leaves_the_shared_page_as_it_is():
    cache = filled(6, caches.paged(B, L, K, H, V, page=PAGE, pages=2), rows=(0,))
    cache, _ = more(share(cache, these(1), 6), 0)
    after, held = more(cache, 1)
    assert after.overflowed.tolist() == [False, True, False]
    assert_holds(held, 0, [*KEY[0, :6], OTHER_KEY[0, 0]], [*VALUE[0, :6], OTHER_VALUE[0, 0]])
    assert_holds(held, 1, KEY[0, :6], VALUE[0, :6])


def test_sharing_more_tokens_than_there_are_is_flagged_under_jit():
    cache = share(filled(5), these(1), 6)
    assert cache.overflowed.tolist() == [False, True, False]
    assert_holds(contents_of(cache), 1, KEY[1, :5], VALUE[1, :5])


@pytest.mark.parametrize("seed", range(4))
def test_after_random_sharing_examples_hold_their_tokens_and_no_page_is_lost(seed):
    rng, numbers = np.random.default_rng(seed), itertools.count()
    cache, rows = MAKE["paged"](), [Row() for _ in range(B)]
    for _ in range(40):
        action = rng.choice(
            [
                append_random_tokens,
                append_random_tokens,
                append_random_tokens,
                rewind_by_random_lengths,
                reorder_at_random,
                reset_at_random,
                share_the_prefix_of_the_first,
            ]
        )
        cache, rows = action(cache, rows, rng, numbers)
        check(cache, rows)
        in_use = {page for page in np.asarray(cache.table).ravel().tolist() if page >= 0}
        assert int(cache.free) == PAGES - len(in_use)
        needed = [-(-row.length // PAGE) for row in rows]
        assert np.asarray(cache.table >= 0).sum(axis=1).tolist() == needed


def share_the_prefix_of_the_first(cache, rows, rng, _):
    length, which = int(rng.integers(rows[0].length + 1)), rng.random(B) < 0.5
    rows = [rows[0].copy(length) if new else row for row, new in zip(rows, which, strict=True)]
    return share(cache, jnp.asarray(which), length), rows
