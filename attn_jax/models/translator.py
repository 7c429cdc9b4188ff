"""What the loss, the searches and the traces ask of a model: a translator, of one sentence."""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from attn_jax.models.records import State, Step


@runtime_checkable
class Translator(Protocol):
    """A model that reads one sentence and says another, word by word or all at once.

    `EncoderDecoder` and `Transformer` are translators; so is a class of your own with these five
    methods. Batch them with `jax.vmap` (docs/adr/0003).

      word by word:  memory = encode(source)   state = start(memory)   state, step = step(…, token)
      all at once:   logits = readout(unroll(source, inputs))

    Both say the same: `step(…, inputs[t])` gives `logits[t]`.

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
        """All that the decoder will know of the source; padding may stand anywhere."""
        ...

    def start(self, memory: Any, max_length: int) -> State:
        """The state before the first word, with room for so many words where it needs room."""
        ...

    def step(self, memory: Any, state: State, token: Int[Array, ""]) -> tuple[State, Step]:
        """From the previous word's id to the logits of the next word."""
        ...

    def unroll(
        self,
        source: Int[Array, " S"],
        source_mask: Bool[Array, " S"],
        inputs: Int[Array, " T"],
        *,
        rng: PRNGKeyArray | None = None,
    ) -> PyTree[Float[Array, "T ..."]]:
        """Teacher forcing up to the readout: what it needs of each position, as arrays of rows."""
        ...

    def readout(
        self, rows: PyTree[Float[Array, "T ..."]], *, rng: PRNGKeyArray | None = None
    ) -> Float[Array, "T K"]:
        """The logits of rows of `unroll`, which may be those of a whole batch."""
        ...
