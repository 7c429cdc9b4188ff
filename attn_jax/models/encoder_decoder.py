"""The recurrent encoder–decoder: encodes a sentence once, then decodes token by token."""

import jax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from attn_jax.models.bahdanau_decoder import BahdanauDecoder
from attn_jax.models.encoder import Encoder
from attn_jax.models.encoder_decoder_config import EncoderDecoderConfig
from attn_jax.models.luong_decoder import LuongDecoder
from attn_jax.models.records import Emission, Memory, State, Step

DECODERS = {"bahdanau": BahdanauDecoder, "luong": LuongDecoder}


class EncoderDecoder(nnx.Module):
    """A recurrent translation model on one sentence; batch it with `jax.vmap`.

    Bahdanau et al., "Neural Machine Translation by Jointly Learning to Align and Translate" (2014),
    https://arxiv.org/abs/1409.0473 (RNNsearch, and RNNenc with context="final"); Luong et al.,
    "Effective Approaches to Attention-based NMT" (2015), https://arxiv.org/abs/1508.04025, with
    decoder="luong".

      memory = encode(source)    state = start(memory)    state, step = step(memory, state, token)

    Args:
      config: sizes and choices.
      rngs: random keys of the initial parameters.

    Returns:
      A module. Ids outside the vocabulary give NaN: under `jit` they cannot be checked.

    Cost:
      Every matmul that needs no state is computed for all positions at once, before or after the
      recurrence: the gates' inputs, U_a h_j, the readout.

    Example:
      >>> from attn_jax.models import EncoderDecoder, EncoderDecoderConfig
      >>> model = EncoderDecoder(EncoderDecoderConfig(9, 7, 2, 3, 4, 5), rngs=nnx.Rngs(0))
      >>> source, mask, inputs = jnp.array([4, 8, 2]), jnp.ones(3, bool), jnp.array([1, 5])
      >>> memory = model.encode(source, mask)
      >>> state, step = model.step(memory, model.start(memory), inputs[0])
      >>> jnp.allclose(step.logits, model.logits(source, mask, inputs)[0]).item()
      True
    """

    def __init__(self, config: EncoderDecoderConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        self.encoder = Encoder(config, rngs=rngs)
        self.decoder = DECODERS[config.decoder](config, rngs=rngs)

    def encode(
        self,
        source: Int[Array, " S"],
        source_mask: Bool[Array, " S"],
        *,
        rng: PRNGKeyArray | None = None,
    ) -> Memory:
        """Encodes the source; the decoder uses nothing else of it.

        Args:
          source: token ids; padding may be anywhere.
          source_mask: True at tokens, False at padding.
          rng: dropout's key in training.

        Returns:
          The memory. If the source is all padding, every query on it is fully masked.

        Raises:
          ValueError: the source is empty.
        """
        if source.shape[0] == 0:
            raise ValueError("source is empty (S=0); a sentence has at least its EOS")
        annotations, summary = self.encoder(source, source_mask, rng=rng)
        return self.decoder.remember(annotations, summary, source_mask)

    def start(self, memory: Memory, max_length: int | None = None) -> State:
        """The decoder's state before its first token; its size does not depend on `max_length`."""
        del max_length
        return self.decoder.start(memory)

    def step(self, memory: Memory, state: State, token: Int[Array, ""]) -> tuple[State, Step]:
        """One decode step: from the previous token's id to the logits of the next token."""
        words = self.decoder.embed(token[None])
        state, emission = self.decoder.advance(memory, state, self.decoder.drive(words)[0])
        emissions = jax.tree.map(lambda leaf: leaf[None], emission)
        scores, weights = self.decoder.inspect(memory, emissions)
        logits = self.decoder.readout(words, emissions)
        return state, Step(logits[0], scores[0], weights[0], emission.context, emission.state)

    def logits(
        self,
        source: Int[Array, " S"],
        source_mask: Bool[Array, " S"],
        inputs: Int[Array, " T"],
        *,
        rng: PRNGKeyArray | None = None,
    ) -> Float[Array, "T K"]:
        """Teacher forcing: the logits of every next token, given the true tokens before it.

        Args:
          source: token ids.
          source_mask: True at tokens, False at padding.
          inputs: the decoder's inputs, [BOS, first token, …]; logits[t] are for the token after
            inputs[t].
          rng: dropout's key; None drops nothing.

        Returns:
          Logits over the target vocabulary.
        """
        unroll_rng, readout_rng = (None, None) if rng is None else jax.random.split(rng)
        rows = self.unroll(source, source_mask, inputs, rng=unroll_rng)
        return self.readout(rows, rng=readout_rng)

    def unroll(
        self,
        source: Int[Array, " S"],
        source_mask: Bool[Array, " S"],
        inputs: Int[Array, " T"],
        *,
        rng: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "T m"], Emission]:
        """`logits` up to the readout: the inputs' embeddings, and each step's `Emission`."""
        source_rng, inputs_rng = (None, None) if rng is None else jax.random.split(rng)
        memory = self.encode(source, source_mask, rng=source_rng)
        words = self.decoder.embed(inputs, rng=inputs_rng)

        def advance(state, drive):
            return self.decoder.advance(memory, state, drive)

        _, emissions = jax.lax.scan(advance, self.start(memory), self.decoder.drive(words))
        return words, emissions

    def readout(
        self,
        rows: tuple[Float[Array, "T m"], Emission],
        *,
        rng: PRNGKeyArray | None = None,
    ) -> Float[Array, "T K"]:
        """The logits from the result of `unroll`, of one sentence or of the positions of many."""
        words, emissions = rows
        return self.decoder.readout(words, emissions, rng=rng)
