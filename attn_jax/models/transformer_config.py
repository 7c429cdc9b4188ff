"""The configuration of a `Transformer`: the paper's sizes, and each choice by name."""

import dataclasses

from attn_jax._base import checks


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """Sizes and choices of a `Transformer`; the defaults are the paper's base model.

    Vaswani et al., "Attention Is All You Need" (2017), section 3 and table 3,
    https://arxiv.org/abs/1706.03762. `dataclasses.asdict` gives a dictionary that JSON can hold.

    The paper counts 65 million parameters. A vocabulary of 41,100 gives 65.1 million, and agrees to
    the million with table 3 for 2, 4 and 8 layers, for widths of 256 and 1024, and for hidden
    widths of 1024 and 4096. The "about 37000" tokens of its section 5.1 give 63.0 million.

    Args:
      source_vocab: source tokens, the four of `attn_jax.models` (PAD, BOS, EOS, UNK) included.
      target_vocab: target tokens, likewise. None: both languages share one vocabulary and one
        table of embeddings, which also gives the logits, as in the paper. Otherwise the source has
        a table of its own.
      model_dim: width of a token's vector, d_model in the paper; even.
      num_heads: heads of every attention layer, h in the paper, each model_dim / num_heads wide.
      num_layers: blocks of the encoder, and of the decoder, N in the paper.
      hidden_dim: width inside a feed-forward network, d_ff in the paper.
      placement: where the norms are: "post", after each sum, is the paper's; "pre", before each
        sub-layer, trains without warm-up (Xiong et al. 2020, https://arxiv.org/abs/2002.04745).
      final_norm: whether both stacks end with one more norm, as in `torch.nn.Transformer` but not
        in the paper. With placement="pre" they always do.
      use_bias: whether the projections of attention have biases, as torch's do; the paper has none.
      norm_eps: the number that a norm adds to the variance.
      dropout_rate: share of the embeddings with positions, and of each sub-layer's output, that is
        dropped in training.

    Raises:
      ValueError: a size is out of range or does not fit another, or the placement is unknown.

    Example:
      >>> from attn_jax.models import Transformer, TransformerConfig
      >>> base = nnx.eval_shape(lambda: Transformer(TransformerConfig(41_100), rngs=nnx.Rngs(0)))
      >>> f"{sum(leaf.size for leaf in jax.tree.leaves(nnx.state(base))):,}"
      '65,144,832'
    """

    source_vocab: int
    target_vocab: int | None = None
    model_dim: int = 512
    num_heads: int = 8
    num_layers: int = 6
    hidden_dim: int = 2048
    placement: str = "post"
    final_norm: bool = False
    use_bias: bool = False
    norm_eps: float = 1e-6
    dropout_rate: float = 0.1

    def __post_init__(self) -> None:
        for name in ("source_vocab", "target_vocab"):
            size = getattr(self, name)
            if size is not None and size < 4:
                raise ValueError(
                    f"{name}={size} must be at least 4: PAD, BOS, EOS and UNK are in every "
                    "vocabulary"
                )
        for name in ("model_dim", "num_heads", "num_layers", "hidden_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.model_dim % 2:
            raise ValueError(
                f"model_dim={self.model_dim} must be even: a position is encoded as pairs of sine "
                "and cosine"
            )
        if self.model_dim % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} must divide model_dim={self.model_dim}")
        if self.placement not in ("post", "pre"):
            raise ValueError(f"placement={self.placement!r} is unknown; choose 'post' or 'pre'")
        checks.check_rate("dropout_rate", self.dropout_rate)

    @property
    def head_dim(self) -> int:
        """Width of a head, d_k = d_v in the paper."""
        return self.model_dim // self.num_heads

    @property
    def ends_with_norm(self) -> bool:
        """Whether there is a norm after the last block of each stack."""
        return self.final_norm or self.placement == "pre"
