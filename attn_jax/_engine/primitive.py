"""Our operations as JAX primitives, which two calls share only where they are the same."""

from attn_jax._base import young_jax


class Primitive(young_jax.HiPrim):
    """An operation on trees of arrays; equal to another of the same parameters, trees and types.

    JAX compares the parameters alone, and a tree may hold what an operation does: a mask.
    """

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other) and _types(self) == _types(other)

    def __hash__(self) -> int:
        return hash((super().__hash__(), self.in_tree))


def _types(operation) -> tuple:
    # JAX takes trees of two kinds of dataclasses for equal; their hashes differ.
    return operation.in_tree, hash(operation.in_tree), operation.in_avals_flat
