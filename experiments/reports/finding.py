"""What a run of `translate` found, in three sentences computed from its numbers.

No system is expected to win: the sentences are true however the numbers come out. They name no
cause that the numbers do not show.
"""

import math
from collections.abc import Iterator, Sequence

from experiments.measures.scores import ALL, BINS, LAST_STATE, Scores, ScoreTable
from experiments.reports.curves import Curve
from experiments.systems.translation import SYSTEMS

TRANSFORMER, WORD_BY_WORD = SYSTEMS["transformer"].label, SYSTEMS["lexicon"].label
CHANCE = 0.05  # a difference with a larger p can be chance
LOWEST = 1.0  # BLEU below which a difference is not explained


def finding(scores: Scores, curves: Sequence[Curve] = ()) -> list[str]:
    """The best system, the effect of length, and what distinguishes the two best in BLEU.

    The third sentence compares the Transformer, if it is there, with the best other network.
    """
    ranked = sorted(scores.tables, key=_overall, reverse=True)
    sentences = [_best(scores, ranked), *_by_length(scores, ranked[0])]
    if len(ranked) > 1:
        subject = next((table for table in ranked if table.system == TRANSFORMER), ranked[0])
        others = sorted(
            (table for table in ranked if table is not subject),
            key=lambda table: table.system == WORD_BY_WORD,
        )
        rival = others[0]
        sentences.append(_difference(scores, subject, rival, curves))
    return sentences


def _overall(table: ScoreTable) -> float:
    return table.row(ALL.label).bleu or 0.0


def _best(scores: Scores, ranked: Sequence[ScoreTable]) -> str:
    best, *others = ranked
    score, tests = _overall(best), f"{best.row(ALL.label).sentences:,} test sentences"
    if not others:
        return f"*{best.system}* scores {score:.1f} BLEU on {tests}."
    compared = scores.comparison(best.system, others[0].system, ALL.label)
    if compared is None or compared.p_value >= CHANCE:
        why = (
            "there are too few sentences to tell them apart"
            if compared is None
            else f"the difference can be chance (p = {compared.p_value:.3f})"
        )
        return (
            f"*{best.system}* ({score:.1f} BLEU) and *{others[0].system}* "
            f"({_overall(others[0]):.1f}) are best on {tests}; {why}."
        )
    compared_with = {others[0].system: others[0]}
    if (base := scores.table(LAST_STATE)) is not None and base is not best:
        compared_with[LAST_STATE] = base
    more = " and ".join(
        f"{score - _overall(other):.1f} more than *{name}*" for name, other in compared_with.items()
    )
    return f"*{best.system}* is best: {score:.1f} BLEU on {tests}, {more}."


def _by_length(scores: Scores, best: ScoreTable) -> Iterator[str]:
    """BLEU on the shortest and the longest sentences: of the best, LAST_STATE and TRANSFORMER."""
    labels = [b.label for b in BINS if all(t.row(b.label).interval for t in scores.tables)]
    if len(labels) < 2:
        return
    changes = []
    for name in dict.fromkeys((best.system, LAST_STATE, TRANSFORMER)):
        if (table := scores.table(name)) is not None:
            before, after = (f"{table.row(label).bleu:.1f}" for label in (labels[0], labels[-1]))
            verb = "falls" if float(after) < float(before) else "rises"
            change = f"stays at {before}" if after == before else f"{verb} from {before} to {after}"
            changes.append(f"*{name}* {change} BLEU")
    listed = ", and ".join(filter(None, (", ".join(changes[:-1]), changes[-1])))
    yield f"From {labels[0]} to {labels[-1]} words, {listed}."


def _difference(
    scores: Scores, subject: ScoreTable, rival: ScoreTable, curves: Sequence[Curve]
) -> str:
    """The difference in BLEU, split into the brevity penalty and the rest, and the losses."""
    mine, other = subject.row(ALL.label), rival.row(ALL.label)
    difference = _overall(subject) - _overall(rival)
    names = f"*{subject.system}*", f"*{rival.system}*"
    compared = scores.comparison(subject.system, rival.system, ALL.label)
    is_ahead = difference > 0
    said = f"{names[0]} is {abs(difference):.1f} BLEU {'ahead of' if is_ahead else 'behind'} "
    said += names[1]
    if compared is None or compared.p_value >= CHANCE:
        said += ", which can be chance"
    elif min(_overall(subject), _overall(rival)) >= LOWEST:
        said += f", mostly because {_cause(subject, rival)}"
    if mine.length_ratio is not None and other.length_ratio is not None:
        said += (
            f": its translations have {mine.length_ratio:.2f} of the length of the references, "
            f"those of {names[1]} {other.length_ratio:.2f}; without BLEU's penalty for short "
            f"translations the scores are {mine.without_penalty:.1f} and "
            f"{other.without_penalty:.1f}"
        )
    return f"{said}{_losses(subject.system, rival.system, curves)}."


def _cause(subject: ScoreTable, rival: ScoreTable) -> str:
    """The larger of the two factors of the ratio of BLEU: the brevity penalty, and the rest."""
    mine, other = subject.row(ALL.label), rival.row(ALL.label)
    sign = 1 if _overall(subject) > _overall(rival) else -1
    by_length = sign * math.log((mine.brevity_penalty or 1) / (other.brevity_penalty or 1))
    by_match = sign * math.log((mine.without_penalty or 1) / (other.without_penalty or 1))
    if by_length > by_match:
        short = "its translations" if sign < 0 else f"the translations of *{rival.system}*"
        return f"{short} are too short"
    return f"its words match the references {'more' if sign > 0 else 'less'} often"


def _losses(subject: str, rival: str, curves: Sequence[Curve]) -> str:
    last = {c.system: c.validation[-1][1] for c in curves if c.validation}
    if not {subject, rival} <= last.keys():
        return ""
    return f"; the last validation losses are {last[subject]:.2f} and {last[rival]:.2f}"
