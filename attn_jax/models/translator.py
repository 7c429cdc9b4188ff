"""The interface between a translation model and the loss, the searches and the traces."""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from attn_jax.models.records import State, Step


@runtime_checkable
class Translator(Protocol):
    """A model that translates one sentence; batch it with `jax.vmap` (docs/adr/0003).

    `EncoderDecoder` and `Transformer` are translators; so is a class of your own with these five
    methods. They compute the same logits in two ways, token by token for decoding, or at once for a
    given target (teacher forcing):

      token by token:  memory = encode(source)  state = start(memory)  state, step = step(…, token)
      at once:         logits = readout(unroll(source, inputs))

    `step(…, inputs[t])` gives `logits[t]`.

    Example:
      >>> from attn_jax.models import EncoderDecoder, Transformer, Translator
      >>> [issubclass(model, Translator) for model in (EncoderDecoder, Transformer, nnx.Linear)]
      [True, True, False]
    """

    def encode(
        self,
        source: Int[Array, " S"],
        source_mask: Bool[Array, " S"],
        *,
        rng: PRNGKeyArray | None = None,
    ) -> Any:
        """The encoded source, which is all that the decoder uses of it; padding may be anywhere."""
        ...

    def start(self, memory: Any, max_length: int) -> State:
        """The state before the first token, with room for `max_length` tokens if it needs room."""
        ...

    def step(self, memory: Any, state: State, token: Int[Array, ""]) -> tuple[State, Step]:
        """One decode step: from the previous token's id to the logits of the next token."""
        ...

    def unroll(
        self,
        source: Int[Array, " S"],
        source_mask: Bool[Array, " S"],
        inputs: Int[Array, " T"],
        *,
        rng: PRNGKeyArray | None = None,
    ) -> PyTree[Float[Array, "T ..."]]:
        """Teacher forcing up to the readout: the readout's inputs, one row for each position."""
        ...

    def readout(
        self, rows: PyTree[Float[Array, "T ..."]], *, rng: PRNGKeyArray | None = None
    ) -> Float[Array, "T K"]:
        """The logits of rows of `unroll`: of one sentence, or of the positions of a whole batch."""
        ...
