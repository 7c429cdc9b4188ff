"""Rotary positions as a setting of a layer: numbers and names, no arrays."""

import dataclasses

from jaxtyping import Array, Float, Int

from attn_jax.positions import Layout, RotaryScaling, rotary, rotary_frequencies


@dataclasses.dataclass(frozen=True)
class Rotary:
    """How the queries and keys of a layer are turned by their positions.

    Su et al., "RoFormer" (2021), section 3.2.2, https://arxiv.org/abs/2104.09864;
    `attn_jax.positions.rotary` has the formula.

    Args:
      base: the longest wavelength is about 2π · base positions; checkpoints call it θ.
      layout: "half" as on Hugging Face, or "interleaved" as in the paper; it must be the one that
        the weights were trained with.
      scaling: for texts longer than in training, one of `attn_jax.positions`.
      fraction: the share of a head's features that turn, the first ones; the others carry no
        position.

    Raises:
      ValueError: the fraction is not in (0, 1]; when called, it leaves an odd number of features.

    Example:
      >>> from attn_jax.modules import Rotary
      >>> head = jnp.array([[[3.0, 4.0, 5.0, 6.0]]])
      >>> turned = Rotary(fraction=0.5)(head, jnp.array([1]))
      >>> print(np.asarray(turned).round(3))   # one radian; the second half stays
      [[[-1.745  4.686  5.     6.   ]]]
    """

    base: float = 10_000.0
    layout: Layout = "half"
    scaling: RotaryScaling | None = None
    fraction: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction must be in (0, 1]; got {self.fraction}")

    def __call__(
        self, x: Float[Array, "*B T N H"], position: Int[Array, "*#B T"]
    ) -> Float[Array, "*B T N H"]:
        """Queries or keys of all heads, turned."""
        dim = int(x.shape[-1] * self.fraction)
        return rotary(
            x,
            position,
            rotary_frequencies(dim, base=self.base, scaling=self.scaling),
            layout=self.layout,
            amplitude=1.0 if self.scaling is None else self.scaling.amplitude,
        )
