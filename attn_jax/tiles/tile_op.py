"""Operations on tiles as JAX primitives: what `vmap` does to them, and which axes they share."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import hijax

from attn_jax._grid import TileShape
from attn_jax._leading import map_leading


class TileOp(hijax.HiPrim):
    """An operation on trees of arrays that all have `depth` leading axes, full or of size 1.

    Each `vmap` adds one: an array that is not mapped gets an axis of size 1, and is shared by the
    whole batch instead of being repeated. Where no `shape` of tiles is given, one is chosen.
    """

    depth: int
    shape: TileShape | None

    def __init__(self, in_avals: tuple, **params):
        self.in_avals = in_avals
        self.params = params
        self.__dict__.update(params)
        self.out_aval = _typeof(jax.eval_shape(self.expand, *in_avals))
        super().__init__()

    @classmethod
    def on(cls, *operands: Any, **params) -> Any:
        """Applies the operation; `depth` and `shape` are among the parameters."""
        return cls(_typeof(operands), **params)(*operands)

    def expand(self, *args):
        plan, *_ = self.in_avals
        T, S = plan.query_position.shape[-1], plan.key_position.shape[-1]
        shape = self.shape or choose(T, S)
        return map_leading(functools.partial(self.one, shape), self.depth)(*args)

    def one(self, shape: TileShape, *args):
        """The operation on operands without leading axes."""
        raise NotImplementedError

    def batch(self, axis_data, args, dims):
        def lead(array, axis):
            return jnp.expand_dims(array, 0) if axis is None else jnp.moveaxis(array, axis, 0)

        if not jax.tree.leaves(dims):
            out = self(*args)
            return out, jax.tree.map(lambda _: None, out)
        operands = jax.tree.map(lead, args, dims)
        out = type(self).on(*operands, **self.params | {"depth": self.depth + 1})
        return out, jax.tree.map(lambda _: 0, out)


def choose(T: int, S: int) -> TileShape:
    """Tiles of 256×256, and no larger than the problem."""
    return TileShape(min(T, 256), min(S, 256))


def _typeof(tree):
    return jax.tree.map(lambda x: hijax.ShapedArray(x.shape, x.dtype), tree)


def sum_shared(gradients: Any, like: Any, depth: int) -> Any:
    """Sums gradients over the leading axes that an operand shared, down to the operand's shape."""

    def reduce(operand: Any, gradient: Any) -> Any:
        if gradient is None:
            return None
        shared = [a for a in range(depth) if operand.shape[a] == 1 and gradient.shape[a] != 1]
        return jnp.sum(gradient, axis=tuple(shared), keepdims=True) if shared else gradient

    return jax.tree.map(reduce, like, gradients)
