"""BLEU from the counts of each sentence (Papineni et al., "BLEU", 2002), by sacrebleu's formula."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from sacrebleu.metrics import BLEU


def sentence_statistics(
    translations: Sequence[str], references: Sequence[str]
) -> Int[np.ndarray, "N 10"]:
    """The counts of BLEU for each sentence: lengths, then matched and proposed 1- to 4-grams.

    `bleu` of a sum of rows equals sacrebleu's corpus BLEU of those sentences, so a bootstrap
    resample needs only a sum. Case is ignored.
    """
    metric = BLEU(lowercase=True)
    scores = (
        metric.corpus_score([translation], [[reference]])
        for translation, reference in zip(translations, references, strict=True)
    )
    rows = [[score.sys_len, score.ref_len, *score.counts, *score.totals] for score in scores]
    return np.array(rows, dtype=np.int64).reshape(-1, 10)


def bleu(statistics: Int[np.ndarray, " 10"]) -> float:
    """Corpus BLEU of summed sentence statistics, by sacrebleu's formula and smoothing."""
    system_length, reference_length, *counts = statistics.tolist()
    return BLEU.compute_bleu(
        counts[:4], counts[4:], system_length, reference_length, smooth_method="exp"
    ).score


def brevity(statistics: Int[np.ndarray, " 10"]) -> tuple[float, float] | tuple[None, None]:
    """The length of translations by that of the references, and BLEU's brevity penalty (§2.2.2).

    Both are None if the references have no tokens.

    Args:
      statistics: a sum of rows of `sentence_statistics`.

    Example:
      >>> brevity(np.array([8, 10, 0, 0, 0, 0, 0, 0, 0, 0]))
      (0.8, 0.7788007830714049)
    """
    translated, reference = int(statistics[0]), int(statistics[1])
    if not reference:
        return None, None
    if not translated:
        return 0.0, 0.0
    return translated / reference, min(1.0, math.exp(1 - reference / translated))
