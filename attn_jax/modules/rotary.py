"""The rotary position embedding as a setting of a layer; it has no arrays."""

import dataclasses

from jaxtyping import Array, Float, Int

from attn_jax.positions import Layout, RotaryScaling, rotary, rotary_frequencies


@dataclasses.dataclass(frozen=True)
class Rotary:
    """The settings of a layer's rotary position embedding (RoPE).

    Su et al., "RoFormer" (2021), section 3.2.2, https://arxiv.org/abs/2104.09864;
    `attn_jax.positions.rotary` has the formula.

    Args:
      base: sets the longest wavelength, about 2π · base positions; `rope_theta` in checkpoints.
      layout: "half" as on Hugging Face, or "interleaved" as in the paper; use the layout with which
        the weights were trained.
      scaling: a scaling of `attn_jax.positions` for texts longer than in training, or None.
      fraction: the share of a head's features that rotate, from the first on; the others are
        independent of the position.

    Raises:
      ValueError: the fraction is not in (0, 1]; or, in a call, it gives an odd number of features.

    Example:
      >>> from attn_jax.modules import Rotary
      >>> head = jnp.array([[[3.0, 4.0, 5.0, 6.0]]])
      >>> rotated = Rotary(fraction=0.5)(head, jnp.array([1]))
      >>> print(np.asarray(rotated).round(3))   # by one radian; the second half is unchanged
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
        """Rotates the queries or keys of all heads."""
        dim = int(x.shape[-1] * self.fraction)
        return rotary(
            x,
            position,
            rotary_frequencies(dim, base=self.base, scaling=self.scaling),
            layout=self.layout,
            amplitude=1.0 if self.scaling is None else self.scaling.amplitude,
        )
