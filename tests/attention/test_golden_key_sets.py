"""The keys that each query attends to, against sets written by hand in data/golden_key_sets.json.

They fix the conventions (causal compares positions, a window counts other positions); no program
wrote them, so that no mistake is on both sides.
"""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn_jax
from attn_jax import masks
from tests.helpers.cases import IMPLEMENTATIONS
from tests.helpers.tolerance import assert_close, assert_equal

FILE = Path(__file__).parents[1] / "data" / "golden_key_sets.json"
ROWS = json.loads(FILE.read_text())["rows"]


def describe(row) -> str:
    rule = "causal" * row["causal"] + str(row["window"] or "")
    return f"{row['T']}x{row['S']} {rule} {row['query_position'] or ''}"


def visible(row) -> np.ndarray:
    """The written key sets as a boolean mask."""
    unmasked = np.zeros((row["T"], row["S"]), bool)
    for line, keys in zip(unmasked, row["visible"], strict=True):
        if keys:
            first, _, last = keys.partition("-")
            line[int(first) : int(last or first) + 1] = True
    return unmasked


def positions(row) -> tuple:
    """Query and key positions, None where they are not given."""
    given = (row.get(name) for name in ("query_position", "key_position"))
    return tuple(None if position is None else np.array(position) for position in given)


def rule(row):
    """The mask rule of a row of the file, by `attn_jax.masks`."""
    parts = [masks.causal()] if row["causal"] else []
    if row["window"] is not None:
        parts.append(masks.sliding_window(*row["window"]))
    return functools.reduce(lambda a, b: a & b, parts, masks.key_padding(row["S"] + 1000))


def test_there_are_sixty_rows_and_no_two_are_the_same():
    assert len({json.dumps(row) for row in ROWS}) == len(ROWS) == 60


@pytest.mark.parametrize("row", ROWS, ids=describe)
def test_masks_allow_the_written_keys(row):
    sides = zip(positions(row), (row["T"], row["S"]), strict=True)
    i, j = (jnp.asarray(np.arange(size) if side is None else side) for side, size in sides)
    assert_equal(masks.evaluate(rule(row), i, j), visible(row))


def weights(row, implementation, query, key, positions):
    """The weights of each query: its output if the values are unit vectors."""
    i, j = positions
    if i is not None and j is None:
        j = jnp.arange(row["S"])
    return attn_jax.dot_product_attention(
        query,
        key,
        jnp.eye(row["S"])[:, None],
        is_causal=row["causal"],
        local_window_size=None if row["window"] is None else tuple(row["window"]),
        query_position=i,
        key_position=j,
        implementation=implementation,
    )[:, 0]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_attention_weights_are_on_the_written_keys(implementation, tiles):
    tiles(2, 3)
    ones = [[np.ones((row[L], 1, 1), np.float32) for row in ROWS] for L in "TS"]

    @jax.jit
    def all_rows(*arrays):
        return [
            weights(row, implementation, *of_row)
            for row, *of_row in zip(ROWS, *arrays, strict=True)
        ]

    found = all_rows(*ones, [positions(row) for row in ROWS])
    for row, found_weights in zip(ROWS, found, strict=True):
        unmasked = visible(row)
        assert_equal(np.asarray(found_weights) > 0, unmasked)
        equal_shares = unmasked / np.maximum(unmasked.sum(axis=1, keepdims=True), 1)
        assert_close(found_weights, equal_shares.astype(np.float32))
