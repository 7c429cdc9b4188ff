"""The history of attention: which paper added which idea, and what is left without that idea.

`lineage` maps names to mechanisms, sorted by year.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from attn_jax._base import notebook

_VASWANI = "Vaswani et al., Attention Is All You Need"
_VASWANI_URL = "https://arxiv.org/abs/1706.03762"
_CHO = "Cho et al., Learning Phrase Representations using RNN Encoder–Decoder for SMT"
_CHO_URL = "https://arxiv.org/abs/1406.1078"


@dataclasses.dataclass(frozen=True)
class Reduction:
    """One edge of the lineage: the older mechanism that is left without the newer one's idea.

    The identities follow the exercises of Raschka (2024), chapter 3, and continue beyond them.

    Args:
      to: the name of the older mechanism in `lineage`.

    Example:
      >>> from attn_jax._lineage import lineage
      >>> lineage["Bahdanau attention"].reduces_to[0].to
      'RNN encoder–decoder'
    """

    to: str


@dataclasses.dataclass(frozen=True, repr=False)
class Mechanism:
    """One step of the history: the paper, the idea that it added, and its implementation here.

    The steps begin with recurrent networks. From the encoder–decoder that compresses a sentence to
    one vector to the attention of language models, they follow Raschka (2024), chapter 3.

    Args:
      name: the usual name; the key in `lineage`.
      year: when the paper appeared.
      paper: authors and title.
      url: the address of the paper.
      section: the section of the paper, or its pages.
      adds: the new idea, in a few words.
      function: the dotted name of its implementation in `attn_jax`, or in Flax for the plain RNN.
      reduces_to: the older mechanisms that are left without the new idea.

    Example:
      >>> from attn_jax._lineage import lineage
      >>> step = lineage["Bahdanau attention"]
      >>> f"{step.year}: it {step.adds}"
      '2014: it lets each decode step attend to every word of the source'
    """

    name: str
    year: int
    paper: str
    url: str
    section: str
    adds: str
    function: str
    reduces_to: tuple[Reduction, ...] = ()

    def __repr__(self) -> str:
        return f"Mechanism({self.name}, {self.year}: {self.adds})"

    def _repr_html_(self) -> str:
        rows = {
            "adds": self.adds,
            "paper": f"{self.paper} ({self.year}), section {self.section}, {self.url}",
            "function": self.function,
            "reduces to": ", ".join(edge.to for edge in self.reduces_to),
        }
        return notebook.table(self.name, [row for row in rows.items() if row[1]])


_MECHANISMS = (
    Mechanism(
        name="RNN",
        year=1990,
        paper="Elman, Finding Structure in Time, Cognitive Science 14",
        url="https://doi.org/10.1207/s15516709cog1402_1",
        section="pages 179–211; a technical report of 1988 has the network",
        adds="carries a state from one word to the next",
        function="flax.nnx.SimpleCell",
    ),
    Mechanism(
        name="LSTM",
        year=1997,
        paper="Hochreiter & Schmidhuber, Long Short-Term Memory, Neural Computation 9",
        url="https://doi.org/10.1162/neco.1997.9.8.1735",
        section="4",
        adds="keeps a memory behind gates, so that it survives many steps",
        function="attn_jax.models.LSTM",
        reduces_to=(Reduction("RNN"),),
    ),
    Mechanism(
        name="GRU",
        year=2014,
        paper=_CHO,
        url=_CHO_URL,
        section="2.3",
        adds="keeps or replaces each entry of the state, with two gates",
        function="attn_jax.models.GatedUnit",
        reduces_to=(Reduction("RNN"),),
    ),
    Mechanism(
        name="RNN encoder–decoder",
        year=2014,
        paper=_CHO,
        url=_CHO_URL,
        section="2.2",
        adds="encodes a sentence as one vector and decodes another from it",
        function="attn_jax.models.EncoderDecoder",
        reduces_to=(Reduction("GRU"),),
    ),
    Mechanism(
        name="Bahdanau attention",
        year=2014,
        paper="Bahdanau et al., Neural Machine Translation by Jointly Learning to Align and "
        "Translate",
        url="https://arxiv.org/abs/1409.0473",
        section="3.1 and A.1.2",
        adds="lets each decode step attend to every word of the source",
        function="attn_jax.modules.AdditiveAttention",
        reduces_to=(Reduction("RNN encoder–decoder"),),
    ),
    Mechanism(
        name="Luong attention",
        year=2015,
        paper="Luong et al., Effective Approaches to Attention-based NMT",
        url="https://arxiv.org/abs/1508.04025",
        section="3.1 and 3.2",
        adds="takes the new state as query; multiplicative and local scores",
        function="attn_jax.modules.LuongAttention",
        reduces_to=(Reduction("Bahdanau attention"),),
    ),
    Mechanism(
        name="sinusoidal positions",
        year=2017,
        paper=_VASWANI,
        url=_VASWANI_URL,
        section="3.5",
        adds="encodes the position of each token, without recurrence",
        function="attn_jax.positions.sinusoidal",
    ),
    Mechanism(
        name="learned positions",
        year=2017,
        paper="Gehring et al., Convolutional Sequence to Sequence Learning",
        url="https://arxiv.org/abs/1705.03122",
        section="3.1",
        adds="trains a vector for each position",
        function="attn_jax.positions.learned",
        reduces_to=(Reduction("sinusoidal positions"),),
    ),
    Mechanism(
        name="cross-attention",
        year=2017,
        paper=_VASWANI,
        url=_VASWANI_URL,
        section="3.2.1",
        adds="divides dot products by √H; projects query, key and value",
        function="attn_jax.attend",
        reduces_to=(Reduction("Luong attention"), Reduction("self-attention")),
    ),
    Mechanism(
        name="self-attention",
        year=2017,
        paper=_VASWANI,
        url=_VASWANI_URL,
        section="3.2.1",
        adds="attends within one sequence, with trainable projections",
        function="attn_jax.lecture.self_attention",
        reduces_to=(Reduction("Luong attention"), Reduction("simplified self-attention")),
    ),
    Mechanism(
        name="causal self-attention",
        year=2017,
        paper=_VASWANI,
        url=_VASWANI_URL,
        section="3.2.3",
        adds="masks later tokens, so that the next token can be predicted",
        function="attn_jax.lecture.causal_self_attention",
        reduces_to=(Reduction("self-attention"),),
    ),
    Mechanism(
        name="multi-head attention",
        year=2017,
        paper=_VASWANI,
        url=_VASWANI_URL,
        section="3.2.2",
        adds="runs several attentions in parallel, each in its own subspace",
        function="attn_jax.lecture.multi_head_self_attention",
        reduces_to=(Reduction("causal self-attention"),),
    ),
    Mechanism(
        name="Transformer",
        year=2017,
        paper=_VASWANI,
        url=_VASWANI_URL,
        section="3.1",
        adds="stacks attention and feed-forward networks, without recurrence",
        function="attn_jax.models.Transformer",
        reduces_to=(Reduction("cross-attention"), Reduction("multi-head attention")),
    ),
    Mechanism(
        name="GPT",
        year=2018,
        paper="Radford et al., Improving Language Understanding by Generative Pre-Training",
        url="https://cdn.openai.com/research-covers/language-unsupervised/"
        "language_understanding_paper.pdf",
        section="3.1; the norms are placed as in GPT-2 (2019)",
        adds="keeps the decoder alone, trained to predict the next token",
        function="attn_jax.models.GPT",
        reduces_to=(Reduction("Transformer"),),
    ),
    Mechanism(
        name="grouped-query attention",
        year=2023,
        paper="Ainslie et al., GQA: Training Generalized Multi-Query Transformer Models",
        url="https://arxiv.org/abs/2305.13245",
        section="2.2",
        adds="lets several query heads share one key and value head",
        function="attn_jax.dot_product_attention",
        reduces_to=(Reduction("multi-head attention"),),
    ),
    Mechanism(
        name="simplified self-attention",
        year=2024,
        paper="Raschka, Build a Large Language Model (From Scratch)",
        url="https://www.manning.com/books/build-a-large-language-model-from-scratch",
        section="3.3",
        adds="removes the trainable projections, to show the idea alone",
        function="attn_jax.lecture.simplified_self_attention",
    ),
)

lineage: Mapping[str, Mechanism] = MappingProxyType({step.name: step for step in _MECHANISMS})
"""Mechanisms by name, sorted by year: `lineage["Bahdanau attention"].paper`."""


def draw(steps: Mapping[str, Mechanism]) -> str:
    """Formats mechanisms as a timeline in text: year, name, new idea, and what each reduces to.

    The years and ideas are those of the papers in `Mechanism.paper`.

    Args:
      steps: `attn_jax.lineage`, or a part of it.

    Returns:
      The text: one line for each mechanism, and a second one where it reduces to others.

    Example:
      >>> from attn_jax._lineage import draw, lineage
      >>> print(draw({name: lineage[name] for name in ("RNN", "LSTM")}))
      1990  RNN   carries a state from one word to the next
      1997  LSTM  keeps a memory behind gates, so that it survives many steps
                  └─ reduces to RNN
    """
    width = max(map(len, steps), default=0)
    lines = []
    for step in steps.values():
        lines.append(f"{step.year}  {step.name:<{width}}  {step.adds}")
        if step.reduces_to:
            left = " and ".join(edge.to for edge in step.reduces_to)
            lines.append(f"{'':<{width + 8}}└─ reduces to {left}")
    return "\n".join(lines)
