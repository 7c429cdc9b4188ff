"""The page of traced translations: attention weights, and the animation of every decode step."""

from collections.abc import Sequence

from attn_jax.viewer import AttentionView
from experiments.measures.outcomes import TracedSentence

# The viewer shows each step's scores, and below them the weights.
MEANS_OF_HEADS = (
    "The scores and weights of the Transformer are means over the heads of one block, so its "
    "weights are not the softmax of the scores shown."
)


def page(sentences: Sequence[TracedSentence], title: str, note: str = "") -> bytes:
    """One page of the attention viewer with all sentences, each with its animation.

    Args:
      sentences: at least one.
      title: of the page.
      note: a sentence under the title.
    """
    readings = tuple(view(sentence).readings[0] for sentence in sentences)
    return AttentionView(readings, title, note).to_html().encode()


def view(sentence: TracedSentence) -> AttentionView:
    """The view of one sentence."""
    return AttentionView.from_trace(
        sentence.fields,
        [label(token) for token in sentence.source],
        [label(token) for token in sentence.target],
        annotations=sentence.fields["annotations"],
        word=lambda i: label(sentence.labels.get(i, str(i))),
        source_words=sentence.source_words,
        target_words=sentence.target_words,
        title=sentence.title,
    )


def label(token: str) -> str:
    """A subword without the mark of the space before it; the page merges subwords by their words.

    Example:
      >>> label("▁chat"), label("s"), label("▁")
      ('chat', 's', 'space')
    """
    return token.removeprefix("▁") or "space"
