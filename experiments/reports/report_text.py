"""The words of the translation report: every sentence about a result is computed from the numbers.

Nothing here knows which system should win; whichever way the numbers come out, the text is true.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence

from experiments.measures.alignments import Alignment, Picks, crossings
from experiments.measures.scores import (
    ALL,
    BINS,
    FEWEST_SENTENCES,
    LAST_STATE,
    OVER_20,
    RESAMPLES,
    Comparison,
    LengthRow,
    Scores,
    ScoreTable,
    SystemOutput,
)
from experiments.reports.environment import Environment
from experiments.reports.figures import Curve
from experiments.reports.report_time import at_equal_time, duration
from experiments.reports.terminal import draw_alignment

NOTHING = "–"
FIGURES = {
    "bleu": "bleu_by_length.png",
    "training": "training.png",
    "alignments": "alignments.png",
}
PAGE = "alignments.html"

TITLE = "# English to French: what attention is worth, by the length of the sentence"

QUESTION = """\
Can a network that reads a whole sentence before it writes one squeeze everything into its last
state, or must it look back? Bahdanau, Cho and Bengio (2014) let the decoder look back, and BLEU
stopped falling with the length of the sentence (their figure 2). This report asks the same of the
systems below, which learned from the same sentences. For scale: on WMT'14, trained on sentences of
up to 50 words, their network scored 26.75 BLEU with attention and 17.82 without, 1.50 times as much
(table 1). Only that ratio, not the scores, can be held against those here."""

CHOSEN = """\
The test sentences here stand at fixed places in the order of length; nobody chose them."""

CAVEATS = (
    "One training run a system: the intervals say how the scores depend on the choice of test "
    "sentences, not on the seed of the training.",
    "One reference a sentence, so a good translation in other words counts as a bad one.",
    "BLEU ignores case, and the subset rule leaves sentences out: neither these scores nor the "
    "lengths are those of a full test set.",
    "Training time is wall-clock time on the machine named below and depends on what else it did.",
    "An attention weight says what was read, not why a word was written.",
)

NEXT_STEPS = (
    "Train every system with several seeds, and report that spread next to the intervals.",
    "Give the system without attention a larger state until it matches the others on short "
    "sentences, and compare the long ones again.",
    "Widen the subset rule, so that more and longer sentences are learned from.",
)


@dataclasses.dataclass(frozen=True)
class DataNote:
    """Where the sentences come from, and by which rule some of them were kept."""

    name: str
    licence: str
    rule: str
    train: int
    validation: int
    test: int


@dataclasses.dataclass(frozen=True)
class Example:
    """One sentence and what the systems made of it, by name of the system."""

    title: str
    source: str
    translations: Mapping[str, str]
    reference: str | None = None
    alignment: Alignment | None = None


@dataclasses.dataclass(frozen=True)
class Report:
    """What one run of the experiment produced; every part after `seed` may be missing."""

    data: DataNote
    systems: tuple[SystemOutput, ...]
    sources: tuple[str, ...]  # the test set
    references: tuple[str, ...]
    command: str
    seed: int
    curves: tuple[Curve, ...] = ()
    picks: Picks | None = None
    examples: tuple[Example, ...] = ()  # shown before those of the test set
    next_steps: tuple[str, ...] = NEXT_STEPS


def score_cells(scores: Scores) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the result table, one column a system, for a page and for a terminal."""
    header = ["source words", "sentences", *(table.system for table in scores.tables)]
    rows: list[list[str]] = []
    for length_bin in (*BINS, OVER_20, ALL):
        row = [table.row(length_bin.label) for table in scores.tables]
        rows.append([length_bin.label, f"{row[0].sentences:,}", *map(_score, row)])
    rows.append(["chrF, all", "", *(f"{table.chrf:.1f}" for table in scores.tables)])
    return header, rows


