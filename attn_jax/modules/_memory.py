"""What a layer reads when the values come from another array than the keys."""

from jaxtyping import Array, Float

from attn_jax._base import checks


def check_no_values_alone(memory_value: Float[Array, "*B S _"] | None) -> None:
    """Checks that there is a memory where there is another array for its values.

    Raises:
      ValueError: there is none.
    """
    if memory_value is not None:
        raise ValueError(
            "memory is needed with memory_value: keys are made of memory; where x itself is asked, "
            "write layer(x, x, memory_value)"
        )


def values_from(
    memory: Float[Array, "*#B S E"], memory_value: Float[Array, "*#B S _"] | None, width: int
) -> Float[Array, "*#B S _"]:
    """What values are made of: the memory itself, or the array beside it.

    Raises:
      ValueError: the array beside it has other rows; or there is none, and the memory has not the
        width of what values are made of.
    """
    if memory_value is None:
        if memory.shape[-1] != width:
            raise ValueError(
                f"memory_value is needed: values are made of vectors {width} wide, and memory is "
                f"{memory.shape[-1]} wide; write layer(x, memory, memory_value)"
            )
        return memory
    checks.check_shapes(memory=(memory, "*B S E"), memory_value=(memory_value, "*#B S D"))
    return memory_value
