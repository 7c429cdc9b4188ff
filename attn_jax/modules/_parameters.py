"""How a layer's parameters are made: drawn or filled, each axis with a logical name.

The names say what an axis means; `sharding_rules` says on which axis of a mesh it lies. They stand
where flax looks for them (`out_sharding`), and do nothing until somebody asks.
"""

import dataclasses
import math

import jax.numpy as jnp
from flax import nnx
from jaxtyping import DTypeLike

GLOROT_UNIFORM = nnx.initializers.glorot_uniform()


def named(*names: str) -> dict:
    """The logical names of a parameter's axes, as flax keeps them."""
    # Without `eager_sharding` flax would want a mesh for every layer that is made.
    return {"out_sharding": names, "eager_sharding": False}


@dataclasses.dataclass(frozen=True)
class Parameters:
    """Makes the parameters of one layer."""

    kernel_init: nnx.Initializer
    dtype: DTypeLike
    rngs: nnx.Rngs

    def matrix(self, *axes: tuple[int, str], inputs: int = 1) -> nnx.Param:
        """Drawn as one matrix from the first `inputs` axes to the others; (size, name) each."""
        shape, names = zip(*axes, strict=True)
        rows = math.prod(shape[:inputs])
        flat = self.kernel_init(self.rngs.params(), (rows, math.prod(shape) // rows), self.dtype)
        return nnx.Param(flat.reshape(shape), **named(*names))

    def zeros(self, *axes: tuple[int, str]) -> nnx.Param:
        """A bias, or what else starts at zero."""
        shape, names = zip(*axes, strict=True)
        return nnx.Param(jnp.zeros(shape, self.dtype), **named(*names))


def head_sizes(
    model_dim: int,
    num_heads: int,
    num_kv_heads: int | None = None,
    head_dim: int | None = None,
    value_dim: int | None = None,
) -> tuple[int, int, int, int]:
    """N, K, H and V of an attention with their defaults.

    Raises:
      ValueError: a size is below 1, or one does not divide another.
    """
    num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
    sizes = {"model_dim": model_dim, "num_heads": num_heads, "num_kv_heads": num_kv_heads}
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1; got {size}")
    if num_heads % num_kv_heads:
        raise ValueError(f"num_kv_heads={num_kv_heads} must divide num_heads={num_heads}")
    if head_dim is None and model_dim % num_heads:
        raise ValueError(
            f"num_heads={num_heads} must divide model_dim={model_dim}; "
            f"pass head_dim to choose it freely"
        )
    head_dim = model_dim // num_heads if head_dim is None else head_dim
    return num_heads, num_kv_heads, head_dim, head_dim if value_dim is None else value_dim
