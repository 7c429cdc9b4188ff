"""A sentence that shows what a system can translate."""

from collections.abc import Callable, Sequence

from sacrebleu.metrics import CHRF

from experiments.measures.scores import word_count

LENGTHS = range(5, 13)  # words of a sentence that is quickly read


def best_translated(
    sources: Sequence[str],
    translations: Sequence[str],
    references: Sequence[str],
    fits: Callable[[str], bool] = lambda source: True,
) -> str:
    """The source whose translation is closest to its reference, by chrF.

    Sources with LENGTHS words are preferred. Of equally good ones the longest is taken, then the
    first.

    Args:
      sources: test sentences.
      translations: one for each source.
      references: one for each source.
      fits: whether the system can translate a source.

    Example:
      >>> sources = ["A red car stops here now.", "The dog sleeps in the garden."]
      >>> best_translated(sources, ["un chat", "le chien dort"], ["une auto", "le chien dort"])
      'The dog sleeps in the garden.'
    """
    metric = CHRF(lowercase=True)

    def rank(i: int) -> tuple[bool, float, int]:
        words = word_count(sources[i])
        score = metric.sentence_score(translations[i], [references[i]]).score
        return words in LENGTHS, score, words

    candidates = [i for i, source in enumerate(sources) if fits(source)]
    return sources[max(candidates or [0], key=rank)]
