"""Creates a layer's parameters, and gives each of their axes a logical name for sharding.

`sharding_rules` maps the logical names to mesh axes. The names are stored in flax's metadata
(`out_sharding`) and have no effect until a model is sharded.
"""

import dataclasses
import math

import jax.numpy as jnp
from flax import nnx
from jaxtyping import DTypeLike

GLOROT_UNIFORM = nnx.initializers.glorot_uniform()


def named(*names: str) -> dict:
    """Returns flax's metadata with the logical names of a parameter's axes."""
    # With `eager_sharding`, flax would require a mesh to create a layer.
    return {"out_sharding": names, "eager_sharding": False}


@dataclasses.dataclass(frozen=True)
class Parameters:
    """Creates the parameters of one layer."""

    kernel_init: nnx.Initializer
    dtype: DTypeLike
    rngs: nnx.Rngs

    def matrix(self, *axes: tuple[int, str], inputs: int = 1) -> nnx.Param:
        """Draws a parameter as a matrix from the first `inputs` axes to the others.

        Each axis is a pair (size, logical name).
        """
        shape, names = zip(*axes, strict=True)
        width = math.prod(shape[:inputs])
        flat = self.kernel_init(self.rngs.params(), (width, math.prod(shape) // width), self.dtype)
        return nnx.Param(flat.reshape(shape), **named(*names))

    def zeros(self, *axes: tuple[int, str]) -> nnx.Param:
        """Creates a parameter of zeros, such as a bias."""
        shape, names = zip(*axes, strict=True)
        return nnx.Param(jnp.zeros(shape, self.dtype), **named(*names))


def head_sizes(
    model_dim: int,
    num_heads: int,
    num_kv_heads: int | None = None,
    head_dim: int | None = None,
    value_dim: int | None = None,
) -> tuple[int, int, int, int]:
    """Returns N, K, H and V of an attention layer, with defaults filled in.

    Raises:
      ValueError: a size is below 1, num_kv_heads does not divide num_heads, or num_heads does not
        divide model_dim and head_dim is None.
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
