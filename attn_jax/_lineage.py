"""Where each mechanism comes from and what it becomes when its new idea is switched off.

`lineage` maps names to mechanisms in the order of their years. Each reduction names the test that
proves it, so the timeline is executable: `tests/lineage/test_lineage.py` runs every edge.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

_VASWANI = "Vaswani et al., Attention Is All You Need"
_VASWANI_URL = "https://arxiv.org/abs/1706.03762"


@dataclasses.dataclass(frozen=True)
class Reduction:
    """One edge: which mechanism is left, and the test that shows it.

    The identities follow the exercises of Raschka (2024), chapter 3, and go on where they end.

    Args:
      to: the name of a mechanism in `lineage`.
      test: the test to run, as pytest writes it.

    Example:
      >>> from attn_jax._lineage import lineage
      >>> lineage["Bahdanau attention"].reduces_to[0].to
      'RNN encoder–decoder'
    """

    to: str
    test: str


@dataclasses.dataclass(frozen=True)
class Mechanism:
    """One step of the history: who added what, and where it is here.

    The steps are those that Raschka (2024), chapter 3, tells: from the encoder–decoder that had to
    remember a sentence in one vector to the attention of language models.

    Args:
      name: what people call it; its key in `lineage`.
      year: when the paper appeared.
      paper: authors and title.
      url: where to read it.
      section: where in it to look.
      adds: the new idea, in a few words.
      function: the public object here, by its dotted name.
      reduces_to: what is left when the idea is switched off.

    Example:
      >>> from attn_jax._lineage import lineage
      >>> step = lineage["Bahdanau attention"]
      >>> f"{step.year}: it {step.adds}"
      '2014: it lets each step of the decoder look back at every word'
    """

    name: str
    year: int
    paper: str
    url: str
    section: str
    adds: str
    function: str
    reduces_to: tuple[Reduction, ...] = ()


_MECHANISMS = (
    Mechanism(
        name="RNN encoder–decoder",
        year=2014,
        paper="Cho et al., Learning Phrase Representations using RNN Encoder–Decoder for SMT",
        url="https://arxiv.org/abs/1406.1078",
        section="2.2",
        adds="reads a sentence into one vector and writes another from it",
        function="attn_jax.models.EncoderDecoder",
    ),
    Mechanism(
        name="Bahdanau attention",
        year=2014,
        paper="Bahdanau et al., Neural Machine Translation by Jointly Learning to Align and "
        "Translate",
        url="https://arxiv.org/abs/1409.0473",
        section="3.1 and A.1.2",
        adds="lets each step of the decoder look back at every word",
        function="attn_jax.modules.AdditiveAttention",
        reduces_to=(
            Reduction(
                "RNN encoder–decoder",
                "tests/lineage/test_cross_attention_identities.py::"
                "test_d06_attention_to_the_last_annotation_alone_is_the_rnn_encoder_decoder",
            ),
        ),
    ),
    Mechanism(
        name="Luong attention",
        year=2015,
        paper="Luong et al., Effective Approaches to Attention-based NMT",
        url="https://arxiv.org/abs/1508.04025",
        section="3.1 and 3.2",
        adds="asks with the new state, by products, everywhere or in a window",
        function="attn_jax.modules.LuongAttention",
        reduces_to=(
            Reduction(
                "Bahdanau attention",
                "tests/lineage/test_cross_attention_identities.py::"
                "test_d04_luongs_concat_is_bahdanaus_score_with_stacked_weights",
            ),
        ),
    ),
    Mechanism(
        name="sinusoidal positions",
        year=2017,
        paper=_VASWANI,
        url=_VASWANI_URL,
        section="3.5",
        adds="tells tokens apart by where they stand, without recurrence",
        function="attn_jax.positions.sinusoidal",
    ),
    Mechanism(
        name="learned positions",
        year=2017,
        paper="Gehring et al., Convolutional Sequence to Sequence Learning",
        url="https://arxiv.org/abs/1705.03122",
        section="3.1",
        adds="trains a vector for each place",
        function="attn_jax.positions.learned",
        reduces_to=(
            Reduction(
                "sinusoidal positions",
                "tests/lineage/test_position_identities.py::"
                "test_e00_learned_positions_from_the_sinusoidal_table_are_sinusoidal",
            ),
        ),
    ),
    Mechanism(
        name="cross-attention",
        year=2017,
        paper=_VASWANI,
        url=_VASWANI_URL,
        section="3.2.1",
        adds="divides dot products by √H and projects query, key and value",
        function="attn_jax.attend",
        reduces_to=(
            Reduction(
                "Luong attention",
                "tests/lineage/test_cross_attention_identities.py::"
                "test_d08_luongs_dot_over_root_n_is_cross_attention_with_one_head",
            ),
            Reduction(
                "self-attention",
                "tests/lineage/test_cross_attention_identities.py::"
                "test_d11_cross_attention_of_a_sequence_with_itself_is_self_attention",
            ),
        ),
    ),
    Mechanism(
        name="self-attention",
        year=2017,
        paper=_VASWANI,
        url=_VASWANI_URL,
        section="3.2.1",
        adds="relates the tokens of one sequence, with trainable weights",
        function="attn_jax.self_attention",
        reduces_to=(
            Reduction(
                "Luong attention",
                "tests/lineage/test_self_attention_identities.py::"
                "test_a07_self_attention_is_luongs_general_score_on_the_tokens",
            ),
            Reduction(
                "simplified self-attention",
                "tests/lineage/test_self_attention_identities.py::"
                "test_a01_identity_weights_reduce_self_attention_to_simplified",
            ),
        ),
    ),
    Mechanism(
        name="causal self-attention",
        year=2017,
        paper=_VASWANI,
        url=_VASWANI_URL,
        section="3.2.3",
        adds="hides what comes later, so that the next token can be predicted",
        function="attn_jax.causal_self_attention",
        reduces_to=(
            Reduction(
                "self-attention",
                "tests/lineage/test_causal_identities.py::"
                "test_b01_the_last_causal_row_is_the_last_full_row",
            ),
        ),
    ),
    Mechanism(
        name="multi-head attention",
        year=2017,
        paper=_VASWANI,
        url=_VASWANI_URL,
        section="3.2.2",
        adds="looks in several subspaces at once",
        function="attn_jax.multi_head_self_attention",
        reduces_to=(
            Reduction(
                "causal self-attention",
                "tests/lineage/test_head_identities.py::"
                "test_c03_one_head_with_identity_output_is_causal_self_attention",
            ),
        ),
    ),
    Mechanism(
        name="grouped-query attention",
        year=2023,
        paper="Ainslie et al., GQA: Training Generalized Multi-Query Transformer Models",
        url="https://arxiv.org/abs/2305.13245",
        section="2.2",
        adds="lets several query heads share one key and value head",
        function="attn_jax.dot_product_attention",
        reduces_to=(
            Reduction(
                "multi-head attention",
                "tests/lineage/test_head_identities.py::"
                "test_c07_a_key_head_for_each_query_head_is_multi_head_attention",
            ),
        ),
    ),
    Mechanism(
        name="simplified self-attention",
        year=2024,
        paper="Raschka, Build a Large Language Model (From Scratch)",
        url="https://www.manning.com/books/build-a-large-language-model-from-scratch",
        section="3.3",
        adds="takes the weights away again, to show the idea alone",
        function="attn_jax.simplified_self_attention",
    ),
)

lineage: Mapping[str, Mechanism] = MappingProxyType({step.name: step for step in _MECHANISMS})


def draw(steps: Mapping[str, Mechanism]) -> str:
    """Draws a timeline: a mechanism a line, with what it adds and what it reduces to.

    The years and ideas are those of the papers that the mechanisms name.

    Args:
      steps: `attn_jax.lineage`, or a part of it.

    Returns:
      Two lines of text for each mechanism that reduces to another, one for each that does not.

    Example:
      >>> from attn_jax._lineage import draw, lineage
      >>> names = "RNN encoder–decoder", "Bahdanau attention"
      >>> print(draw({name: lineage[name] for name in names}))
      2014  RNN encoder–decoder  reads a sentence into one vector and writes another from it
      2014  Bahdanau attention   lets each step of the decoder look back at every word
                                 └─ reduces to RNN encoder–decoder
    """
    width = max(map(len, steps), default=0)
    lines = []
    for step in steps.values():
        lines.append(f"{step.year}  {step.name:<{width}}  {step.adds}")
        if step.reduces_to:
            left = " and ".join(edge.to for edge in step.reduces_to)
            lines.append(f"{'':<{width + 8}}└─ reduces to {left}")
    return "\n".join(lines)
