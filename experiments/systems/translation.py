"""The systems of a translation experiment: names, widths and models.

All are trained on the same sentences with the same vocabularies and the same number of updates, and
those with attention have about as many parameters. They differ in what the decoder gets from the
source, and in whether they are recurrent.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
from flax import nnx
from jaxtyping import Array, PyTree

from attn_jax.models import (
    EncoderDecoder,
    EncoderDecoderConfig,
    Transformer,
    TransformerConfig,
    Translator,
    translation_loss,
)
from experiments.systems.sizes import check_heads

type ModelConfig = EncoderDecoderConfig | TransformerConfig


@dataclass(frozen=True, kw_only=True)
class Widths:
    """Widths of the recurrent systems, in the paper's letters (Bahdanau et al. 2014, appendix A).

    Attributes:
      embed_dim: the width of a word's embedding, m in the paper.
      hidden_dim: the width of a recurrent state, n in the paper.
      align_dim: the width of the alignment model's hidden layer, n' in the paper.
      readout_dim: the width of the maxout layer before the softmax, l in the paper.
      dropout_rate: the share of embedding and readout units dropped in training.
    """

    embed_dim: int = 96
    hidden_dim: int = 192
    align_dim: int = 192
    readout_dim: int = 96
    dropout_rate: float = 0.0


@dataclass(frozen=True, kw_only=True)
class TransformerWidths:
    """Widths of the Transformer (Vaswani et al. 2017, table 3), near the parameters of `bahdanau`.

    Attributes:
      model_dim: the width of a token's vector, d_model in the paper.
      num_heads: the number of heads of every attention, h in the paper.
      num_layers: the number of blocks of the encoder, and of the decoder, N in the paper.
      hidden_dim: the width inside a feed-forward network, d_ff in the paper.
      placement: the place of the norms, before (pre) or after (post) each sub-layer; pre trains
        with the learning rate of the recurrent systems.
      dropout_rate: the share of embedding units and of each sub-layer's output dropped in training.
    """

    model_dim: int = 128
    num_heads: int = 4
    num_layers: int = 2
    hidden_dim: int = 640
    placement: Literal["pre", "post"] = "pre"
    dropout_rate: float = 0.0

    def __post_init__(self) -> None:
        check_heads(self.num_heads, self.model_dim)


@dataclass(frozen=True)
class System:
    """A system.

    Attributes:
      label: the display name in reports and figures.
      note: one line for the report.
      choices: fields of the model config beside the widths; None for the word-by-word lexicon.
    """

    label: str
    note: str
    choices: Mapping[str, Any] | None


SYSTEMS: dict[str, System] = {
    "lexicon": System(
        "word by word",
        "each word replaced by its likeliest translation (IBM model 1), in source order",
        None,
    ),
    "final": System(
        "RNN, last state",
        "encoder–decoder whose decoder gets the encoder's last state (Cho et al. 2014)",
        {"context": "final"},
    ),
    "bahdanau": System(
        "RNN + attention",
        "bidirectional encoder, Bahdanau's additive attention (2014)",
        {"context": "attention"},
    ),
    "luong": System(
        "RNN + Luong's attention",
        "backward encoder, Luong's general attention with input feeding (2015)",
        {"decoder": "luong", "score": "general"},
    ),
    "transformer": System(
        "Transformer",
        "encoder and decoder of attention alone, many heads, sinusoidal positions (Vaswani et al. "
        "2017), norms before the sub-layers",
        {},
    ),
}


def note(name: str, widths: Widths | TransformerWidths) -> str:
    """The note of a system with its dropout rate, for the report.

    Example:
      >>> note("final", Widths(dropout_rate=0.2)).endswith("; dropout 0.2")
      True
    """
    rate = widths.dropout_rate
    return SYSTEMS[name].note + (f"; dropout {rate:g}" if rate else "")


def check_systems(names: tuple[str, ...]) -> None:
    """Checks that every system is one of `SYSTEMS`, once.

    Raises:
      ValueError: a name is unknown or named twice, or there is none.
    """
    known = ", ".join(SYSTEMS)
    if not names:
        raise ValueError(f"systems is empty; choose from {known}")
    for name in names:
        if name not in SYSTEMS:
            raise ValueError(f"systems has {name!r}, which is unknown; choose from {known}")
    if len(set(names)) < len(names):
        raise ValueError(f"systems names one twice: {', '.join(names)}")


def model_config(
    name: str, widths: Widths | TransformerWidths, vocab: tuple[int, int]
) -> ModelConfig:
    """The model of a system, for source and target vocabularies of these sizes.

    Raises:
      ValueError: the widths are those of another kind of network.
    """
    if (name == "transformer") != isinstance(widths, TransformerWidths):
        raise ValueError(f"widths={widths} are not those of the system {name!r}")
    sizes = dataclasses.asdict(widths)
    if isinstance(widths, TransformerWidths):
        return TransformerConfig(source_vocab=vocab[0], target_vocab=vocab[1], **sizes)
    plain = EncoderDecoderConfig(
        source_vocab=vocab[0], target_vocab=vocab[1], init="glorot", **sizes
    )
    return dataclasses.replace(plain, **(SYSTEMS[name].choices or {}))


def build(config: ModelConfig, rngs: nnx.Rngs) -> Translator:
    """The model of a config, with fresh parameters."""
    if isinstance(config, TransformerConfig):
        return Transformer(config, rngs=rngs)
    return EncoderDecoder(config, rngs=rngs)


@dataclass(frozen=True)
class Network:
    """A model without its parameters.

    Attributes:
      config: sizes and choices.
      graph: the static part of the NNX model.
    """

    config: ModelConfig
    graph: nnx.GraphDef

    @classmethod
    def of(cls, config: ModelConfig) -> "Network":
        abstract = nnx.eval_shape(lambda: build(config, nnx.Rngs(0)))
        return cls(config, nnx.graphdef(abstract))

    def init(self, rng: Array) -> PyTree:
        """Fresh params from a random key."""
        return nnx.state(build(self.config, nnx.Rngs(rng)))

    def model(self, params: PyTree) -> Translator:
        """The model with these params."""
        return nnx.merge(self.graph, params)

    def loss(self, params: PyTree, batch: Any, rng: Array | None) -> tuple[Array, dict[str, Array]]:
        """Mean loss of a token, with dropout if the config has any and `rng` is given."""
        return translation_loss(
            self.model(params), batch, rng if self.config.dropout_rate > 0 else None
        )

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(
            leaf.size for leaf in jax.tree.leaves(jax.eval_shape(self.init, jax.random.key(0)))
        )

    def validation(self, batches: list[Any]) -> Callable[[PyTree], dict[str, float]]:
        """A function from params to the mean loss of a token over all `batches`."""
        measure = jax.jit(partial(self.loss, rng=None))

        def validate(params: PyTree) -> dict[str, float]:
            measured = [measure(params, batch)[1] for batch in batches]
            tokens = sum(float(m["tokens"]) for m in measured)
            return {"loss": sum(float(m["loss"]) * float(m["tokens"]) for m in measured) / tokens}

        return validate
