"""Luong's global and local attention as a layer."""

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
from attn_jax.modules.norms import promote_to_first

SCORES = ("dot", "general", "concat", "local")


class LuongAttention(nnx.Module):
    """Luong's global attention with a dot, general or concat score, or his local attention.

    Luong et al., "Effective Approaches to Attention-based NMT" (2015), §3.1–3.2,
    https://arxiv.org/abs/1508.04025.

      global  weights[t, s] = softmax_s(score(query[t], annotations[s]))
      local   weights[t, s] = softmax_s(general score, |s − p_t| ≤ D) · exp(−(s − p_t)² / 2σ²)
              p_t = S · sigmoid(v_p · tanh(query[t] @ W_p)),  σ = D / 2

    Local weights are not renormalised, so they sum to less than 1. Gradients reach W_p and v_p only
    through the Gaussian. Positions and S count tokens without padding; the first position is 0.

    Args:
      query_dim: width of a query.
      annotation_dim: width of an annotation; equal to query_dim for "dot".
      score: "dot", "general", "concat", or "local" (the paper's local-p with the general score).
      align_dim: width of the hidden layer of "concat".
      window: how many positions to each side of p_t local attention attends to, D in the paper.
      kernel_init: initializer of all parameters; default U[−0.1, 0.1], as in the paper.
      dtype: dtype of the computation; default that of the input.
      rngs: random keys for the parameters.

    Returns:
      A module. `project` computes the keys, once for a sentence. A call computes the contexts.
      `inspect` returns the scores and attention weights of a call.

    Raises:
      ValueError: the score is unknown, "dot" is used with two widths, or the window is below 1.

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
        computed: dict[str, Any] = {"dtype": dtype, "promote_dtype": promote_to_first}
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
        """Computes the keys: for "concat" a projection, otherwise the annotations."""
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
        """Computes the context of each query: the sum of the annotations by attention weights."""
        annotations = in_dtype(annotations, self.dtype)
        projected = self._project_query(query)
        if self.score != "local":
            return attend(projected, keys, annotations, score=self._score, mask=mask[None])

        def attend_locally(query, gaussian, in_window):
            values = gaussian[:, None].astype(jnp.result_type(annotations)) * annotations
            return attend(query[None], keys, values, score=self._score, mask=in_window[None])[0]

        return jax.vmap(attend_locally)(projected, *self.focus(query, mask))

    def inspect(
        self, query: Float[Array, "T H"], keys: Float[Array, "S A"], mask: Bool[Array, " S"]
    ) -> tuple[Float[Array, "T S"], Float[Array, "T S"]]:
        """Returns the scores before the mask, and the attention weights of a call."""
        projected = self._project_query(query)
        logits = self._score(projected, keys)
        if self.score != "local":
            return logits, attention_weights(projected, keys, score=self._score, mask=mask[None])
        gaussian, in_window = self.focus(query, mask)
        weights = attention_weights(projected, keys, score=self._score, mask=in_window)
        return logits, gaussian * weights

    def _project_query(self, query: Float[Array, "T H"]) -> Float[Array, "T A"]:
        return self.query_kernel(query) if self.score == "concat" else in_dtype(query, self.dtype)

    def _score(self, query: Float[Array, "T H"], keys: Float[Array, "S A"]) -> Float[Array, "T S"]:
        if self.score == "dot":
            return scores.dot(query, keys)
        if self.score == "concat":
            return scores.additive(query, keys, self.v.kernel[:, 0])
        return scores.general(query, keys, self.bilinear.kernel[...])


class PredictedFocus(nnx.Module):
    """Predicts a position for each query; returns a Gaussian around it, and a mask of the window.

    Luong et al. (2015), eq. 9 and 10; parameters W_p and v_p. See `LuongAttention`.
    """

    def __init__(
        self, query_dim: int, window: int, *, kernel_init: nnx.Initializer, rngs: nnx.Rngs
    ) -> None:
        computed: dict[str, Any] = {"promote_dtype": promote_to_first}
        linear = partial(nnx.Linear, use_bias=False, kernel_init=kernel_init, **computed, rngs=rngs)
        self.window = window
        self.hidden = linear(query_dim, query_dim)
        self.position = linear(query_dim, 1)

    def __call__(
        self, query: Float[Array, "T H"], mask: Bool[Array, " S"]
    ) -> tuple[Float[Array, "T S"], Bool[Array, "T S"]]:
        query = query.astype(numerics.accumulation_dtype(query.dtype))  # positions may be large
        length = jnp.sum(mask).astype(query.dtype)
        center = length * nnx.sigmoid(self.position(jnp.tanh(self.hidden(query))))
        token = (jnp.cumsum(mask) - 1).astype(query.dtype)  # position without padding
        distance = token[None] - center
        gaussian = jnp.exp(-2 * jnp.square(distance / self.window))  # −d² / 2σ² with σ = D / 2
        return gaussian, mask[None] & (jnp.abs(distance) <= self.window)


def uniform(limit: float) -> nnx.Initializer:
    """Returns an initializer that draws from U[−limit, limit], as Luong does."""

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
