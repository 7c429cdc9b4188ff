"""Multi-head attention as a layer: self or cross, over a whole sequence or with a cache."""

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
from attn_jax.modules._linear import gather, spread
from attn_jax.modules._memory import check_no_values_alone, values_from
from attn_jax.modules._parameters import GLOROT_UNIFORM, Parameters, head_sizes
from attn_jax.modules.norms import Norm, make_qk_norm, normalise
from attn_jax.modules.rotary import Rotary

# Not MaskLike as in attend: beartype takes two aliases of one name for one.
type HeadsMask = Bool[Array, "*#B #N #T S"] | masks.MaskFunction | BlockMask


class MultiHeadAttention(nnx.Module):
    """Attention of many heads, each in a subspace of its own, joined by one matrix.

    Vaswani et al. (2017), section 3.2.2, https://arxiv.org/abs/1706.03762; heads that share keys
    and values: Ainslie et al. (2023), https://arxiv.org/abs/2305.13245.

      query, key, value = x w_query + b_query,  memory w_key + b_key,  memory w_value + b_value
      out = dot_product_attention(query, key, value) w_out + b_out

    A mask or score mod is part of the layer. Its arrays are constants; one that is a
    `nnx.Param` is trained: `score_mod=jax.tree.map(nnx.Param, score_mods.alibi(slopes[None]))`.

    Args:
      model_dim: width of a token's vector before and after, D.
      num_heads: how many heads ask, N.
      num_kv_heads: how many heads of keys and values there are, K, a divisor of N; N by default.
      head_dim: width of a head's queries and keys, H; model_dim / num_heads by default.
      value_dim: width of a head's values, V; head_dim by default.
      memory_dim: width of what is read, E, where it is another sequence; model_dim by default.
      memory_value_dim: width of what values are made of, where that is another array than what keys
        are made of; memory_dim by default.
      use_bias: whether queries, keys and values have biases.
      use_out_bias: whether the output has one; as `use_bias` by default.
      qk_norm: norms of each head's queries and keys: True is RMSNorm (Qwen3), "layer" LayerNorm
        without bias (Dehghani et al. 2023, https://arxiv.org/abs/2302.05442).
      rotary: turns queries and keys by their positions.
      mask: who may read whom, a rule on positions such as `masks.causal()`.
      score_mod: a change to the logits, as in `dot_product_attention`.
      scale: factor on the dot products; 1/√H by default.
      use_sink: whether each head has a trained logit with nothing to read, in the denominator.
      dropout_rate: the probability with which a weight is dropped where a call brings an `rng`.
      implementation: a backend by name, or None to let the library choose.
      norm_eps: what is added to a variance in `qk_norm`.
      kernel_init: of the four matrices, each seen as width before × width after.
      dtype: in which a call computes; by default that of its input.
      param_dtype: in which the parameters are kept.
      rngs: where the parameters come from.

    Returns:
      A module, called with any number of batch axes: `layer(x)` reads x itself, `layer(x, memory)`
      another sequence, `layer(x, memory, memory_value)` one whose values are made of another array,
      `layer.extend(x, cache)` what a cache holds and x.

    Raises:
      ValueError: heads do not fit, a size is below 1, or a rate or scale is out of range.
      TypeError: the mask or score mod is no function of positions.

    Numerics:
      Computed in `dtype`, or that of x, to which parameters are rounded; norms, rotations, softmax
      and sums in float32 at least.

    Cost:
      D N (H + V) + E K (H + V) parameters, and the biases.

    Example:
      >>> from attn_jax.modules import MultiHeadAttention
      >>> options = {"num_kv_heads": 2, "mask": attn_jax.masks.causal()}
      >>> layer = MultiHeadAttention(8, 4, **options, rngs=nnx.Rngs(0))
      >>> x = jax.random.normal(jax.random.key(0), (2, 5, 8))
      >>> whole, beginning = layer(x), layer(x[:, :3])
      >>> bool(jnp.allclose(whole[:, :3], beginning, atol=1e-6))   # nobody reads what comes later
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
        self.mask, self.score_mod = _rules.kept("mask", mask), _rules.kept("score_mod", score_mod)
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
        """What each token of x reads.

        Args:
          x: the tokens that ask.
          memory: the tokens that are read; x itself by default.
          memory_value: what their values are made of; the memory itself by default.
          mask: who may read whom, [*B N T S] with each axis full or 1, or a rule; what the layer's
            own mask forbids stays forbidden.
          query_position: where the tokens of x stand; from 0 on.
          key_position: where those of memory stand, given with the others; as x, if that is read.
          rng: which weights are dropped; None drops nothing.

        Returns:
          One vector a token, in `dtype` or that of x.

        Raises:
          ValueError: as `dot_product_attention`; or x or memory has another width.
        """
        query = self.project_query(x, query_position=query_position)
        if memory is None:
            check_no_values_alone(memory_value)
            memory, key_position = x, query_position if key_position is None else key_position
        key, value = self.project_memory(memory, memory_value, key_position=key_position)
        return self._read(query, key, value, mask, (query_position, key_position), rng)

    def extend(
        self, x: Float[Array, "B T D"], cache: Cache, *, is_real: Bool[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], Cache]:
        """Takes the next tokens into the cache, and reads what it holds: no token what comes later.

        Args:
          x: the next tokens of each sequence, as many as one likes.
          cache: of `attn_jax.caches`, for num_kv_heads heads, head_dim and value_dim.
          is_real: False for padding, which stands anywhere and is neither stored nor read.

        Returns:
          One vector a token (of no meaning for padding), and the cache with the tokens in it.

        Raises:
          CacheOverflow: there is no room, and we are not under `jit`.
        """

        is_real = jnp.ones(x.shape[:2], bool) if is_real is None else is_real
        position = cache.positions(is_real)
        query = self.project_query(x, query_position=position)
        cache, held = cache.append(*self.project_memory(x, key_position=position), is_real)
        out = cached_attention(query, held, mask=_rules.read(self.mask), **self._options())
        return gather(out, self.w_out, self.b_out), cache

    def project_query(
        self, x: Float[Array, "*#B T D"], *, query_position: Int[Array, "*#B T"] | None = None
    ) -> Float[Array, "*B T N H"]:
        """The heads' queries, normalised and turned, as they meet the keys."""
        query = spread("x", x, self.w_query, self.b_query, self.dtype)
        return self._turned(query, self.query_norm, query_position)

    def project_memory(
        self,
        memory: Float[Array, "*#B S E"],
        memory_value: Float[Array, "*#B S _"] | None = None,
        *,
        key_position: Int[Array, "*#B S"] | None = None,
    ) -> tuple[Float[Array, "*#B S K H"], Float[Array, "*#B S K V"]]:
        """Keys and values of a sequence that many steps will read, for `read_memory`."""
        key = self._key(memory, key_position)
        source = values_from(memory, memory_value, self.memory_value_dim)
        return key, spread("memory_value", source, self.w_value, self.b_value, self.dtype)

    def read_memory(
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
        """`layer(x, memory)` from what `project_memory` made; `query_row` as in `attend`."""
        query = self.project_query(x, query_position=query_position)
        place = (query_position, key_position, query_row)
        return self._read(query, key, value, mask, place, rng)

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
        """`attention_stats` of the weights with which `layer(x, memory)` reads, none dropped.

        Args:
          x: as the call, and so all that follow.
          memory: see the call.
          mask: see the call.
          query_position: see the call.
          key_position: see the call.
          top: how many of the greatest weights of each query.

        Returns:
          Figures with axes [*B N] in front. No gradients, no T×S array.
        """
        query = self.project_query(x, query_position=query_position)
        if memory is None:
            memory, key_position = x, query_position if key_position is None else key_position
        key = self._key(memory, key_position)
        rule = self._rule(query, key, mask, (query_position, key_position))
        return of_heads(attention_stats, query, key, {**rule, **self._options()}, top=top)

    def _key(self, memory, position) -> Float[Array, "*B S K H"]:
        key = spread("memory", memory, self.w_key, self.b_key, self.dtype)
        return self._turned(key, self.key_norm, position)

    def _turned(self, heads, norm: Norm | None, position) -> Float[Array, "*B T N H"]:
        heads = heads if norm is None else normalise(norm, heads)
        position = jnp.arange(heads.shape[-3]) if position is None else position
        return heads if self.rotary is None else self.rotary(heads, position)

    def _read(self, query, key, value, mask, place, rng) -> Float[Array, "*B T D"]:
        drop = {"dropout_rate": 0.0 if rng is None else self.dropout_rate, "dropout_rng": rng}
        rule = self._rule(query, key, mask, place)
        out = dot_product_attention(query, key, value, **rule, **drop, **self._options())
        return gather(out, self.w_out, self.b_out)

    def _rule(self, query, key, mask, place) -> dict[str, Any]:
        """Who may read whom, as arguments of a read."""
        if self.rotary is not None:
            checks.check_aligned("rotary", place[0], place[1], query.shape[-3], key.shape[-3])
        both = _rules.both(_rules.read(self.mask), mask, query, key)
        names = ("query_position", "key_position", "query_row")
        return {"mask": both, **dict(zip(names, place, strict=False))}

    def _options(self) -> dict[str, Any]:
        """What else a read is told."""
        return {
            "score_mod": _rules.read(self.score_mod),
            "scale": self.scale,
            "sink": None if self.sink is None else self.sink[...],
            "implementation": self.implementation,
        }
