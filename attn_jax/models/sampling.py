"""The next token from its logits: greedy, or drawn from what several rules leave over."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; the default draws from the model's own distribution.

    The rules apply in the order in which they stand here: first the penalty, then the temperature,
    then each rule keeps the tokens that it may of what the one before has left.

    Args:
      repetition_penalty: by which the logit of a token that was there is divided, or multiplied
        where it is negative (Keskar et al. 2019, section 4.1, https://arxiv.org/abs/1909.05858).
      temperature: by which logits are divided; 0 takes the likeliest token, and of equal ones the
        first.
      top_k: how many of the likeliest tokens stay (Fan et al. 2018, section 5.1,
        https://arxiv.org/abs/1805.04833); equal ones stay together.
      top_p: the mass that the likeliest tokens must have together, as few as can; equal ones stay
        together (Holtzman et al. 2019, section 3.1, https://arxiv.org/abs/1904.09751).
      min_p: the share of the likeliest one's probability that a token must have to stay (Nguyen et
        al. 2024, section 3, https://arxiv.org/abs/2407.01082).

    Raises:
      ValueError: a number is out of its range.

    Example:
      >>> from attn_jax.models import Sampling
      >>> try:
      ...     Sampling(top_p=0.0)
      ... except ValueError as error:
      ...     print(error)
      top_p must be in (0, 1]; got 0.0
    """

    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.repetition_penalty < math.inf:
            raise ValueError(
                f"repetition_penalty must be a finite number > 0; got {self.repetition_penalty}"
            )
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be a finite number >= 0; got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1; got {self.top_k}")
        for name in ("top_p", "min_p"):
            share = getattr(self, name)
            if share is not None and not 0 < share <= 1:
                raise ValueError(f"{name} must be in (0, 1]; got {share}")


GREEDY = Sampling(temperature=0.0)


def next_token_logits(
    logits: Float[Array, " P"], sampling: Sampling, seen: Bool[Array, " P"] | None = None
) -> Float[Array, " P"]:
    """Logits of the distribution that is drawn from, −inf for tokens that a rule has taken out.

    Args:
      logits: of the model.
      sampling: the rules.
      seen: the tokens that were there, for the penalty.

    Returns:
      Logits in float32, but for a constant; with temperature 0 only the likeliest token is left.

    Numerics:
      In float32. A mass that is met but for 4 float32 roundings counts as met by `top_p`.

    Cost:
      O(P log P) where there is a rule, for sorting.

    Example:
      >>> from attn_jax.models import Sampling, next_token_logits
      >>> logits = jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05]))
      >>> left = jnp.exp(next_token_logits(logits, Sampling(top_p=0.6)))
      >>> print(np.asarray(left).round(2))
      [0.5 0.3 0.  0. ]
    """
    logits = logits.astype(jnp.float32)
    if seen is not None and sampling.repetition_penalty != 1:
        penalty = _normal(sampling.repetition_penalty)
        less = jnp.where(logits > 0, logits / penalty, logits * penalty)
        logits = jnp.where(seen, less, logits)
    if sampling.temperature == 0:
        best = jnp.arange(logits.size) == jnp.argmax(logits)
        return jnp.where(best, logits, -jnp.inf)
    logits = jnp.minimum(logits, jnp.finfo(jnp.float32).max)
    best = jnp.max(logits)
    if sampling.temperature != 1:  # the best one becomes 0, which no temperature takes out of range
        best = jnp.where(best == -jnp.inf, 0, best)
        logits, best = (logits - best) / _normal(sampling.temperature), 0
    if sampling.top_k is not None and sampling.top_k < logits.size:
        least = jax.lax.top_k(logits, sampling.top_k)[0][-1]
        logits = jnp.where(logits >= least, logits, -jnp.inf)
    if sampling.top_p is not None and sampling.top_p < 1:
        logits = jnp.where(_nucleus(logits, sampling.top_p), logits, -jnp.inf)
    if sampling.min_p is not None:
        logits = jnp.where(logits >= best + math.log(sampling.min_p), logits, -jnp.inf)
    return logits


def sample(
    logits: Float[Array, " P"],
    sampling: Sampling,
    rng: Key[Array, ""],
    seen: Bool[Array, " P"] | None = None,
) -> Int[Array, ""]:
    """One token, drawn by the rules.

      token ~ softmax(next_token_logits(logits))

    Args:
      logits: of the model.
      sampling: the rules.
      rng: decides among what they leave.
      seen: the tokens that were there, for the penalty.

    Returns:
      Its id.

    Cost:
      As `next_token_logits`.

    Example:
      >>> from attn_jax.models import Sampling, sample
      >>> logits = jnp.array([0.0, 3.0, 2.0])
      >>> int(sample(logits, Sampling(temperature=0.0), jax.random.key(0)))
      1
    """
    left = next_token_logits(logits, sampling, seen)
    return jax.random.categorical(rng, left).astype(jnp.int32)


def _normal(number: float) -> float:
    """The nearest number that float32 can divide by and multiply with: neither 0 nor ∞."""
    limits = jnp.finfo(jnp.float32)
    return min(max(number, float(limits.tiny)), float(limits.max))


def _nucleus(logits: Float[Array, " P"], mass: float) -> Bool[Array, " P"]:
    """The likeliest tokens up to the first with which they have the mass; equal ones together."""
    probability = jax.nn.softmax(logits)
    descending = jnp.sort(probability, descending=True)
    before = jnp.concatenate([jnp.zeros_like(descending[:1]), jnp.cumsum(descending)[:-1]])
    rounding = 4 * float(jnp.finfo(probability.dtype).eps)  # of the sums
    least = jnp.min(jnp.where(before < mass - rounding, descending, jnp.inf))
    return probability >= least
