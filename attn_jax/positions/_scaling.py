"""Scaling of rotary frequencies, for longer texts than a model was trained on."""

import dataclasses
import math
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float


@runtime_checkable
class RotaryScaling(Protocol):
    """The interface of scalings for `rotary_frequencies`: new frequencies, and an amplitude.

    Attributes:
      amplitude: a factor on rotated queries and keys, for `rotary`; 1 for most scalings.

    Example:
      >>> class Halved:   # a custom scaling
      ...     amplitude = 1.0
      ...     def __call__(self, frequencies, base):
      ...         return frequencies / 2
      >>> attn_jax.positions.rotary_frequencies(2, scaling=Halved()).tolist()
      [0.5]
    """

    @property
    def amplitude(self) -> float: ...

    def __call__(
        self, frequencies: Float[np.ndarray, " R"], base: float
    ) -> Float[np.ndarray, " R"]: ...


@dataclasses.dataclass(frozen=True)
class LinearScaling:
    """Position interpolation: divides all frequencies, and so positions, by one factor.

    Chen et al., "Extending Context Window of Large Language Models via Positional Interpolation"
    (2023), eq. 4, https://arxiv.org/abs/2306.15595.

      frequency / factor

    Args:
      factor: how many times longer the texts may be than in training, at least 1.

    Raises:
      ValueError: the factor is less than 1 or not finite.

    Example:
      >>> attn_jax.positions.LinearScaling(4.0)(np.array([1.0, 0.5]), 10_000.0).tolist()
      [0.25, 0.125]
    """

    factor: float

    def __post_init__(self) -> None:
        _check_factor(self.factor)

    @property
    def amplitude(self) -> float:
        return 1.0

    def __call__(
        self, frequencies: Float[np.ndarray, " R"], base: float
    ) -> Float[np.ndarray, " R"]:
        return frequencies / self.factor


@dataclasses.dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3.1's scaling: divides low frequencies by a factor, keeps high ones, mixes in between.

    Grattafiori et al., "The Llama 3 Herd of Models" (2024), https://arxiv.org/abs/2407.21783; the
    formula is that of the models' code, github.com/meta-llama/llama-models, `apply_scaling`.

      turns  = original_length * frequency / 2π
      share  = clip((turns - low_freq_factor) / (high_freq_factor - low_freq_factor), 0, 1)
      (1 - share) * frequency / factor + share * frequency

    Args:
      factor: how many times longer the texts may be than in training, at least 1; Llama 3.1 has 8.
      low_freq_factor: a frequency with fewer turns in the original length is divided by the factor;
        Llama 3.1 has 1.
      high_freq_factor: a frequency with more turns in the original length is kept; Llama 3.1 has 4.
      original_length: the length of texts in training, in positions; Llama 3.1 has 8192.

    Raises:
      ValueError: a number is out of range.

    Example:
      >>> scaling = attn_jax.positions.Llama3Scaling(8.0, 1.0, 4.0, 8192)
      >>> turns = 2 * np.pi / 8192 * np.array([5.0, 2.5, 0.5])   # many, between, few
      >>> (scaling(turns, 500_000.0) / turns).tolist()
      [1.0, 0.5625, 0.125]
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_length: int

    def __post_init__(self) -> None:
        _check_factor(self.factor)
        _check_length(self.original_length)
        if not 0 < self.low_freq_factor < self.high_freq_factor:
            raise ValueError(
                f"low_freq_factor={self.low_freq_factor} must be positive and less than "
                f"high_freq_factor={self.high_freq_factor}"
            )

    @property
    def amplitude(self) -> float:
        return 1.0

    def __call__(
        self, frequencies: Float[np.ndarray, " R"], base: float
    ) -> Float[np.ndarray, " R"]:
        turns = self.original_length * frequencies / (2 * np.pi)
        low, high = self.low_freq_factor, self.high_freq_factor
        return _mixed(frequencies, self.factor, np.clip((turns - low) / (high - low), 0, 1))


@dataclasses.dataclass(frozen=True)
class YarnScaling:
    """YaRN: divides low frequencies by a factor, keeps high ones, and scales up all logits.

    Peng et al., "YaRN: Efficient Context Window Extension of Large Language Models" (2023),
    sections 3.2 and 3.4, https://arxiv.org/abs/2309.00071. The paper defines the ramp
    between the two by the number of turns of a frequency; its code and all checkpoints define it by
    the index r of the frequency, and so does this class.

      index(turns) = R * log(original_length / (2π turns)) / log(base)
      low, high    = ⌊index(beta_fast)⌋, ⌈index(beta_slow)⌉
      share        = 1 - clip((r - low) / (high - low), 0, 1)
      (1 - share) * frequency / factor + share * frequency,   amplitude = 1 + log(factor) / 10

    Args:
      factor: how many times longer the texts may be than in training, at least 1; s in the paper.
      original_length: the length of texts in training, in positions; L in the paper.
      beta_fast: a frequency with more turns in the original length is kept.
      beta_slow: a frequency with fewer turns is divided by the factor.
      truncate: whether the ends of the ramp are rounded to integers; False in gpt-oss.
      attention_factor: the amplitude; None for the formula.

    Raises:
      ValueError: a number is out of range.

    Example:
      >>> scaling = attn_jax.positions.YarnScaling(16.0, 4096)
      >>> frequencies = 10_000.0 ** -np.array([0.0, 0.25, 0.5, 0.75])
      >>> (scaling(frequencies, 10_000.0) / frequencies).tolist()
      [1.0, 1.0, 0.53125, 0.0625]
      >>> round(scaling.amplitude, 4)
      1.2773
    """

    factor: float
    original_length: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float | None = None

    def __post_init__(self) -> None:
        _check_factor(self.factor)
        _check_length(self.original_length)
        if not 0 < self.beta_slow < self.beta_fast:
            raise ValueError(
                f"beta_slow={self.beta_slow} must be positive and less than "
                f"beta_fast={self.beta_fast}"
            )

    @property
    def amplitude(self) -> float:
        """The factor on rotated queries and keys, √(1/t): logits are divided by the paper's t."""
        if self.attention_factor is not None:
            return self.attention_factor
        return 1 + math.log(self.factor) / 10

    def __call__(
        self, frequencies: Float[np.ndarray, " R"], base: float
    ) -> Float[np.ndarray, " R"]:
        R = len(frequencies)

        def index(turns: float) -> float:
            return R * math.log(self.original_length / (2 * math.pi * turns)) / math.log(base)

        low, high = index(self.beta_fast), index(self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, 2 * R - 1)
        width = max(high - low, 1e-3)  # a ramp of width 0 is a step
        return _mixed(frequencies, self.factor, 1 - np.clip((np.arange(R) - low) / width, 0, 1))


def _mixed(
    frequencies: Float[np.ndarray, " R"], factor: float, share: Float[np.ndarray, " R"]
) -> Float[np.ndarray, " R"]:
    """Returns share · frequency + (1 − share) · frequency / factor."""
    return (1 - share) * frequencies / factor + share * frequencies


def _check_factor(factor: float) -> None:
    if not 1 <= factor < math.inf:
        raise ValueError(f"factor must be a finite number >= 1; got {factor}")


def _check_length(original_length: int) -> None:
    if original_length < 1:
        raise ValueError(f"original_length must be at least 1; got {original_length}")
