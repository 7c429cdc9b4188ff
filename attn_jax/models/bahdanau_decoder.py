"""Bahdanau's decoder: attention with the last state as query, then the cell, then the readout."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from attn_jax.models.cells import CELLS
from attn_jax.models.encoder_decoder_config import EncoderDecoderConfig
from attn_jax.models.initializers import initializers
from attn_jax.models.records import Emission, Memory
from attn_jax.modules.additive import AdditiveAttention
from attn_jax.modules.dropout import dropout


class MaxoutReadout(nnx.Module):
    """The logits from the state, the previous word and the context, through one maxout layer.

    Bahdanau et al. (2014), appendix A.2.2, https://arxiv.org/abs/1409.0473; Goodfellow et al.,
    "Maxout Networks" (2013). As in the authors' code, the hidden layer has a bias and the output
    layer has none.

      t̃ = state @ U_o + word @ V_o + context @ C_o + b
      t_j = max(t̃_{2j-1}, t̃_{2j}),  logits = t @ W_o

    Args:
      config: hidden_dim n, embed_dim m, readout_dim l, target_vocab K.
      rngs: random keys of the initial parameters.

    Returns:
      A module that takes any number of leading axes: one step, or a whole sentence.

    Example:
      >>> from attn_jax.models import EncoderDecoderConfig, MaxoutReadout
      >>> readout = MaxoutReadout(EncoderDecoderConfig(4, 5, 2, 1, 1, 1), rngs=nnx.Rngs(0))
      >>> readout.state.bias[...] = jnp.array([-3.0, 7.0])              # max(-3, 7)
      >>> logits = readout(jnp.zeros(1), jnp.zeros(2), jnp.zeros(2))
      >>> jnp.array_equal(logits, 7 * readout.words.kernel[0]).item()
      True
    """

    def __init__(self, config: EncoderDecoderConfig, *, rngs: nnx.Rngs) -> None:
        kernel_init = initializers(config).kernel
        linear = partial(nnx.Linear, kernel_init=kernel_init, rngs=rngs)
        width = 2 * config.readout_dim
        self.state = linear(config.hidden_dim, width)
        self.word = linear(config.embed_dim, width, use_bias=False)
        self.context = linear(config.annotation_dim, width, use_bias=False)
        self.words = linear(config.readout_dim, config.target_vocab, use_bias=False)
        self.dropout_rate = config.dropout_rate

    def __call__(
        self,
        state: Float[Array, "*T n"],
        word: Float[Array, "*T m"],
        context: Float[Array, "*T E"],
        *,
        rng: PRNGKeyArray | None = None,
    ) -> Float[Array, "*T K"]:
        units = self.state(state) + self.word(word) + self.context(context)
        hidden = jnp.maximum(units[..., 0::2], units[..., 1::2])
        return self.words(dropout(hidden, self.dropout_rate, rng))


class BahdanauDecoder(nnx.Module):
    """The decoder of RNNsearch, and with context="final" that of the RNN encoder–decoder.

    Bahdanau et al., "Neural Machine Translation by Jointly Learning to Align and Translate" (2014),
    appendix A.2.2, https://arxiv.org/abs/1409.0473.

      s_0 = tanh(W_s summary),  c_i = Σ_j α_ij h_j with query s_{i-1}  (or c_i = h_T)
      s_i = cell(s_{i-1}, W E y_{i-1} + C c_i)

    Args:
      config: an `EncoderDecoderConfig`.
      rngs: random keys of the initial parameters.

    Returns:
      A module with the parts of a decode step: `embed`, `drive` and `readout`, which need no
      recurrence and take all steps at once, and `advance`, one step of the recurrence. The state is
      the cell's.

    Example:
      >>> from attn_jax.models import BahdanauDecoder, EncoderDecoderConfig
      >>> decoder = BahdanauDecoder(EncoderDecoderConfig(4, 5, 2, 3, 1, 1), rngs=nnx.Rngs(0))
      >>> annotations, mask = jnp.arange(12.0).reshape(2, 6), jnp.ones(2, bool)
      >>> memory = decoder.remember(annotations, jnp.zeros(3), mask)
      >>> _, emission = decoder.advance(memory, decoder.start(memory), jnp.zeros(9))
      >>> emission.context.tolist()      # v_a starts at zero: the mean annotation
      [3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    """

    def __init__(self, config: EncoderDecoderConfig, *, rngs: nnx.Rngs) -> None:
        inits = initializers(config)
        linear = partial(nnx.Linear, kernel_init=inits.kernel, rngs=rngs)
        m, n, E = config.embed_dim, config.hidden_dim, config.annotation_dim
        self.config = config
        self.embedding = nnx.Param(inits.embedding(rngs.params(), (config.target_vocab, m)))
        self.cell = CELLS[config.cell](n, rngs=rngs)
        self.word_input = linear(m, self.cell.num_gates * n)
        self.context_input = linear(E, self.cell.num_gates * n, use_bias=False)
        self.initial = linear(n, n)
        self.readout_layer = MaxoutReadout(config, rngs=rngs)
        if config.context == "attention":
            self.attention = AdditiveAttention(
                n, E, config.align_dim, kernel_init=inits.alignment, rngs=rngs
            )

    def remember(
        self, annotations: Float[Array, "S E"], summary: Float[Array, " C"], mask: Bool[Array, " S"]
    ) -> Memory:
        """The source's memory for this decoder, with attention's keys U_a h_j computed once."""
        if self.config.context == "attention":
            return Memory(annotations, self.attention.project(annotations), mask, summary)
        is_last = mask & (jnp.cumsum(mask[::-1])[::-1] == 1)
        return Memory(annotations, jnp.zeros_like(annotations[:, :0]), is_last, summary)

    def start(self, memory: Memory) -> Float[Array, " C"]:
        """The first state, s_0 = tanh(W_s summary); the memory c of an LSTM starts at zero."""
        s_0 = jnp.tanh(self.initial(memory.summary[: self.cell.hidden_dim]))
        return jnp.pad(s_0, (0, self.cell.state_dim - s_0.size))

    def embed(
        self, tokens: Int[Array, " T"], *, rng: PRNGKeyArray | None = None
    ) -> Float[Array, "T m"]:
        """The embeddings E y of all tokens."""
        return dropout(jnp.take(self.embedding[...], tokens, axis=0), self.config.dropout_rate, rng)

    def drive(self, words: Float[Array, "T m"]) -> Float[Array, "T Gn"]:
        """The term W E y of every gate's input, for all steps in one matmul."""
        return self.word_input(words)

    def advance(
        self, memory: Memory, state: Float[Array, " C"], drive: Float[Array, " Gn"]
    ) -> tuple[Float[Array, " C"], Emission]:
        """One step of the recurrence: the attention call with query s_{i-1}, then s_i."""
        n = self.cell.hidden_dim
        query = state[:n]
        context = self._context(memory, query)
        state = self.cell(state, drive + self.context_input(context))
        output = query if self.config.readout_state == "previous" else state[:n]
        return state, Emission(query, state[:n], context, output)

    def _context(self, memory: Memory, query: Float[Array, " n"]) -> Float[Array, " E"]:
        """c_i: attention's output, or for context="final" the encoder's last state."""
        if self.config.context == "final":
            return memory.summary[: self.cell.hidden_dim]
        # Rematerialised: a step's hidden layer [S, n'] costs less to compute again than to keep.
        attention = jax.checkpoint(self.attention.__call__, prevent_cse=False)
        return attention(query[None], memory.keys, memory.annotations, memory.mask)[0]

    def inspect(
        self, memory: Memory, emissions: Emission
    ) -> tuple[Float[Array, "T S"], Float[Array, "T S"]]:
        """Scores and weights of the attention calls.

        For context="final" all scores are zero and all weight is on h_T.
        """
        if self.config.context == "attention":
            return self.attention.inspect(emissions.query, memory.keys, memory.mask)
        shape = (emissions.query.shape[0], memory.mask.size)
        weights = jnp.broadcast_to(memory.mask.astype(emissions.query.dtype), shape)
        return jnp.zeros_like(weights), weights

    def readout(
        self, words: Float[Array, "T m"], emissions: Emission, *, rng: PRNGKeyArray | None = None
    ) -> Float[Array, "T K"]:
        """The logits of all steps, from the embeddings and the recurrence's emissions."""
        return self.readout_layer(emissions.output, words, emissions.context, rng=rng)
