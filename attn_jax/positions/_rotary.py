"""Positions as rotations: a query and a key are turned, and their product knows the distance."""

import math
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from attn_jax._base import checks, numerics
from attn_jax.positions._scaling import RotaryScaling

type Layout = Literal["half", "interleaved"]

# Where the two features of a pair stand, as (axes of the pairs, the axis that has both of a pair).
_PAIRS = {"half": ((2, -1), -2), "interleaved": ((-1, 2), -1)}


def rotary_frequencies(
    dim: int, *, base: float = 10_000.0, scaling: RotaryScaling | None = None
) -> Float[Array, " R"]:
    """How far each pair of features turns from one position to the next.

    Su et al., "RoFormer" (2021), section 3.2.2, https://arxiv.org/abs/2104.09864.

      frequencies[r] = base^(-2r / dim),   r = 0 … dim/2 - 1

    Args:
      dim: how many features of a head turn, even.
      base: the longest wavelength is about 2π · base positions; θ in the checkpoints' settings.
      scaling: what to do with the frequencies so that a model reads longer texts than it was
        trained on: `LinearScaling`, `Llama3Scaling`, `YarnScaling`, or a callable of one's own.

    Returns:
      The frequencies in radians a position, highest first; float32 (float64 with x64 enabled).

    Raises:
      ValueError: dim is odd or not positive, or the base is not a finite number > 1.

    Numerics:
      Computed in float64, rounded once.

    Example:
      >>> attn_jax.positions.rotary_frequencies(4, base=100.0).round(3).tolist()
      [1.0, 0.10000000149011612]
      >>> half = attn_jax.positions.LinearScaling(2.0)
      >>> attn_jax.positions.rotary_frequencies(4, base=100.0, scaling=half).round(3).tolist()
      [0.5, 0.05000000074505806]
    """
    if dim < 2 or dim % 2:
        raise ValueError(f"dim must be even and at least 2, two features a pair; got {dim}")
    if not 1 < base < math.inf:
        raise ValueError(f"base must be a finite number > 1; got {base}")
    frequencies = base ** (-np.arange(0, dim, 2) / dim)
    return jnp.asarray(frequencies if scaling is None else scaling(frequencies, base), float)


def rotary(
    x: Float[Array, "*B T N H"],
    position: Int[Array, "*#B T"],
    frequencies: Float[Array, " R"],
    *,
    layout: Layout = "half",
    amplitude: float = 1.0,
) -> Float[Array, "*B T N H"]:
    """Turns pairs of features by angles that grow with the position.

    Su et al., "RoFormer" (2021), eq. 34, https://arxiv.org/abs/2104.09864. The product of a query
    and a key that are both turned depends on their positions only by the distance. Two layouts are
    in use, equal up to the order of the features: "interleaved" is the paper's and Llama's own,
    "half" that of GPT-NeoX and of the checkpoints on Hugging Face.

      angle[r] = position * frequencies[r]
      out[a] = amplitude * (x[a] cos angle[r] - x[b] sin angle[r])
      out[b] = amplitude * (x[b] cos angle[r] + x[a] sin angle[r])
      (a, b) = (r, R + r) for "half",  (2r, 2r + 1) for "interleaved"

    Args:
      x: queries or keys of all heads.
      position: where each token stands, [T] or with the batch axes of x, each full or 1.
      frequencies: see `rotary_frequencies`; the first 2R features turn, the others stay.
      layout: which features form a pair.
      amplitude: a factor on the features that turn, as `YarnScaling.amplitude`.

    Returns:
      The turned features in x's dtype. Position 0 leaves them as they are; lengths stay.

    Raises:
      ValueError: shapes do not fit, the frequencies are more than H / 2, or the layout is unknown.
      TypeError: positions are not integers, or x is not floating point.

    Numerics:
      Angles and products in float32 (float64 for float64), rounded once. At position p the angle is
      off by about p · 1e-7 times its frequency.

    Cost:
      O(B T N H).

    Example:
      >>> x, right_angle = jnp.array([[[1.0, 2.0, 3.0, 4.0]]]), jnp.array([np.pi / 2, 0.0])
      >>> for layout in ("half", "interleaved"):
      ...     turned = attn_jax.positions.rotary(x, jnp.array([1]), right_angle, layout=layout)
      ...     print(np.asarray(turned).round(3))
      [[[-3.  2.  1.  4.]]]
      [[[-2.  1.  3.  4.]]]
    """
    _check(x, position, frequencies, layout)
    dtype, R = numerics.accumulation_dtype(x.dtype), frequencies.shape[0]
    place = position.astype(dtype).reshape((1,) * (x.ndim - 2 - position.ndim) + position.shape)
    rates = frequencies.astype(dtype).reshape((1,) * place.ndim + (R,))
    angle = (place[..., None] * rates)[..., None, :]  # one for all heads
    cosine, sine = amplitude * jnp.cos(angle), amplitude * jnp.sin(angle)
    shape, axis = _PAIRS[layout]
    pairs = x[..., : 2 * R].astype(dtype).reshape(*x.shape[:-1], *shape)
    first, second = jnp.moveaxis(pairs, axis, 0)
    turned = jnp.stack([first * cosine - second * sine, second * cosine + first * sine], axis)
    turned = turned.reshape(*x.shape[:-1], 2 * R).astype(x.dtype)
    return jnp.concatenate([turned, x[..., 2 * R :]], axis=-1)


def _check(x: Array, position: Array, frequencies: Array, layout: str) -> None:
    sizes = checks.check_shapes(x=(x, "*B T N H"), frequencies=(frequencies, "R"))
    checks.check_floating(x=x)
    (H,), (R,), full = sizes["H"], sizes["R"], (*sizes["*B"], *sizes["T"])
    if layout not in _PAIRS:
        raise ValueError(f"layout={layout!r} is unknown; choose 'half' or 'interleaved'")
    if 2 * R > H:
        raise ValueError(f"frequencies turn {2 * R} features, two each; x has {H} a head")
    if not jnp.issubdtype(position.dtype, jnp.integer):
        raise TypeError(f"position must be integers; got {position.dtype}")
    wanted = full if position.ndim > 1 else full[-1:]
    fits = position.ndim == len(wanted) and position.shape[-1] == wanted[-1]
    if not fits or any(n not in (1, m) for n, m in zip(position.shape, wanted, strict=True)):
        raise ValueError(
            f"position must be [{full[-1]}], or {list(full)} with batch axes of full size or 1; "
            f"got {list(position.shape)}"
        )
