"""What happens to a logit between score and mask: a function of the logit and two positions."""

from collections.abc import Callable

from jaxtyping import Array, Float

from attn_jax.masks import Position

type ScoreMod = Callable[[Float[Array, ""], Position, Position], Float[Array, ""]]
