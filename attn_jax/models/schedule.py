"""The Transformer's learning rate: linear warm-up, then the inverse square root of the step."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def noam_schedule(
    model_dim: int, *, warmup_steps: int = 4000, factor: float = 1.0
) -> Callable[[int | Int[Array, ""]], Float[Array, ""]]:
    """The learning rate of the paper, as a schedule for optax: `optax.adam(noam_schedule(512))`.

    Vaswani et al., "Attention Is All You Need" (2017), eq. 3, https://arxiv.org/abs/1706.03762; the
    name is that of its author Noam Shazeer. The paper uses it with Adam, b1=0.9, b2=0.98, eps=1e-9.

      rate(count) = factor * model_dim^-0.5 * min(step^-0.5, step * warmup_steps^-1.5)
      with step = count + 1

    Args:
      model_dim: width of the model.
      warmup_steps: number of updates up to the highest rate, factor / √(model_dim · warmup_steps).
      factor: multiplies every rate.

    Returns:
      A function of the number of updates made so far, which optax counts from 0 and the paper from
      1. No update has rate 0.

    Raises:
      ValueError: model_dim or warmup_steps is below 1, or factor is not positive.

    Numerics:
      In float32.

    Example:
      >>> from attn_jax.models import noam_schedule
      >>> rate = noam_schedule(512)
      >>> [f"{rate(count):.4e}" for count in (0, 3_999, 15_999)]     # the first, the highest, half
      ['1.7469e-07', '6.9877e-04', '3.4939e-04']
    """
    for name, size in (("model_dim", model_dim), ("warmup_steps", warmup_steps)):
        if size < 1:
            raise ValueError(f"{name}={size} must be at least 1")
    if not factor > 0:
        raise ValueError(f"factor={factor} must be positive")

    def rate(count: int | Int[Array, ""]) -> Float[Array, ""]:
        step = jnp.asarray(count, jnp.float32) + 1
        return factor * model_dim**-0.5 * jnp.minimum(step**-0.5, step * warmup_steps**-1.5)

    return rate
