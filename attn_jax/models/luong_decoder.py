"""Luong's decoder: the new state is attention's query; the result is fed to the next step."""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from attn_jax.models.cells import CELLS
from attn_jax.models.encoder_decoder_config import EncoderDecoderConfig
from attn_jax.models.initializers import initializers
from attn_jax.models.records import Emission, Memory
from attn_jax.modules.dropout import dropout
from attn_jax.modules.luong import LuongAttention


class LuongState(NamedTuple):
    """The cell's state, and the attentional state h̃, an input of the next step."""

    recurrent: Float[Array, " C"]
    attentional: Float[Array, " n"]


class LuongDecoder(nnx.Module):
    """Luong's attentional decoder with input feeding, one layer deep.

    Luong et al., "Effective Approaches to Attention-based NMT" (2015), §3 and §3.3,
    https://arxiv.org/abs/1508.04025.

      h_t = cell(h_{t-1}, W E y_{t-1} + F h̃_{t-1}),  c_t = attention(h_t)
      h̃_t = tanh(W_c [c_t; h_t]),  logits = h̃_t @ W_s

    The first state is the encoder's last state, unchanged.

    Args:
      config: an `EncoderDecoderConfig` with decoder="luong".
      rngs: random keys of the initial parameters.

    Returns:
      A module with the same methods as `BahdanauDecoder`.

    Example:
      >>> from attn_jax.models import EncoderDecoderConfig, LuongDecoder
      >>> config = EncoderDecoderConfig(4, 5, 2, 3, decoder="luong", score="dot")
      >>> decoder = LuongDecoder(config, rngs=nnx.Rngs(0))
      >>> annotations, mask = jnp.arange(6.0).reshape(2, 3), jnp.array([True, False])
      >>> memory = decoder.remember(annotations, jnp.ones(3), mask)
      >>> _, emission = decoder.advance(memory, decoder.start(memory), jnp.zeros(9))
      >>> emission.context.tolist()      # the annotation of the only unmasked token
      [0.0, 1.0, 2.0]
    """

    def __init__(self, config: EncoderDecoderConfig, *, rngs: nnx.Rngs) -> None:
        inits = initializers(config)
        linear = partial(nnx.Linear, kernel_init=inits.kernel, rngs=rngs)
        m, n, E = config.embed_dim, config.hidden_dim, config.annotation_dim
        self.dropout_rate = config.dropout_rate
        self.embedding = nnx.Param(inits.embedding(rngs.params(), (config.target_vocab, m)))
        self.cell = CELLS[config.cell](n, rngs=rngs)
        self.word_input = linear(m, self.cell.num_gates * n)
        self.feed_input = linear(n, self.cell.num_gates * n, use_bias=False)
        self.attention = LuongAttention(
            n,
            E,
            config.score,
            align_dim=config.align_dim,
            window=config.local_window,
            kernel_init=inits.alignment,
            rngs=rngs,
        )
        self.combine_context = linear(E, n, use_bias=False)
        self.combine_state = linear(n, n, use_bias=False)
        self.words = linear(n, config.target_vocab, use_bias=False)

    def remember(
        self, annotations: Float[Array, "S E"], summary: Float[Array, " C"], mask: Bool[Array, " S"]
    ) -> Memory:
        """The source's memory for this decoder, with attention's keys computed once."""
        return Memory(annotations, self.attention.project(annotations), mask, summary)

    def start(self, memory: Memory) -> LuongState:
        """The first state: the encoder's last state, and zeros as attentional state."""
        return LuongState(memory.summary, jnp.zeros(self.cell.hidden_dim, memory.annotations.dtype))

    def embed(
        self, tokens: Int[Array, " T"], *, rng: PRNGKeyArray | None = None
    ) -> Float[Array, "T m"]:
        """The embeddings E y of all tokens."""
        return dropout(jnp.take(self.embedding[...], tokens, axis=0), self.dropout_rate, rng)

    def drive(self, words: Float[Array, "T m"]) -> Float[Array, "T Gn"]:
        """The term W E y of every gate's input, for all steps in one matmul."""
        return self.word_input(words)

    def advance(
        self, memory: Memory, state: LuongState, drive: Float[Array, " Gn"]
    ) -> tuple[LuongState, Emission]:
        """One step of the recurrence: h_t, the attention call with h_t as query, and h̃_t."""
        recurrent = self.cell(state.recurrent, drive + self.feed_input(state.attentional))
        query = recurrent[: self.cell.hidden_dim]
        context = self.attention(query[None], memory.keys, memory.annotations, memory.mask)[0]
        attentional = jnp.tanh(self.combine_context(context) + self.combine_state(query))
        return LuongState(recurrent, attentional), Emission(query, query, context, attentional)

    def inspect(
        self, memory: Memory, emissions: Emission
    ) -> tuple[Float[Array, "T S"], Float[Array, "T S"]]:
        """Scores and weights of the steps' attention calls."""
        return self.attention.inspect(emissions.query, memory.keys, memory.mask)

    def readout(
        self, words: Float[Array, "T m"], emissions: Emission, *, rng: PRNGKeyArray | None = None
    ) -> Float[Array, "T K"]:
        """The logits of all steps; they depend on the words only through the recurrence."""
        del words
        return self.words(dropout(emissions.output, self.dropout_rate, rng))
