"""The configuration of a `GPT`: one class of config describes every supported family of models."""

import dataclasses
import math
import warnings
from numbers import Integral
from typing import Literal, get_args

from attn_jax._base.checks import check_rate
from attn_jax.modules import Rotary
from attn_jax.modules.feed_forward import Activation
from attn_jax.modules.norms import Kind


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Sizes and choices of a `GPT`; the defaults are GPT-2 with 124 million parameters.

    Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), section 2.3; Llama
    (Touvron et al. 2023, https://arxiv.org/abs/2302.13971, section 2.2), Mistral
    (https://arxiv.org/abs/2310.06825), Qwen3 (https://arxiv.org/abs/2505.09388) and Gemma 2
    (https://arxiv.org/abs/2408.00118, table 1) differ from it in these fields.

    Args:
      vocab_size: how many tokens there are.
      model_dim: width of a token's vector.
      num_layers: how many blocks.
      num_heads: query heads of a block.
      num_kv_heads: key/value heads; as many by default.
      head_dim: width of a head; model_dim / num_heads by default.
      hidden_dim: width inside the feed-forward network; 4 model_dim by default.
      max_length: the most positions, those of the learned table. With `rotary` it is the length of
        texts in training and limits nothing: the first longer text causes a warning.
      norm: "layer" or "rms".
      norm_eps: the number that a norm adds to the variance.
      placement: where the norms are: "pre" each sub-layer, or on "both" sides of it as in Gemma 2.
      rotary: rotary positions; None for a learned table of positions.
      activation: of the feed-forward network.
      gated: whether that has a gate (SwiGLU with "silu").
      use_bias: whether output projections and the feed-forward network have biases.
      use_qkv_bias: whether the projections of queries, keys and values have biases.
      qk_norm: whether each head's queries and keys are normalised by RMSNorm.
      windows: for each layer how many *other* positions back a token may attend to, None for all of
        them. None instead of a tuple: no layer has a window.
      scale: factor on the dot products; 1/√head_dim by default.
      logits_soft_cap: c in c · tanh(logit / c) on attention's logits; None leaves them.
      final_soft_cap: the same for the logits over the vocabulary.
      embed_scale: factor on embeddings; Gemma's is √model_dim.
      is_tied: whether the logits are computed with the embedding's table (tied weights).
      dropout_rate: share of embeddings, attention weights and sub-layers' outputs dropped in
        training.

    Raises:
      ValueError: sizes do not fit together, or a choice is unknown.

    Example:
      >>> from attn_jax.models import DecoderConfig, GPT
      >>> gpt2 = nnx.eval_shape(lambda: GPT(DecoderConfig(), rngs=nnx.Rngs(0)))
      >>> sum(leaf.size for leaf in jax.tree.leaves(nnx.state(gpt2)))
      124439808
    """

    vocab_size: int = 50_257
    model_dim: int = 768
    num_layers: int = 12
    num_heads: int = 12
    num_kv_heads: int | None = None
    head_dim: int | None = None
    hidden_dim: int | None = None
    max_length: int = 1024
    norm: Literal["layer", "rms"] = "layer"
    norm_eps: float = 1e-5
    placement: Literal["pre", "both"] = "pre"
    rotary: Rotary | None = None
    activation: Literal["relu", "gelu", "gelu_tanh", "silu"] = "gelu_tanh"
    gated: bool = False
    use_bias: bool = True
    use_qkv_bias: bool = True
    qk_norm: bool = False
    windows: tuple[int | None, ...] | None = None
    scale: float | None = None
    logits_soft_cap: float | None = None
    final_soft_cap: float | None = None
    embed_scale: float = 1.0
    is_tied: bool = True
    dropout_rate: float = 0.0

    def __post_init__(self) -> None:
        _check_sizes(self)
        _check_choices(self)
        _check_windows(self)
        _check_numbers(self)

    @property
    def kv_heads(self) -> int:
        """Key/value heads of a block."""
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    @property
    def head_width(self) -> int:
        """Width of a head."""
        return self.model_dim // self.num_heads if self.head_dim is None else self.head_dim

    def window(self, layer: int) -> int | None:
        """How many other positions back a token of a layer may attend to; None for all."""
        return None if self.windows is None else self.windows[layer]


_WARNED: set[int] = set()


def warn_of_length(config: DecoderConfig, length: int) -> None:
    """Warns once for each `max_length` if a text is longer than the texts in training.

    Rotary positions permit such texts.
    """
    longest = config.max_length
    if length > longest and longest not in _WARNED:
        _WARNED.add(longest)
        warnings.warn(
            f"a text may have {length} tokens, and the model was trained on at most {longest} "
            "(max_length, max_position_embeddings): its output beyond them may make no sense",
            stacklevel=2,
        )


def _check_sizes(config: DecoderConfig) -> None:
    sizes = ("vocab_size", "model_dim", "num_layers", "num_heads", "max_length")
    for name in (*sizes, "num_kv_heads", "head_dim", "hidden_dim"):
        size = getattr(config, name)
        if size is None and name not in sizes:
            continue
        if not isinstance(size, Integral) or isinstance(size, bool) or size < 1:
            raise ValueError(f"{name} must be a whole number, at least 1; got {size!r}")
    if config.head_dim is None and config.model_dim % config.num_heads:
        raise ValueError(
            f"num_heads={config.num_heads} must divide model_dim={config.model_dim}; pass head_dim "
            "to choose it freely"
        )
    if config.num_heads % config.kv_heads:
        raise ValueError(
            f"num_kv_heads={config.kv_heads} must divide num_heads={config.num_heads}: each "
            "key/value head serves the same number of query heads"
        )
    if config.rotary is not None and int(config.head_width * config.rotary.fraction) % 2:
        raise ValueError(
            f"head_dim={config.head_width} gives an odd number of features to rotate with "
            f"{config.rotary}; choose an even width"
        )


def _check_choices(config: DecoderConfig) -> None:
    known = {
        "placement": ("pre", "both"),
        "norm": get_args(Kind.__value__),
        "activation": get_args(Activation.__value__),
    }
    for name, choices in known.items():
        choice = getattr(config, name)
        if choice not in choices:
            listed = ", ".join(map(repr, choices))
            raise ValueError(f"{name}={choice!r} is unknown; choose from {listed}")


def _check_windows(config: DecoderConfig) -> None:
    if config.windows is None:
        return
    if not isinstance(config.windows, tuple):
        raise ValueError(
            f"windows must be a tuple with one entry a layer, or None; got {config.windows!r}"
        )
    if len(config.windows) != config.num_layers:
        raise ValueError(
            f"windows must have one entry a layer, {config.num_layers}; got {len(config.windows)}"
        )
    for layer, window in enumerate(config.windows):
        is_whole = isinstance(window, Integral) and not isinstance(window, bool)
        if window is not None and not (is_whole and window >= 0):
            raise ValueError(
                f"windows[{layer}] must be None or a whole number of other positions, at least 0; "
                f"got {window!r}"
            )


def _check_numbers(config: DecoderConfig) -> None:
    check_rate("dropout_rate", config.dropout_rate)
    for name in ("norm_eps", "scale", "logits_soft_cap", "final_soft_cap", "embed_scale"):
        number = getattr(config, name)
        if number is not None and not 0 < number < math.inf:
            raise ValueError(f"{name} must be a finite number > 0; got {number}")
