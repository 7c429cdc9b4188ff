"""What kind of language model to build: a family is data, not a class."""

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
    (https://arxiv.org/abs/2408.00118, table 1) differ from it in what stands here.

    Args:
      vocab_size: how many tokens there are.
      model_dim: width of a token's vector.
      num_layers: how many blocks.
      num_heads: query heads of a block.
      num_kv_heads: key/value heads; as many by default.
      head_dim: width of a head; model_dim / num_heads by default.
      hidden_dim: width inside the feed-forward network; 4 model_dim by default.
      max_length: the most positions, those of the learned table; with `rotary` it says how long
        texts were in training and limits nothing: the first longer text makes a warning.
      norm: "layer" or "rms".
      norm_eps: what it adds to a variance.
      placement: where norms stand: "pre", or "both" sides of a sub-layer as in Gemma 2.
      rotary: positions by rotation; None is a learned table.
      activation: of the feed-forward network.
      gated: whether that has a gate (SwiGLU with "silu").
      use_bias: whether output projections and the feed-forward network have biases.
      use_qkv_bias: whether queries, keys and values have.
      qk_norm: whether each head's queries and keys are normalised by RMSNorm.
      windows: for each layer how many *other* positions back it reads, None for all of them; None
        for all layers alike.
      scale: factor on the dot products; 1/√head_dim by default.
      logits_soft_cap: c in c · tanh(logit / c) on attention's logits; None leaves them.
      final_soft_cap: the same on the logits over the vocabulary.
      embed_scale: factor on embeddings; Gemma's is √model_dim.
      is_tied: whether the embedding's table gives the logits, too.
      dropout_rate: share of embeddings, weights and sub-layers' outputs dropped in training.

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
        """How many other positions back a layer reads; None for all."""
        return None if self.windows is None else self.windows[layer]


_WARNED: set[int] = set()


def warn_of_length(config: DecoderConfig, length: int) -> None:
    """Warns of the first text that is longer than those in training, which rotations permit."""
    longest = config.max_length
    if length > longest and longest not in _WARNED:
        _WARNED.add(longest)
        warnings.warn(
            f"a text may have {length} tokens, and the model was trained on {longest} at most "
            "(max_length, max_position_embeddings): what it says beyond them may make no sense",
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
            f"num_kv_heads={config.kv_heads} must divide num_heads={config.num_heads}: as many "
            "query heads share each of them"
        )
    if config.rotary is not None and int(config.head_width * config.rotary.fraction) % 2:
        raise ValueError(
            f"head_dim={config.head_width} leaves an odd number of features to turn to "
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