def observations(scores: Scores, curves: Sequence[Curve] = ()) -> list[str]:
    """What the numbers say: every system against the last state, by length, and at equal time.

    Without a system called LAST_STATE the first one takes its place.
    """
    names = [table.system for table in scores.tables]
    base = scores.tables[names.index(LAST_STATE) if LAST_STATE in names else 0]
    others = [table for table in scores.tables if table is not base]
    against = [sentence for table in others for sentence in _against(scores, table, base)]
    by_length = [sentence for table in scores.tables for sentence in _by_length(table)]
    return [*against, *by_length, *_ahead(scores), *at_equal_time(curves)]


def markdown(
    report: Report, scores: Scores, examples: Sequence[Example], place: Environment
) -> str:
    """The whole page."""
    sections = (
        ("", TITLE),
        ("Question", QUESTION),
        ("Data", _data(report.data)),
        ("Systems", _systems(report)),
        ("Results", _results(scores)),
        ("What was seen", _bullets(observations(scores, report.curves))),
        ("Alignments", _alignments(report.picks)),
        ("Examples", "\n\n".join([CHOSEN, *(_example(e, report.systems) for e in examples)])),
        ("Caveats", _bullets(CAVEATS)),
        ("How to repeat it", _repeat(report, place)),
        ("What to try next", _bullets(report.next_steps)),
    )
    parts = [f"## {title}\n\n{body}" if title else body for title, body in sections if body]
    return "\n\n".join(parts) + "\n"


def _score(row: LengthRow) -> str:
    if row.bleu is None:
        return NOTHING
    if row.interval is None:
        return f"{row.bleu:.1f}"
    return f"{row.bleu:.1f} ({row.interval[0]:.1f} to {row.interval[1]:.1f})"


def _against(scores: Scores, table: ScoreTable, base: ScoreTable) -> Iterator[str]:
    names, ratios = f"*{table.system}* to *{base.system}*", []
    for length_bin, where in ((ALL, "On all {:,} sentences"), (OVER_20, "Over 20 words ({:,})")):
        mine, other = table.row(length_bin.label), base.row(length_bin.label)
        if mine.bleu is None or other.bleu is None:
            continue
        said = f"{where.format(mine.sentences)}, *{table.system}* scores {mine.bleu:.1f} BLEU and "
        said += f"*{base.system}* {other.bleu:.1f}"
        if other.bleu >= 0.1:
            ratios.append(mine.bleu / other.bleu)
            said += f", {ratios[-1]:.2f} times as much"
        yield f"{said}; {_certainty(scores.comparison(table.system, base.system, mine.label))}."
    if len(ratios) == 2:
        overall, long = (f"{ratio:.2f}" for ratio in ratios)
        change = "the same" if long == overall else "larger" if ratios[1] > ratios[0] else "smaller"
        yield f"The ratio of {names} is {change} over 20 words: {long}, overall {overall}."


def _certainty(comparison: Comparison | None) -> str:
    if comparison is None:
        return f"fewer than {FEWEST_SENTENCES} sentences are too few for a test"
    verdict = "can" if comparison.p_value >= 0.05 else "can hardly"
    return (
        f"it is ahead in {100 * comparison.wins:.1f} % of {RESAMPLES:,} resamples, and the "
        f"difference of {comparison.difference:+.1f} {verdict} be chance (p = "
        f"{comparison.p_value:.3f})"
    )


def _by_length(table: ScoreTable) -> Iterator[str]:
    rows = [table.row(length_bin.label) for length_bin in BINS]
    rows = [row for row in rows if row.bleu is not None and row.interval is not None]
    if len(rows) < 2:
        return
    first, last = rows[0], rows[-1]
    before, after = f"{first.bleu:.1f}", f"{last.bleu:.1f}"
    verb = "falls" if float(after) < float(before) else "rises"
    change = f"stays at {before}" if after == before else f"{verb} from {before} to {after}"
    yield f"From {first.label} to {last.label} words *{table.system}* {change} BLEU."


