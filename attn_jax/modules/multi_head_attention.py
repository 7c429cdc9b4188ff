"""The multi-head attention layer: self- or cross-attention, on whole sequences or with a cache."""

from typing import Any, Literal

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, DTypeLike, Float, Int, Key

from attn_jax import masks, score_mods
from attn_jax._attend import Scale
from attn_jax._base import checks
from attn_jax._block_mask import BlockMask
from attn_jax._engine.dispatch import Implementation
from attn_jax._multi_head import dot_product_attention
from attn_jax._multi_head_stats import of_heads
from attn_jax._stats import AttentionStats, attention_stats
from attn_jax.caches import Cache
from attn_jax.caches._attention import cached_attention
from attn_jax.modules import _rules
from attn_jax.modules._linear import project_in, project_out
from attn_jax.modules._memory import check_no_memory_value, values_from
from attn_jax.modules._parameters import GLOROT_UNIFORM, Parameters, head_sizes
from attn_jax.modules.norms import Norm, make_qk_norm, normalise
from attn_jax.modules.rotary import Rotary

# Not MaskLike as in attend: beartype takes two aliases of one name for one.
type HeadsMask = Bool[Array, "*#B #N #T S"] | masks.MaskFunction | BlockMask


class MultiHeadAttention(nnx.Module):
    """The attention layer for work: multi-head self- or cross-attention, with or without a cache.

    Vaswani et al. (2017), section 3.2.2, https://arxiv.org/abs/1706.03762; grouped
    key/value heads: Ainslie et al. (2023), https://arxiv.org/abs/2305.13245.

      query, key, value = x w_query + b_query,  memory w_key + b_key,  memory w_value + b_value
      out = dot_product_attention(query, key, value) w_out + b_out

    A mask or score mod is part of the layer. Its arrays are constants; to train them, make them
    `nnx.Param`: `score_mod=jax.tree.map(nnx.Param, score_mods.alibi(slopes[None]))`.

    Args:
      model_dim: width of a token's vector before and after, D.
      num_heads: how many query heads, N.
      num_kv_heads: how many heads of keys and values, K, a divisor of N; default N.
      head_dim: width of a head's queries and keys, H; default model_dim / num_heads.
      value_dim: width of a head's values, V; default head_dim.
      memory_dim: width of the memory, E, for cross-attention; default model_dim.
      memory_value_dim: width of `memory_value`, from which values are computed; default memory_dim.
      use_bias: whether the projections to query, key and value have biases.
      use_out_bias: whether the output projection has a bias; default `use_bias`.
      qk_norm: norm of each head's queries and keys: True is RMSNorm (Qwen3), "layer" LayerNorm
        without bias (Dehghani et al. 2023, https://arxiv.org/abs/2302.05442).
      rotary: the rotary position embedding of queries and keys; None for none.
      mask: a mask of `attn_jax.masks`, such as `masks.causal()`, or any function of positions.
      score_mod: a function of logit and positions, as in `dot_product_attention`.
      scale: the factor on the dot products; default 1/√H.
      use_sink: whether each head has a sink: a trained logit in the softmax, without a value.
      dropout_rate: the probability with which a weight is dropped in calls with an `rng`.
      implementation: the name of a backend; None lets the library choose.
      norm_eps: added to the variance in `qk_norm`.
      kernel_init: initializer of the four matrices, with all heads in one axis.
      dtype: dtype of the computation; default that of the input.
      param_dtype: dtype of the parameters.
      rngs: random keys for the parameters.

    Returns:
      A module; call it with any number of batch axes. `layer(x)` is self-attention,
      `layer(x, memory)` cross-attention, `layer(x, memory, memory_value)` cross-attention with
      values from another array, `layer.extend(x, cache)` a decode step or prefill.

    Raises:
      ValueError: head counts do not divide, a size is below 1, or a rate or scale is out of range.
      TypeError: the mask or score mod is not a function of positions.

    Numerics:
      Parameters are cast to `dtype` (or x's dtype). Norms, rotations, softmax and sums in float32
      at least.

    Cost:
      D N (H + V) + E K (H + V) parameters, and the biases.

    Example:
      >>> from attn_jax.modules import MultiHeadAttention
      >>> options = {"num_kv_heads": 2, "mask": attn_jax.masks.causal()}
      >>> layer = MultiHeadAttention(8, 4, **options, rngs=nnx.Rngs(0))
      >>> x = jax.random.normal(jax.random.key(0), (2, 5, 8))
      >>> whole, prefix = layer(x), layer(x[:, :3])
      >>> bool(jnp.allclose(whole[:, :3], prefix, atol=1e-6))   # causal
      True
    """

    def __init__(
        self,
        model_dim: int,
        num_heads: int,
        *,
        num_kv_heads: int | None = None,
        head_dim: int | None = None,
        value_dim: int | None = None,
        memory_dim: int | None = None,
        memory_value_dim: int | None = None,
        use_bias: bool = False,
        use_out_bias: bool | None = None,
        qk_norm: bool | Literal["layer"] = False,
        rotary: Rotary | None = None,
        mask: masks.MaskFunction | None = None,
        score_mod: score_mods.ScoreModFunction | None = None,
        scale: Scale | None = None,
        use_sink: bool = False,
        dropout_rate: float = 0.0,
        implementation: Implementation | None = None,
        norm_eps: float = 1e-6,
        kernel_init: nnx.Initializer = GLOROT_UNIFORM,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        checks.check_rate("dropout_rate", dropout_rate)
        checks.check_scale(scale)
        N, K, H, V = head_sizes(model_dim, num_heads, num_kv_heads, head_dim, value_dim)
        D, E = model_dim, model_dim if memory_dim is None else memory_dim
        source = E if memory_value_dim is None else memory_value_dim
        self.model_dim, self.memory_dim, self.memory_value_dim, self.dtype = D, E, source, dtype
        self.num_heads, self.num_kv_heads, self.head_dim, self.value_dim = N, K, H, V
        new = Parameters(kernel_init, param_dtype, rngs)
        self.w_query = new.matrix((D, "model"), (N, "heads"), (H, "head"))
        self.w_key = new.matrix((E, "model"), (K, "kv_heads"), (H, "head"))
        self.w_value = new.matrix((source, "model"), (K, "kv_heads"), (V, "head"))
        self.w_out = new.matrix((N, "heads"), (V, "head"), (D, "model"), inputs=2)
        self.b_query = new.zeros((N, "heads"), (H, "head")) if use_bias else None
        self.b_key = new.zeros((K, "kv_heads"), (H, "head")) if use_bias else None
        self.b_value = new.zeros((K, "kv_heads"), (V, "head")) if use_bias else None
        has_out_bias = use_bias if use_out_bias is None else use_out_bias
        self.b_out = new.zeros((D, "features")) if has_out_bias else None
        self.sink = new.zeros((N, "heads")) if use_sink else None
        self.query_norm = make_qk_norm(qk_norm, H, norm_eps, new)
        self.key_norm = make_qk_norm(qk_norm, H, norm_eps, new)
        self.rotary = rotary
        self.mask, self.score_mod = (
            _rules.wrap("mask", mask),
            _rules.wrap("score_mod", score_mod),
        )
        self.scale, self.dropout_rate, self.implementation = scale, dropout_rate, implementation

    def __call__(
        self,
        x: Float[Array, "*#B T D"],
        memory: Float[Array, "*#B S E"] | None = None,
        memory_value: Float[Array, "*#B S _"] | None = None,
        *,
        mask: HeadsMask | None = None,
        query_position: Int[Array, "*#B T"] | None = None,
        key_position: Int[Array, "*#B S"] | None = None,
        rng: Key[Array, ""] | None = None,
    ) -> Float[Array, "*B T D"]:
        """Computes the attention of x to the memory, or to x itself.

        Args:
          x: the tokens from which queries are computed.
          memory: the tokens to attend to; default x.
          memory_value: the array from which values are computed; default `memory`.
          mask: another mask beside the layer's own: an array [*B N T S], each axis full or 1, a
            function of positions, or a `BlockMask`.
          query_position: the position of each token of x; default 0, 1, 2, …
          key_position: the position of each token of memory; give both or neither. In
            self-attention the default is query_position.
          rng: the random key of dropout; None turns dropout off.

        Returns:
          One vector for each token of x, in `dtype` or x's dtype.

        Raises:
          ValueError: as `dot_product_attention`; or x or memory has another width.
        """
        query = self.project_query(x, query_position=query_position)
        if memory is None:
            check_no_memory_value(memory_value)
            memory, key_position = x, query_position if key_position is None else key_position
        key, value = self.project_memory(memory, memory_value, key_position=key_position)
        return self._attend(query, key, value, mask, (query_position, key_position), rng)

    def extend(
        self, x: Float[Array, "B T D"], cache: Cache, *, is_real: Bool[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], Cache]:
        """Appends the next tokens to the cache, and computes their causal attention over it.

        Args:
          x: the next tokens of each sequence, any number.
          cache: a cache of `attn_jax.caches`, made for num_kv_heads, head_dim and value_dim.
          is_real: False for padding, which may be anywhere and is not stored.

        Returns:
          One vector for each token (meaningless for padding), and the cache with the tokens.

        Raises:
          CacheOverflow: there is no room, outside of `jit`.
        """
        is_real = jnp.ones(x.shape[:2], bool) if is_real is None else is_real
        position = cache.positions(is_real)
        query = self.project_query(x, query_position=position)
        cache, held = cache.append(*self.project_memory(x, key_position=position), is_real)
        out = cached_attention(query, held, mask=_rules.unwrap(self.mask), **self._options())
        return project_out(out, self.w_out, self.b_out), cache

    def project_query(
        self, x: Float[Array, "*#B T D"], *, query_position: Int[Array, "*#B T"] | None = None
    ) -> Float[Array, "*B T N H"]:
        """Computes the queries of all heads, with norm and rotary position embedding."""
        query = project_in("x", x, self.w_query, self.b_query, self.dtype)
        return self._with_norm_and_rotary(query, self.query_norm, query_position)

    def project_memory(
        self,
        memory: Float[Array, "*#B S E"],
        memory_value: Float[Array, "*#B S _"] | None = None,
        *,
        key_position: Int[Array, "*#B S"] | None = None,
    ) -> tuple[Float[Array, "*#B S K H"], Float[Array, "*#B S K V"]]:
        """Computes keys and values of a memory once for many steps, for `attend_to_memory`."""
        key = self._key(memory, key_position)
        source = values_from(memory, memory_value, self.memory_value_dim)
        return key, project_in("memory_value", source, self.w_value, self.b_value, self.dtype)

    def attend_to_memory(
        self,
        x: Float[Array, "*#B T D"],
        key: Float[Array, "*#B S K H"],
        value: Float[Array, "*#B S K V"],
        *,
        mask: HeadsMask | None = None,
        query_position: Int[Array, "*#B T"] | None = None,
        key_position: Int[Array, "*#B S"] | None = None,
        query_row: Int[Array, "*#B T"] | None = None,
        rng: Key[Array, ""] | None = None,
    ) -> Float[Array, "*B T D"]:
        """`layer(x, memory)` from the result of `project_memory`; `query_row` is as in `attend`."""
        query = self.project_query(x, query_position=query_position)
        place = (query_position, key_position, query_row)
        return self._attend(query, key, value, mask, place, rng)

    def stats(
        self,
        x: Float[Array, "*#B T D"],
        memory: Float[Array, "*#B S E"] | None = None,
        *,
        mask: HeadsMask | None = None,
        query_position: Int[Array, "*#B T"] | None = None,
        key_position: Int[Array, "*#B S"] | None = None,
        top: int = 4,
    ) -> AttentionStats:
        """Computes statistics of the attention weights of `layer(x, memory)`, without dropout.

        Args:
          x: as in `__call__`.
          memory, mask, query_position, key_position: as in `__call__`.
          top: how many of the greatest weights of each query to return.

        Returns:
          `AttentionStats` whose arrays start with the axes [*B N]. It has no gradients, and needs
          no T×S array.
        """
        query = self.project_query(x, query_position=query_position)
        if memory is None:
            memory, key_position = x, query_position if key_position is None else key_position
        key = self._key(memory, key_position)
        own = self._mask_options(query, key, mask, (query_position, key_position))
        return of_heads(attention_stats, query, key, {**own, **self._options()}, top=top)

    def _key(self, memory, position) -> Float[Array, "*B S K H"]:
        key = project_in("memory", memory, self.w_key, self.b_key, self.dtype)
        return self._with_norm_and_rotary(key, self.key_norm, position)

    def _with_norm_and_rotary(self, heads, norm: Norm | None, position) -> Float[Array, "*B T N H"]:
        heads = heads if norm is None else normalise(norm, heads)
        position = jnp.arange(heads.shape[-3]) if position is None else position
        return heads if self.rotary is None else self.rotary(heads, position)

    def _attend(self, query, key, value, mask, place, rng) -> Float[Array, "*B T D"]:
        dropout = {"dropout_rate": 0.0 if rng is None else self.dropout_rate, "dropout_rng": rng}
        own = self._mask_options(query, key, mask, place)
        out = dot_product_attention(query, key, value, **own, **dropout, **self._options())
        return project_out(out, self.w_out, self.b_out)

    def _mask_options(self, query, key, mask, place) -> dict[str, Any]:
        """Returns mask, positions and rows as arguments of an attention call."""
        if self.rotary is not None:
            checks.check_aligned("rotary", place[0], place[1], query.shape[-3], key.shape[-3])
        both = _rules.combined(_rules.unwrap(self.mask), mask, query, key)
        names = ("query_position", "key_position", "query_row")
        return {"mask": both, **dict(zip(names, place, strict=False))}

    def _options(self) -> dict[str, Any]:
        """Returns the other arguments of an attention call."""
        return {
            "score_mod": _rules.unwrap(self.score_mod),
            "scale": self.scale,
            "sink": None if self.sink is None else self.sink[...],
            "implementation": self.implementation,
        }
