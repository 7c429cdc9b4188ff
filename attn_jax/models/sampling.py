"""Sampling of the next token from its logits: greedy, or drawn from the tokens that rules keep."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; the default draws from the model's own distribution.

    The rules apply in the order of the arguments: first the penalty, then the temperature, then
    top_k, top_p and min_p, each to the tokens that the one before has kept.

    Args:
      repetition_penalty: the logit of a token that occurred before is divided by it, or multiplied
        where it is negative (Keskar et al. 2019, section 4.1, https://arxiv.org/abs/1909.05858).
      temperature: logits are divided by it; 0 takes the likeliest token, and of equally likely ones
        the first.
      top_k: how many of the likeliest tokens are kept (Fan et al. 2018, section 5.1,
        https://arxiv.org/abs/1805.04833); tokens as likely as the last of them are kept too.
      top_p: keeps the fewest of the likeliest tokens whose probabilities sum to at least this;
        tokens as likely as the last of them are kept too (Holtzman et al. 2019, section 3.1,
        https://arxiv.org/abs/1904.09751).
      min_p: keeps tokens with at least this share of the likeliest token's probability (Nguyen et
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
    """Logits of the distribution that `sample` draws from: −inf for tokens that a rule removes.

    Args:
      logits: of the model.
      sampling: the rules.
      seen: True for tokens that occurred before, for the penalty.

    Returns:
      Logits in float32, up to an added constant; with temperature 0 only the likeliest token is
      kept.

    Numerics:
      In float32. `top_p` counts as reached by a sum of probabilities that is less by at most 4
      float32 roundings.

    Cost:
      O(P log P) with `top_k` or `top_p`, which sort; O(P) without.

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
    if sampling.temperature != 1:  # the best logit becomes 0: divided, it cannot overflow
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
    """Draws one token from the model's logits by the sampling rules.

      token ~ softmax(next_token_logits(logits))

    Args:
      logits: of the model.
      sampling: the rules.
      rng: the key of the draw.
      seen: True for tokens that occurred before, for the penalty.

    Returns:
      The token's id.

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
    """The number, limited to the normal positive numbers of float32: neither 0 nor ∞."""
    limits = jnp.finfo(jnp.float32)
    return min(max(number, float(limits.tiny)), float(limits.max))


def _nucleus(logits: Float[Array, " P"], mass: float) -> Bool[Array, " P"]:
    """True for the fewest likeliest tokens whose probabilities sum to `mass`, ties included."""
    probability = jax.nn.softmax(logits)
    descending = jnp.sort(probability, descending=True)
    before = jnp.concatenate([jnp.zeros_like(descending[:1]), jnp.cumsum(descending)[:-1]])
    rounding = 4 * float(jnp.finfo(probability.dtype).eps)  # of the sums
    least = jnp.min(jnp.where(before < mass - rounding, descending, jnp.inf))
    return probability >= least