def _ahead(scores: Scores) -> Iterator[str]:
    best = []
    for label in (length_bin.label for length_bin in BINS):
        rows = {table.system: table.row(label) for table in scores.tables}
        if all(row.interval for row in rows.values()):
            name = max(rows, key=lambda name: rows[name].bleu or 0)
            best.append(f"*{name}* at {label} words ({rows[name].bleu:.1f})")
    if best and len(scores.tables) > 1:
        yield f"Highest BLEU by length: {', '.join(best)}."


def _data(data: DataNote) -> str:
    return (
        f"{_plain(data.name)} ({_plain(data.licence)}): {data.train:,} sentence pairs to train, "
        f"{data.validation:,} to validate, {data.test:,} to test. {_plain(data.rule)}"
    )


def _systems(report: Report) -> str:
    rows = [
        [s.name, f"{s.parameters:,}", duration(s.seconds), _plain(s.note)] for s in report.systems
    ]
    table = _table(["system", "parameters", "training", "what it is"], rows)
    if not report.curves:
        return table
    return f"{table}\n\n![Loss against the step, training and validation]({FIGURES['training']})"


def _results(scores: Scores) -> str:
    return f"""\
BLEU by the number of words in the source, with its 95 % interval (percentile bootstrap over test
sentences, {RESAMPLES:,} resamples). {NOTHING} is an empty bin; a bin of fewer than
{FEWEST_SENTENCES} sentences has no interval and is not drawn.

{_table(*score_cells(scores))}

- BLEU: `{scores.bleu_signature}`
- chrF: `{scores.chrf_signature}`

![BLEU against source length, a line a system]({FIGURES["bleu"]})"""


def _alignments(picks: Picks | None) -> str:
    if picks is None or not picks.alignments:
        return picks.rule if picks else ""
    swaps = []
    for letter, alignment in zip("abcdefghijklmnopqrstuvwxyz", picks.alignments, strict=False):
        for found in crossings(alignment):
            second, first = (_plain(w) for w in alignment.source[found.column : found.column + 2])
            one, two = (_plain(w) for w in alignment.generated[found.row : found.row + 2])
            swaps.append(f"({letter}) *{one} {two}* read *{first}*, then *{second}*")
    listed = f"\n\nSwaps: {'; '.join(swaps)}." if swaps else ""
    return f"""\
{picks.rule} Weights are between words: those of the pieces of a source word are added up, those of
the pieces of a generated word averaged.{listed}

![Attention weights, a row a generated word, a column a source word]({FIGURES["alignments"]})

[The same and the lecture's sentence, to look at closely]({PAGE}): every weight, and lines."""


def _example(example: Example, systems: Sequence[SystemOutput]) -> str:
    lines = [f"**{_plain(example.title)}**", "", f"- source: {_plain(example.source)}"]
    if example.reference is not None:
        lines.append(f"- reference: {_plain(example.reference)}")
    for system in systems:
        if system.name in example.translations:
            lines.append(f"- *{system.name}*: {_plain(example.translations[system.name])}")
    if example.alignment is not None:
        lines += ["", "```text", draw_alignment(example.alignment, width=100), "```"]
    return "\n".join(lines)


def _repeat(report: Report, place: Environment) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in place.versions.items())
    facts = {
        "date": place.date,
        "commit": place.commit or "unknown (not a git checkout)",
        "seed": str(report.seed),
        "python": f"{place.python}, {versions}",
        "machine": f"{place.processor}, {place.cores} cores, {place.platform}",
        "trained on": place.device,
    }
    listed = "\n".join(f"- {name}: {_plain(fact)}" for name, fact in facts.items())
    return f"```sh\n{report.command}\n```\n\n{listed}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    numbers = [cell.replace(",", "").isdigit() for cell in rows[0]] if rows else []
    marks = ["---:" if number else "---" for number in numbers] or ["---"] * len(header)
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, marks, *rows))


def _bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _plain(text: str) -> str:
    """Text as it stands, in Markdown: no character of a sentence may turn into markup."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&$])", r"\\\1", " ".join(text.split()))
