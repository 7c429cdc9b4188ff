"""Checks for attention to a memory whose values come from another array than its keys."""

from jaxtyping import Array, Float

from attn_jax._base import checks


def check_no_memory_value(memory_value: Float[Array, "*B S _"] | None) -> None:
    """Checks that `memory_value` is None, for a call without `memory`.

    Raises:
      ValueError: it is not None.
    """
    if memory_value is not None:
        raise ValueError(
            "memory is needed with memory_value, because keys are computed from memory; for keys "
            "from x itself, write layer(x, x, memory_value)"
        )


def values_from(
    memory: Float[Array, "*#B S E"], memory_value: Float[Array, "*#B S _"] | None, width: int
) -> Float[Array, "*#B S _"]:
    """Returns the array from which values are computed: `memory_value`, or `memory` if it is None.

    Raises:
      ValueError: `memory_value` has another length than `memory`; or it is None, and the width of
        `memory` is not `width`, that of the layer's `memory_value_dim`.
    """
    if memory_value is None:
        if memory.shape[-1] != width:
            raise ValueError(
                f"memory_value is needed: it must be {width} wide, and memory is "
                f"{memory.shape[-1]} wide; write layer(x, memory, memory_value)"
            )
        return memory
    checks.check_shapes(memory=(memory, "*B S E"), memory_value=(memory_value, "*#B S D"))
    return memory_value
