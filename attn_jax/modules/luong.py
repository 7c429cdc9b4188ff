"""Luong's global and local attention as a layer: parameters here, the read through `attend`."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, DTypeLike, Float

from attn_jax import scores
from attn_jax._attend import attend, attention_weights
from attn_jax._base import numerics
from attn_jax.modules._linear import in_dtype
from attn_jax.modules.norms import as_the_first

SCORES = ("dot", "general", "concat", "local")


class LuongAttention(nnx.Module):
    """Global attention with a dot, general or concat score, or predictive local attention.

    Luong et al., "Effective Approaches to Attention-based NMT" (2015), §3.1–3.2,
    https://arxiv.org/abs/1508.04025.

      global  weights[t, s] = softmax_s(score(query[t], annotations[s]))
      local   weights[t, s] = softmax_s(general score, |s − p_t| ≤ D) · exp(−(s − p_t)² / 2σ²)
              p_t = S · sigmoid(v_p · tanh(query[t] @ W_p)),  σ = D / 2

    Local weights are not renormalised, so they sum to less than 1, and the Gaussian is the only way
    by which gradients reach W_p and v_p. Positions and S count tokens, not padding; the first is 0.

    Args:
      query_dim: width of a query.
      annotation_dim: width of an annotation; the query's, for "dot".
      score: "dot", "general", "concat", or "local" (the paper's local-p, on the general score).
      align_dim: width of concat's hidden layer.
      window: D, how far local attention looks to each side of p_t.
      kernel_init: of every matrix and vector; the paper's U[−0.1, 0.1].
      dtype: in which a call computes; by default that of its input.
      rngs: where the parameters come from.

    Returns:
      A module. `project` makes the keys, once for a sentence; calling it reads; `inspect` shows
      how.

    Raises:
      ValueError: the score is unknown, "dot" is asked of two widths, or the window is below 1.

    Example:
      >>> from attn_jax.modules.luong import LuongAttention
      >>> attention = LuongAttention(1, 1, "dot", rngs=nnx.Rngs(0))
      >>> annotations, mask = jnp.array([[0.0], [1.0], [50.0]]), jnp.array([True, True, False])
      >>> scores, weights = attention.inspect(jnp.array([[100.0]]), annotations, mask)
      >>> (scores.tolist(), weights.tolist())
      ([[0.0, 100.0, 5000.0]], [[0.0, 1.0, 0.0]])
    """

    def __init__(
        self,
        query_dim: int,
        annotation_dim: int,
        score: str = "general",
        *,
        align_dim: int = 1000,
        window: int = 10,
        kernel_init: nnx.Initializer | None = None,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        _check(score, query_dim, annotation_dim, window)
        self.score, self.dtype = score, dtype
        kernel_init = kernel_init or uniform(0.1)
        computed: dict[str, Any] = {"dtype": dtype, "promote_dtype": as_the_first}
        linear = partial(nnx.Linear, use_bias=False, kernel_init=kernel_init, **computed, rngs=rngs)
        if score in ("general", "local"):
            self.bilinear = linear(query_dim, annotation_dim)
        if score == "concat":  # W_a [query; annotation] is the sum of two products
            self.query_kernel = linear(query_dim, align_dim)
            self.key_kernel = linear(annotation_dim, align_dim)
            self.v = linear(align_dim, 1)
        if score == "local":
            self.focus = PredictedFocus(query_dim, window, kernel_init=kernel_init, rngs=rngs)

    def project(self, annotations: Float[Array, "S E"]) -> Float[Array, "S A"]:
        """The keys: concat's half of its product, else the annotations as they are."""
        if self.score == "concat":
            return self.key_kernel(annotations)
        return in_dtype(annotations, self.dtype)

    def __call__(
        self,
        query: Float[Array, "T H"],
        keys: Float[Array, "S A"],
        annotations: Float[Array, "S E"],
        mask: Bool[Array, " S"],
    ) -> Float[Array, "T E"]:
        """The contexts: for each query the sum of the annotations under its attention weights."""
        annotations = in_dtype(annotations, self.dtype)
        if self.score != "local":
            return attend(self._ask(query), keys, annotations, score=self._score, mask=mask[None])

        def read(query, gaussian, readable):
            seen = gaussian[:, None].astype(jnp.result_type(annotations)) * annotations
            return attend(query[None], keys, seen, score=self._score, mask=readable[None])[0]

        return jax.vmap(read)(self._ask(query), *self.focus(query, mask))

    def inspect(
        self, query: Float[Array, "T H"], keys: Float[Array, "S A"], mask: Bool[Array, " S"]
    ) -> tuple[Float[Array, "T S"], Float[Array, "T S"]]:
        """The scores before the mask, and the weights with which a call reads."""
        asked = self._ask(query)
        logits = self._score(asked, keys)
        if self.score != "local":
            return logits, attention_weights(asked, keys, score=self._score, mask=mask[None])
        gaussian, readable = self.focus(query, mask)
        weights = attention_weights(asked, keys, score=self._score, mask=readable)
        return logits, gaussian * weights

    def _ask(self, query: Float[Array, "T H"]) -> Float[Array, "T A"]:
        return self.query_kernel(query) if self.score == "concat" else in_dtype(query, self.dtype)

    def _score(self, query: Float[Array, "T H"], keys: Float[Array, "S A"]) -> Float[Array, "T S"]:
        if self.score == "dot":
            return scores.dot(query, keys)
        if self.score == "concat":
            return scores.additive(query, keys, self.v.kernel[:, 0])
        return scores.general(query, keys, self.bilinear.kernel[...])


class PredictedFocus(nnx.Module):
    """Where local attention looks: a window around a predicted position, and a Gaussian on it.

    Luong et al. (2015), eq. 9 and 10; parameters W_p and v_p. See `LuongAttention`.
    """

    def __init__(
        self, query_dim: int, window: int, *, kernel_init: nnx.Initializer, rngs: nnx.Rngs
    ) -> None:
        computed: dict[str, Any] = {"promote_dtype": as_the_first}
        linear = partial(nnx.Linear, use_bias=False, kernel_init=kernel_init, **computed, rngs=rngs)
        self.window = window
        self.hidden = linear(query_dim, query_dim)
        self.position = linear(query_dim, 1)

    def __call__(
        self, query: Float[Array, "T H"], mask: Bool[Array, " S"]
    ) -> tuple[Float[Array, "T S"], Bool[Array, "T S"]]:
        query = query.astype(numerics.accumulation_dtype(query.dtype))  # positions are large
        length = jnp.sum(mask).astype(query.dtype)
        center = length * nnx.sigmoid(self.position(jnp.tanh(self.hidden(query))))
        token = (jnp.cumsum(mask) - 1).astype(query.dtype)  # the position among tokens
        distance = token[None] - center
        gaussian = jnp.exp(-2 * jnp.square(distance / self.window))  # −d² / 2σ² with σ = D / 2
        return gaussian, mask[None] & (jnp.abs(distance) <= self.window)


def uniform(limit: float) -> nnx.Initializer:
    """Draws from U[−limit, limit], Luong's start for every parameter."""

    def init(rng, shape, dtype=jnp.float32, **_):
        return jax.random.uniform(rng, shape, dtype, -limit, limit)

    return init


def _check(score: str, query_dim: int, annotation_dim: int, window: int) -> None:
    if score not in SCORES:
        raise ValueError(f"score={score!r} is unknown; choose from {', '.join(map(repr, SCORES))}")
    if score == "dot" and query_dim != annotation_dim:
        raise ValueError(
            f"score='dot' needs query_dim={query_dim} and annotation_dim={annotation_dim} to be "
            f"equal; score='general' maps one to the other"
        )
    if window < 1:
        raise ValueError(f"window={window} must be at least 1: the Gaussian is window / 2 wide")
