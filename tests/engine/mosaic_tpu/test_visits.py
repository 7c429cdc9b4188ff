"""Lists of visits equal a plain enumeration: every order, groups, shared axes, chunks."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_jax._base.grid import Kinds
from attn_jax._engine.kernels.mosaic_tpu import visits as lists
from attn_jax._engine.kernels.mosaic_tpu.visits import FIRST, FULL, LAST, PARTIAL, visits

SIZES = 2, 3
I, J = 5, 4


def drawn(lead, seed=0):
    """Kinds of tiles in which a row, a column and whole heads are empty."""
    rng = np.random.default_rng(seed)
    some = rng.random((*lead, I, J)) < 0.6
    some[..., 2, :] = False
    some[..., 1] = False
    if lead[0] > 1:
        some[0] = False
    return some, some & (rng.random(some.shape) < 0.5)


def enumerated(some, every, order, grouped):
    """For each list (by its leading indices) its entries: row, column, member and flags."""
    outer = [n for n in range(2) if not grouped[n]]
    group = [n for n in range(2) if grouped[n]]
    found = {}
    for head in itertools.product(*(range(some.shape[n]) for n in outer)):
        found[head] = []
        for major in itertools.product(*(range(n) for n in _major(order))):
            of_major = []
            members = itertools.product(*(range(SIZES[n]) for n in group))
            for number, member in enumerate(members):
                at = dict(zip((*outer, *group), (*head, *member), strict=True))
                lead = tuple(at[n] if some.shape[n] > 1 else 0 for n in range(2))
                for row, column in _tiles(order, major):
                    if some[lead][row, column]:
                        kind = FULL if every[lead][row, column] else PARTIAL
                        of_major.append([row, column, number, kind])
            if not of_major and order != "tile":
                of_major = [[*next(_tiles(order, major)), 0, 0]]
            for entry, flag in ((0, FIRST), (-1, LAST)):
                if of_major:
                    of_major[entry][3] |= flag
            found[head] += of_major
    return found


def _major(order):
    return {"row": (I,), "column": (J,), "tile": (I, J)}[order]


def _tiles(order, major):
    if order == "row":
        return ((major[0], column) for column in range(J))
    if order == "column":
        return ((row, major[0]) for row in range(I))
    return iter([major])


def read(found, head):
    """The entries of one list, chunk after chunk."""
    entries = []
    place, flags, count = (np.asarray(x) for x in (found.place, found.flags, found.count))
    for chunk in range(len(place)):
        at = (chunk, *head)
        for n in range(count[at]):
            tile, flag = int(place[at][n]), int(flags[at][n])
            entries.append([tile >> 16, tile & 0xFFFF, flag >> 4, flag & 15])
    return entries


def compiled(some, every, order, grouped):
    make = functools.partial(visits, order=order, sizes=SIZES, grouped=grouped)
    return jax.jit(make)(Kinds(jnp.asarray(some), jnp.asarray(every)))


# Leading axes of the kinds, and which of the mapped axes form a group.
HEADS = [
    ((2, 3), (False, False)),
    ((2, 3), (False, True)),
    ((2, 3), (True, True)),
    ((1, 3), (True, False)),
    ((2, 1), (False, True)),
    ((1, 1), (False, False)),
]


@pytest.mark.parametrize("most", [2**16, 30, 1], ids=["one chunk", "chunks", "chunks of a row"])
@pytest.mark.parametrize("order", ["row", "column", "tile"])
def test_lists_are_those_of_a_plain_enumeration(order, most, monkeypatch):
    monkeypatch.setattr(lists, "MOST_ENTRIES", most)
    chunks = []
    for lead, grouped in HEADS:
        some, every = drawn(lead)
        found = compiled(some, every, order, grouped)
        expected = enumerated(some, every, order, grouped)
        assert found.count.shape[1:] == tuple(
            n for n, is_grouped in zip(lead, grouped, strict=True) if not is_grouped
        )
        for head, entries in expected.items():
            assert read(found, head) == entries, (lead, grouped, head)
        chunks.append(found.count.shape[0])
    assert max(chunks) > 1 if most < 2**16 else max(chunks) == 1


def test_entries_after_the_last_do_nothing_and_move_no_block():
    some, every = drawn((2, 3))
    found = compiled(some, every, "row", (False, False))
    count = int(found.count[0, 1, 2])
    assert 0 < count < found.place.shape[-1]
    rest = found.flags[0, 1, 2, count:]
    assert not np.any(rest & (FIRST | LAST | FULL | PARTIAL))
    np.testing.assert_array_equal(
        found.place[0, 1, 2, count:], np.full(rest.shape, found.place[0, 1, 2, count - 1])
    )


def test_a_chunk_holds_no_more_entries_than_scalar_memory_takes(monkeypatch):
    monkeypatch.setattr(lists, "MOST_ENTRIES", 2 * 3 * 2 * J)
    some, every = drawn((2, 3))
    found = compiled(some, every, "row", (False, False))
    assert found.place.shape == (3, 2, 3, 2 * J)
