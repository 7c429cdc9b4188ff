"""The configuration of an `EncoderDecoder`: sizes, and each choice of the papers by name."""

import dataclasses

LEGAL = {
    "cell": ("gated", "gru", "lstm"),
    "decoder": ("bahdanau", "luong"),
    "context": ("attention", "final"),
    "score": ("additive", "dot", "general", "concat", "local"),
    "readout_state": ("previous", "new"),
    "init": ("paper", "glorot"),
}
SCORES = {"bahdanau": ("additive",), "luong": ("dot", "general", "concat", "local")}


@dataclasses.dataclass(frozen=True)
class EncoderDecoderConfig:
    """Sizes and choices of an `EncoderDecoder`; the defaults are RNNsearch at the paper's size.

    Bahdanau et al., "Neural Machine Translation by Jointly Learning to Align and Translate" (2014),
    appendix A, https://arxiv.org/abs/1409.0473, and Luong et al., "Effective Approaches to
    Attention-based NMT" (2015), https://arxiv.org/abs/1508.04025. `dataclasses.asdict` gives a
    dictionary that JSON can hold.

      context="attention": c_i = Σ_j α_ij h_j        context="final": c_i = h_T at every step

    Args:
      source_vocab: source tokens, the four of `attn_jax.models` (PAD, BOS, EOS, UNK) included; K in
        the papers.
      target_vocab: target tokens, likewise.
      embed_dim: width of a word's embedding, m in the paper.
      hidden_dim: width of a recurrent state, n.
      align_dim: width of the alignment model's hidden layer, n'; used by scores that have one.
      readout_dim: maxout units between state and logits, l; used by Bahdanau's decoder.
      cell: "gated" is Bahdanau's unit, which resets the state *before* the recurrent product; "gru"
        and "lstm" are Flax's.
      decoder: attention's query is the state before the step for "bahdanau", the state after it for
        "luong".
      context: what a decode step gets from the source: "attention" over all annotations, or only
        the "final" state of a forward encoder (the RNN encoder–decoder that attention replaced).
      score: how a state is compared with an annotation: "additive" for Bahdanau's decoder; "dot",
        "general", "concat" or "local" (predictive local attention on the general score) for
        Luong's.
      readout_state: which state Bahdanau's readout takes: the paper's "previous" (s_{i-1}), or the
        "new" (s_i) of later implementations.
      local_window: D, how many positions "local" attention covers on each side of the position it
        predicts.
      dropout_rate: share of embedding and readout units dropped in training.
      init: "paper" draws N(0, 0.01²), and N(0, 0.001²) in the alignment model, or for Luong
        U[−0.1, 0.1], for any width; "glorot" scales with the width. In both, recurrent matrices are
        orthogonal; biases and v_a of the additive score are zero.

    Raises:
      ValueError: a name is unknown, two choices exclude each other, or a size is out of range.

    Example:
      >>> from attn_jax.models import EncoderDecoderConfig
      >>> EncoderDecoderConfig(30_000, 30_000).annotation_dim   # [→h ; ←h]
      2000
      >>> EncoderDecoderConfig(30_000, 30_000, context="final").directions
      ('forward',)
    """

    source_vocab: int
    target_vocab: int
    embed_dim: int = 620
    hidden_dim: int = 1000
    align_dim: int = 1000
    readout_dim: int = 500
    cell: str = "gated"
    decoder: str = "bahdanau"
    context: str = "attention"
    score: str = "additive"
    readout_state: str = "previous"
    local_window: int = 10
    dropout_rate: float = 0.0
    init: str = "paper"

    def __post_init__(self) -> None:
        for name, legal in LEGAL.items():
            if (value := getattr(self, name)) not in legal:
                choices = ", ".join(map(repr, legal))
                raise ValueError(f"{name}={value!r} is unknown; choose from {choices}")
        if self.score not in SCORES[self.decoder]:
            choices = ", ".join(map(repr, SCORES[self.decoder]))
            raise ValueError(
                f"score={self.score!r} is not possible with decoder={self.decoder!r}; "
                f"choose from {choices}"
            )
        if self.decoder == "luong" and self.context == "final":
            raise ValueError(
                "context='final' needs decoder='bahdanau'; Luong's decoder always has attention"
            )
        self._check_sizes()

    def _check_sizes(self) -> None:
        for name in ("source_vocab", "target_vocab"):
            if getattr(self, name) < 4:
                raise ValueError(
                    f"{name}={getattr(self, name)} must be at least 4: "
                    f"PAD, BOS, EOS and UNK are in every vocabulary"
                )
        for name in ("embed_dim", "hidden_dim", "align_dim", "readout_dim", "local_window"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if not 0 <= self.dropout_rate < 1:
            raise ValueError(f"dropout_rate={self.dropout_rate} must be in [0, 1)")

    @property
    def directions(self) -> tuple[str, ...]:
        """The directions of the encoder's recurrences; the last one gives the summary.

        Both for Bahdanau's attention; forward for the RNN encoder–decoder; backward for Luong,
        whose paper reverses the source. A backward recurrence does the same and keeps every
        annotation at its token.
        """
        if self.decoder == "luong":
            return ("backward",)
        return ("forward",) if self.context == "final" else ("forward", "backward")

    @property
    def annotation_dim(self) -> int:
        """Width of an annotation h_j: one state for each direction."""
        return self.hidden_dim * len(self.directions)
