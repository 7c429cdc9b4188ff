"""Pages: none is lost, none is written by two rows, and a beginning is stored once."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from caches_for_tests import MAKE, PAGE, B, H, K, L, V, assert_holds, tokens

from attn_jax import caches

PAGES = B * L // PAGE


def rows(*which):
    return jnp.isin(jnp.arange(B), jnp.array(which, int))


def filled(length, **kept):
    _, key, value = tokens()
    return MAKE["paged"](**kept).append(key[:, :length], value[:, :length])


@pytest.mark.parametrize(("length", "pages"), [(0, 0), (1, 3), (4, 3), (5, 6), (12, 9)])
def test_a_row_takes_as_many_pages_as_its_tokens_fill(length, pages):
    cache, _ = filled(length)
    assert int(cache.free) == PAGES - pages
    assert int(cache.reset(rows(0, 1, 2)).free) == PAGES
    assert cache.references.max() <= 1


def test_pages_come_back_when_tokens_are_taken_back():
    cache, _ = filled(9)
    assert int(cache.rewind(jnp.array([8, 1, 0])).free) == PAGES - 2 - 1


def test_a_shared_beginning_is_stored_once_and_read_by_all():
    _, key, value = tokens()
    cache, _ = filled(6)
    free = int(cache.reset(rows(1, 2)).free)
    cache = cache.share(0, rows(1, 2), 6)
    assert int(cache.free) == free
    assert cache.references.max() == B
    _, held = cache.append(key[:, :0], value[:, :0])
    for row in range(B):
        assert_holds(held, row, key[0, :6], value[0, :6])


def test_a_page_that_others_read_is_copied_before_it_is_written():
    _, key, value = tokens()
    _, other_key, other_value = tokens(1)
    cache = filled(6)[0].share(0, rows(1, 2), 6)
    cache, held = cache.append(other_key[:, :1], other_value[:, :1])
    for row in range(B):
        assert_holds(
            held,
            row,
            jnp.concatenate([key[0, :6], other_key[row, :1]]),
            jnp.concatenate([value[0, :6], other_value[row, :1]]),
        )
    assert sorted(cache.references.tolist(), reverse=True)[:4] == [3, 1, 1, 1]


def test_full_pages_stay_shared():
    _, key, value = tokens()
    cache = filled(8)[0].share(0, rows(1, 2), 8)
    cache, _ = cache.append(key[:, :1], value[:, :1])
    assert sorted(cache.references.tolist(), reverse=True)[:5] == [3, 3, 1, 1, 1]


def test_without_pages_tokens_are_refused_or_flagged_and_the_others_go_on():
    _, key, value = tokens()
    cache, _ = caches.paged(B, L, K, H, V, page=PAGE, pages=4).append(key[:, :4], value[:, :4])
    with pytest.raises(caches.CacheOverflow, match=r"2 pages are missing: all 4 are in use"):
        cache.append(key[:, 4:5], value[:, 4:5])
    after, held = jax.jit(type(cache).append)(cache, key[:, 4:5], value[:, 4:5])
    assert after.overflowed.tolist() == [False, True, True]
    assert after.lengths.tolist() == [5, 4, 4]
    for row, length in enumerate(after.lengths.tolist()):
        assert_holds(held, row, key[row, :length], value[row, :length])


def test_a_copy_that_has_no_page_leaves_the_shared_one_as_it_is():
    _, key, value = tokens()
    cache = caches.paged(B, L, K, H, V, page=PAGE, pages=2)
    cache, _ = cache.append(key[:, :6], value[:, :6], rows(0)[:, None] & jnp.ones((1, 6), bool))
    cache = cache.share(0, rows(1), 6)
    only = rows(1)[:, None]
    after, held = jax.jit(type(cache).append)(cache, key[:, 6:7], value[:, 6:7], only)
    assert after.overflowed.tolist() == [False, True, False]
    for row in (0, 1):
        assert_holds(held, row, key[0, :6], value[0, :6])


ACTIONS = ("append", "reset", "rewind", "reorder", "share")


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_rows_hold_what_they_were_given(seed):
    """A long random life beside a list of tokens for each row, which is what a cache means."""
    rng, number = np.random.default_rng(seed), itertools.count()
    cache, lists = MAKE["paged"](), [[] for _ in range(B)]
    append = jax.jit(type(cache).append)
    for action in rng.choice(ACTIONS, size=40, p=(0.5, 0.1, 0.15, 0.1, 0.15)):
        if action == "append":
            room = L - max(map(len, lists))
            real = np.arange(3)[None, :] < rng.integers(0, min(room, 3) + 1, size=(B, 1))
            new = np.array([[next(number) for _ in range(3)] for _ in range(B)], np.float32)
            key = jnp.broadcast_to(jnp.asarray(new)[..., None, None], (B, 3, K, H))
            cache, _ = append(cache, key, key[..., :V], jnp.asarray(real))
            lists = [row + new[b][real[b]].tolist() for b, row in enumerate(lists)]
        elif action == "reset":
            row = int(rng.integers(B))
            cache, lists[row] = cache.reset(rows(row)), []
        elif action == "rewind":
            lengths = [int(rng.integers(len(row) + 1)) for row in lists]
            cache = cache.rewind(jnp.array(lengths))
            lists = [row[:length] for row, length in zip(lists, lengths, strict=True)]
        elif action == "reorder":
            order = rng.integers(B, size=B)
            cache, lists = cache.reorder(jnp.asarray(order)), [lists[b] for b in order]
        else:
            source, row = (int(b) for b in rng.integers(B, size=2))
            length = int(rng.integers(len(lists[source]) + 1))
            cache = cache.share(source, rows(row), length)
            lists[row] = lists[source][:length]
        check(cache, lists)


def check(cache, lists):
    assert cache.lengths.tolist() == list(map(len, lists))
    assert not cache.overflowed.any()
    in_use = {int(page) for page in np.asarray(cache.table).ravel() if page >= 0}
    assert int(cache.free) == PAGES - len(in_use)
    _, held = cache.append(jnp.zeros((B, 0, K, H)), jnp.zeros((B, 0, K, V)))
    for row, numbers in enumerate(lists):
        rows_of = np.asarray(numbers, np.float32)[:, None, None]
        assert_holds(
            held,
            row,
            np.broadcast_to(rows_of, (len(numbers), K, H)),
            np.broadcast_to(rows_of, (len(numbers), K, V)),
        )
