"""T queries and S keys cut into tiles: the positions of each tile, and masks evaluated by tile."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from attn_jax._base import tables
from attn_jax._base.distance import to_int32


class TileShape(NamedTuple):
    """The number of queries and keys of a tile."""

    queries: int
    keys: int


class Kinds(NamedTuple):
    """For each tile whether some pair of it is unmasked, and whether every pair is.

    `some` may be True for an empty tile and `every` False for a full one, never the reverse.
    """

    some: Bool[Array, "I J"]
    every: Bool[Array, "I J"]


@dataclasses.dataclass(frozen=True)
class Grid:
    """Positions tile by tile; the last tiles are padded with the last position."""

    query_position: Int[Array, "I t"]
    key_position: Int[Array, "J s"]
    T: int
    S: int

    @classmethod
    def of(
        cls, query_position: Int[Array, " T"], key_position: Int[Array, " S"], shape: TileShape
    ) -> "Grid":
        rows, columns = _tiles(query_position, shape.queries), _tiles(key_position, shape.keys)
        return cls(rows, columns, query_position.size, key_position.size)

    @property
    def tiles(self) -> tuple[int, int]:
        """How many rows and columns of tiles."""
        return self.query_position.shape[0], self.key_position.shape[0]

    @property
    def shape(self) -> TileShape:
        return TileShape(self.query_position.shape[1], self.key_position.shape[1])

    @property
    def is_even(self) -> bool:
        """Whether T and S are whole numbers of tiles."""
        return (self.query_position.size, self.key_position.size) == (self.T, self.S)

    @property
    def query_bounds(self) -> tuple[Int[Array, "I 1"], Int[Array, "I 1"]]:
        """Least and greatest query position of each row of tiles."""
        return self.query_position.min(axis=1)[:, None], self.query_position.max(axis=1)[:, None]

    @property
    def key_bounds(self) -> tuple[Int[Array, "1 J"], Int[Array, "1 J"]]:
        """Least and greatest key position of each column of tiles."""
        return self.key_position.min(axis=1)[None, :], self.key_position.max(axis=1)[None, :]

    def by_query(self, values: Array) -> Array:
        """[T] or [T …] to [I t …], padded with the last entry."""
        return _tiles(values, self.shape.queries)

    def by_key(self, values: Array) -> Array:
        """[S] or [S …] to [J s …], padded with the last entry."""
        return _tiles(values, self.shape.keys)

    def evaluate(self, rule: Callable) -> Kinds:
        """Evaluates a mask at every pair, one row of tiles at a time."""
        rows = jax.tree.map(self._rows, rule, is_leaf=tables.is_table)
        _, J = self.tiles
        t, s = self.shape
        keys = self.key_position.reshape(1, J * s)

        def row(stacks_and_queries):
            own, queries = stacks_and_queries
            here = jax.tree.map(_put_back, rows, own, is_leaf=tables.is_table)
            unmasked = tables.on_pairs(here, queries[:, None], keys).reshape(t, J, s)
            return unmasked.any(axis=(0, 2)), unmasked.all(axis=(0, 2))

        stacks = jax.tree.map(_stacked, rows, is_leaf=tables.is_table)
        return Kinds(*jax.lax.map(row, (stacks, self.query_position)))

    def _rows(self, node: Any) -> Any:
        """A table with its queries cut into tiles and its keys padded."""
        if not tables.is_table(node):
            return node
        values = node.values
        if node.over in ("key", "pair") and values.shape[-1] != 1:
            axis = values.ndim - 1
            missing = self.key_position.size - values.shape[axis]
            values = jnp.pad(values, [(0, 0)] * axis + [(0, missing)], mode="edge")
        if node.over in ("query", "pair") and values.shape[0] != 1:
            values = self.by_query(values)
        return dataclasses.replace(node, values=values)


def positions_or_default(name: str, position: Int[Array, " L"] | None, L: int) -> Int[Array, " L"]:
    """Positions as int32; 0, 1, 2, … where none are given.

    Raises:
      ValueError: there is not one position a row, or a NumPy array has one beyond int32.
    """
    if position is None:
        return jnp.arange(L, dtype=jnp.int32)
    return _one_a_row(name, position, L)


def rows_of(
    T: int, S: int, query_row: Int[Array, " T"] | None, key_row: Int[Array, " S"] | None
) -> tables.Rows:
    """T queries and S keys with their row numbers in the whole sequence, where given.

    Raises:
      ValueError: there is not one number a query, or a key.
    """
    return tables.Rows(
        T,
        S,
        None if query_row is None else _one_a_row("query_row", query_row, T),
        None if key_row is None else _one_a_row("key_row", key_row, S),
    )


def _one_a_row(name: str, numbers: Int[Array, " L"], L: int) -> Int[Array, " L"]:
    if numbers.shape != (L,):
        raise ValueError(
            f"{name} must have shape [{L}], one entry a row; got {list(numbers.shape)}"
        )
    return to_int32(name, numbers)


def _is_cut(node: Any) -> bool:
    """Whether `_rows` has given a table an axis of rows of tiles."""
    return tables.is_table(node) and node.values.ndim == node.core_rank + 1


def _stacked(node: Any) -> Any:
    return node.values if _is_cut(node) else None


def _put_back(node: Any, values: Any) -> Any:
    return dataclasses.replace(node, values=values) if _is_cut(node) else node


def _tiles(values: Array, size: int) -> Array:
    count = -(-values.shape[0] // size)
    widths = [(0, count * size - values.shape[0])] + [(0, 0)] * (values.ndim - 1)
    return jnp.pad(values, widths, mode="edge").reshape(count, size, *values.shape[1:])
