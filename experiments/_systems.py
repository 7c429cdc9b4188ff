"""The systems that a translation experiment compares, and how each becomes a trainable task.

All of them learn from the same sentences with the same vocabularies, widths and number of updates;
what differs is what the decoder may know of the source.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, PyTree

from attn_jax.models import EncoderDecoder, EncoderDecoderConfig, translation_loss


@dataclass(frozen=True, kw_only=True)
class Widths:
    """Widths of the recurrent systems, in the paper's letters (Bahdanau et al. 2014, appendix A).

    Attributes:
      embed_dim: m, of a word.
      hidden_dim: n, of a recurrent state.
      align_dim: n', of the alignment model's hidden layer.
      readout_dim: l, of the maxout layer before the softmax.
      dropout_rate: share of word and readout units dropped in training.
    """

    embed_dim: int = 96
    hidden_dim: int = 192
    align_dim: int = 192
    readout_dim: int = 96
    dropout_rate: float = 0.0


@dataclass(frozen=True)
class System:
    """One column of the report.

    Attributes:
      label: what people read.
      note: one line for the report: what the decoder knows of the source.
      choices: what makes an `EncoderDecoderConfig` this system; None for the word-by-word lexicon.
    """

    label: str
    note: str
    choices: Mapping[str, Any] | None


# A Transformer joins here: another label, and a task of its own.
SYSTEMS: dict[str, System] = {
    "lexicon": System(
        "word by word",
        "each word replaced by its likeliest translation (IBM model 1), in source order",
        None,
    ),
    "final": System(
        "RNN, last state",
        "encoder–decoder whose decoder sees the encoder's last state (Cho et al. 2014)",
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
}


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


def model_config(name: str, widths: Widths, vocab: tuple[int, int]) -> EncoderDecoderConfig:
    """The model of a recurrent system, for source and target vocabularies of these sizes."""
    plain = EncoderDecoderConfig(
        source_vocab=vocab[0], target_vocab=vocab[1], init="glorot", **dataclasses.asdict(widths)
    )
    return dataclasses.replace(plain, **(SYSTEMS[name].choices or {}))


@dataclass(frozen=True)
class Network:
    """A model as a pair: what never changes, and a function that makes the params it needs.

    Attributes:
      config: sizes and choices.
      graph: NNX's static half of the model.
    """

    config: EncoderDecoderConfig
    graph: nnx.GraphDef

    @classmethod
    def of(cls, config: EncoderDecoderConfig) -> "Network":
        abstract = nnx.eval_shape(lambda: EncoderDecoder(config, rngs=nnx.Rngs(0)))
        return cls(config, nnx.graphdef(abstract))

    def init(self, rng: Array) -> PyTree:
        """Fresh params from a random key."""
        return nnx.state(EncoderDecoder(self.config, rngs=nnx.Rngs(rng)))

    def model(self, params: PyTree) -> EncoderDecoder:
        """The model with these params."""
        return nnx.merge(self.graph, params)

    def loss(self, params: PyTree, batch: Any, rng: Array | None) -> tuple[Array, dict[str, Array]]:
        """Mean loss of a word, with dropout where the config has any and `rng` is given."""
        return translation_loss(
            self.model(params), batch, rng if self.config.dropout_rate > 0 else None
        )

    @property
    def size(self) -> int:
        """How many numbers are learned."""
        return sum(
            leaf.size for leaf in jax.tree.leaves(jax.eval_shape(self.init, jax.random.key(0)))
        )

    def validation(self, batches: list[Any]) -> Callable[[PyTree], dict[str, float]]:
        """A function from params to the mean loss of a word over all `batches`."""
        measure = jax.jit(partial(self.loss, rng=None))

        def validate(params: PyTree) -> dict[str, float]:
            measured = [measure(params, batch)[1] for batch in batches]
            tokens = sum(float(m["tokens"]) for m in measured)
            return {"loss": sum(float(m["loss"]) * float(m["tokens"]) for m in measured) / tokens}

        return validate
