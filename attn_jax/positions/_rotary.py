"""Rotary position embedding (RoPE): rotates queries and keys, so products depend on distance."""

import math
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from attn_jax._base import checks, numerics
from attn_jax.positions._scaling import RotaryScaling

type Layout = Literal["half", "interleaved"]
"""Which two features of a vector are rotated together: see `rotary`."""

# For each layout: the shape of the features as pairs, and the axis with the two of a pair.
_PAIRS = {"half": ((2, -1), -2), "interleaved": ((-1, 2), -1)}


def rotary_frequencies(
    dim: int, *, base: float = 10_000.0, scaling: RotaryScaling | None = None
) -> Float[Array, " R"]:
    """Returns the angle by which each pair of features rotates per position, for `rotary`.

    Su et al., "RoFormer" (2021), section 3.2.2, https://arxiv.org/abs/2104.09864.

      frequencies[r] = base^(-2r / dim),   r = 0 … dim/2 - 1

    Args:
      dim: how many features of a head rotate, an even number.
      base: sets the longest wavelength, about 2π · base positions; `rope_theta` in checkpoints.
      scaling: changes the frequencies for longer texts than a model was trained on:
        `LinearScaling`, `Llama3Scaling`, `YarnScaling`, or any `RotaryScaling`.

    Returns:
      The frequencies in radians per position, highest first; float32 (float64 with x64 enabled).

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
        raise ValueError(f"dim must be even and at least 2, for pairs of features; got {dim}")
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
    """Rotates pairs of features by angles proportional to the position (RoPE).

    Su et al., "RoFormer" (2021), eq. 34, https://arxiv.org/abs/2104.09864. The dot product of a
    rotated query and a rotated key depends only on the distance of their positions. Two layouts are
    in use, which differ in the order of the features: "interleaved" in the paper and in Llama's own
    code, "half" in GPT-NeoX and in checkpoints on Hugging Face.

      angle[r] = position * frequencies[r]
      out[a] = amplitude * (x[a] cos angle[r] - x[b] sin angle[r])
      out[b] = amplitude * (x[b] cos angle[r] + x[a] sin angle[r])
      (a, b) = (r, R + r) for "half",  (2r, 2r + 1) for "interleaved"

    Args:
      x: queries or keys of all heads.
      position: the position of each token, [T] or with the batch axes of x, each full or 1.
      frequencies: see `rotary_frequencies`; the first 2R features rotate, the others are unchanged.
      layout: which features form a pair.
      amplitude: a factor on the features that rotate, as `YarnScaling.amplitude`.

    Returns:
      The rotated features in x's dtype. Position 0 changes nothing but the amplitude.

    Raises:
      ValueError: shapes do not match, there are more than H / 2 frequencies, or the layout is
        unknown.
      TypeError: positions are not integers, or x is not floating point.

    Numerics:
      Angles and products in float32 (float64 for float64), rounded once. At position p the error of
      an angle is about p · 1e-7 times its frequency.

    Cost:
      O(B T N H).

    Example:
      >>> x, right_angle = jnp.array([[[1.0, 2.0, 3.0, 4.0]]]), jnp.array([np.pi / 2, 0.0])
      >>> for layout in ("half", "interleaved"):
      ...     rotated = attn_jax.positions.rotary(x, jnp.array([1]), right_angle, layout=layout)
      ...     print(np.asarray(rotated).round(3))
      [[[-3.  2.  1.  4.]]]
      [[[-2.  1.  3.  4.]]]
    """
    _check(x, position, frequencies, layout)
    dtype, R = numerics.accumulation_dtype(x.dtype), frequencies.shape[0]
    steps = position.astype(dtype).reshape((1,) * (x.ndim - 2 - position.ndim) + position.shape)
    frequencies = frequencies.astype(dtype).reshape((1,) * steps.ndim + (R,))
    angle = (steps[..., None] * frequencies)[..., None, :]  # the same for all heads
    cosine, sine = amplitude * jnp.cos(angle), amplitude * jnp.sin(angle)
    shape, axis = _PAIRS[layout]
    pairs = x[..., : 2 * R].astype(dtype).reshape(*x.shape[:-1], *shape)
    first, second = jnp.moveaxis(pairs, axis, 0)
    rotated = jnp.stack([first * cosine - second * sine, second * cosine + first * sine], axis)
    rotated = rotated.reshape(*x.shape[:-1], 2 * R).astype(x.dtype)
    return jnp.concatenate([rotated, x[..., 2 * R :]], axis=-1)


def _check(x: Array, position: Array, frequencies: Array, layout: str) -> None:
    sizes = checks.check_shapes(x=(x, "*B T N H"), frequencies=(frequencies, "R"))
    checks.check_floating(x=x)
    (H,), (R,), full = sizes["H"], sizes["R"], (*sizes["*B"], *sizes["T"])
    if layout not in _PAIRS:
        raise ValueError(f"layout={layout!r} is unknown; choose 'half' or 'interleaved'")
    if 2 * R > H:
        raise ValueError(f"frequencies rotate {2 * R} features, 2 for each; x has {H} in a head")
    if not jnp.issubdtype(position.dtype, jnp.integer):
        raise TypeError(f"position must be integers; got {position.dtype}")
    wanted = full if position.ndim > 1 else full[-1:]
    fits = position.ndim == len(wanted) and position.shape[-1] == wanted[-1]
    if not fits or any(n not in (1, m) for n, m in zip(position.shape, wanted, strict=True)):
        raise ValueError(
            f"position must be [{full[-1]}], or {list(full)} with batch axes of full size or 1; "
            f"got {list(position.shape)}"
        )
