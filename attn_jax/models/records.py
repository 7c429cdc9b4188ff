"""The values that encoder, decoder and searches exchange: immutable pytrees of one sentence."""

from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float

type State = Any
"""A decoder's state: a pytree, which `start` makes and `step` returns."""


class Memory(NamedTuple):
    """The encoded source of a recurrent model: the decoder uses nothing else of the source.

    Attributes:
      annotations: h_j, one row for each source token [S E].
      keys: U_a h_j, computed once for the sentence [S A]; width 0 where the score needs none.
      mask: True where the decoder may attend to [S]; for context="final" only the last token.
      summary: the encoder's last state [C], from which the decoder's first state is computed.

    Example:
      >>> from attn_jax.models import EncoderDecoder, EncoderDecoderConfig
      >>> config = EncoderDecoderConfig(9, 7, 2, 3, context="final")
      >>> source = jnp.array([4, 5, 2, 0])
      >>> EncoderDecoder(config, rngs=nnx.Rngs(0)).encode(source, source > 0).mask.tolist()
      [False, False, True, False]
    """

    annotations: Float[Array, "S E"]
    keys: Float[Array, "S A"]
    mask: Bool[Array, " S"]
    summary: Float[Array, " C"]


class Emission(NamedTuple):
    """Outputs of one step of the recurrence, for the readout and for traces.

    Attributes:
      query: the state that is attention's query [n]: s_{i-1} for Bahdanau, h_t for Luong.
      state: the state after the step [n].
      context: attention's output, c_i [E].
      output: the vector that the logits are computed from [n].
    """

    query: Float[Array, "*T n"]
    state: Float[Array, "*T n"]
    context: Float[Array, "*T E"]
    output: Float[Array, "*T n"]


class Step(NamedTuple):
    """One decode step: the logits, and attention's scores, weights and context.

    Attributes:
      logits: over the target vocabulary [K].
      scores: e_ij, before mask and softmax [S].
      weights: α_ij [S].
      context: c_i = Σ_j α_ij h_j [E].
      state: the decoder's state after the step [n].

    Example:
      >>> from attn_jax.models import EncoderDecoder, EncoderDecoderConfig
      >>> model = EncoderDecoder(EncoderDecoderConfig(9, 7, 2, 3, 4, 5), rngs=nnx.Rngs(0))
      >>> memory = model.encode(jnp.array([4, 2]), jnp.ones(2, bool))
      >>> _, step = model.step(memory, model.start(memory), jnp.array(1))
      >>> jnp.allclose(step.context, step.weights @ memory.annotations).item()
      True
    """

    logits: Float[Array, " K"]
    scores: Float[Array, " S"]
    weights: Float[Array, " S"]
    context: Float[Array, " E"]
    state: Float[Array, " n"]
