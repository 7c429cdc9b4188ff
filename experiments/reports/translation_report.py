"""The report of `translate`: BLEU by length, what follows from it, alignments and examples."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence

from experiments.measures.alignments import Alignment, Picks, crossings
from experiments.measures.outcomes import TracedSentence
from experiments.measures.scores import (
    FEWEST_SENTENCES,
    RESAMPLES,
    Scores,
    SystemOutput,
    score_systems,
    word_count,
)
from experiments.reports.animation import MEANS_OF_HEADS, page
from experiments.reports.curves import Curve, training_curves
from experiments.reports.environment import Environment, environment
from experiments.reports.figures import alignment_maps, bleu_by_length
from experiments.reports.finding import finding
from experiments.reports.report import (
    Finding,
    Picture,
    Report,
    Table,
    bullets,
    escaped,
)
from experiments.reports.terminal import draw_alignment
from experiments.reports.translation_tables import (
    comparison_table,
    equal_time_table,
    length_and_loss_table,
    score_table,
    system_table,
)
from experiments.systems.translation import SYSTEMS

PAGE, TRANSLATIONS = "alignments.html", "translations.jsonl"
QUANTILES = {"A short": 0.1, "A medium": 0.5, "A long": 0.9, "The longest": 1.0}

QUESTION = """\
Does the last state of an encoder contain enough of a sentence to translate it, or does the decoder
need attention? With the attention of Bahdanau, Cho and Bengio (2014), BLEU no longer fell with the
length of the sentence (their figure 2). This report makes the same comparison with the systems
below, which were trained on the same sentences. For scale: on WMT'14, trained on sentences of up to
50 words, their network scored 26.75 BLEU with attention and 17.82 without, 1.50 times as much
(table 1). Only that ratio, not the scores, can be compared with the numbers here."""

CHOSEN = """\
The test sentences are those at fixed places in the order of length; none was chosen by hand."""

CAVEATS = (
    "One training run a system: the intervals show how the scores depend on the choice of test "
    "sentences, not on the seed of the training.",
    "One reference a sentence, so a good translation in other words counts as a bad one.",
    "BLEU ignores case, and the subset rule leaves sentences out: neither these scores nor the "
    "lengths are those of a full test set.",
    "Training time is wall-clock time on the machine named below and depends on what else it did.",
    "An attention weight is the share of a source word in what the decoder gets; it does not "
    "explain the output.",
)

NEXT_STEPS = (
    "Train every system with several seeds, and report that spread next to the intervals.",
    "Give the system without attention a larger state until it matches the others on short "
    "sentences, and compare the long ones again.",
    "Widen the subset rule, to train on more and longer sentences.",
)


@dataclasses.dataclass(frozen=True)
class DataNote:
    """The source of the sentences, the rule that selected them, and their numbers."""

    name: str
    licence: str
    rule: str
    train: int
    validation: int
    test: int


@dataclasses.dataclass(frozen=True)
class Example:
    """One sentence and its translations, by name of the system."""

    title: str
    source: str
    translations: Mapping[str, str]
    reference: str | None = None
    alignment: Alignment | None = None


@dataclasses.dataclass(frozen=True)
class Outputs:
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
    traced: tuple[TracedSentence, ...] = ()  # for the page with the animation
    picked_from: str = ""  # the system of `picks`
    preset: str = ""


def make_report(outputs: Outputs, place: Environment | None = None) -> Report:
    """Scores the systems and describes the result.

    Args:
      outputs: of at least one system.
      place: where the run happened; None is here and now.

    Raises:
      ValueError: there is no system, or translations and sources do not match.
    """
    place = place or environment()
    scores = score_systems(outputs.systems, outputs.sources, outputs.references)
    found = finding(scores, outputs.curves)
    examples = [*outputs.examples, *_test_examples(outputs)]
    return Report(
        title="English to French: what attention is worth, by the length of the sentence",
        findings={
            "data": outputs.data,
            "systems": [_without_translations(system) for system in outputs.systems],
            "scores": scores,
            "finding": found,
            "curves": outputs.curves,
            "picks": outputs.picks,
            "examples": examples,
            "command": outputs.command,
            "seed": outputs.seed,
        },
        body=[
            Finding(" ".join(found)),
            f"## Question\n\n{QUESTION}",
            "## Systems",
            system_table(outputs.systems),
            *_curves(outputs.curves),
            *_results(scores, outputs.curves),
            *_alignments(outputs.picks, outputs.picked_from),
            "\n\n".join(["## Examples", CHOSEN, *(_example(e, outputs.systems) for e in examples)]),
            f"## Caveats\n\n{bullets(CAVEATS)}",
            f"## How to repeat it\n\n```sh\n{outputs.command}\n```",
            _facts(outputs, scores, place).markdown(),
            f"## What to try next\n\n{bullets(NEXT_STEPS)}",
        ],
        files={TRANSLATIONS: _translations(outputs), **_page(outputs)},
        preset=outputs.preset,
        decimals=None,
        environment=place,
    )


def _test_examples(outputs: Outputs) -> list[Example]:
    """Test sentences at fixed places in the order of length."""
    order = sorted(range(len(outputs.sources)), key=lambda i: word_count(outputs.sources[i]))
    chosen: dict[int, str] = {}
    for title, quantile in QUANTILES.items():
        chosen.setdefault(order[round(quantile * (len(order) - 1))], title)
    return [
        Example(
            f"{title} test sentence ({word_count(outputs.sources[i])} words, number {i + 1})",
            outputs.sources[i],
            {system.name: system.translations[i] for system in outputs.systems},
            outputs.references[i],
        )
        for i, title in chosen.items()
    ]


def _without_translations(system: SystemOutput) -> dict[str, object]:
    return {name: fact for name, fact in vars(system).items() if name != "translations"}


def _page(outputs: Outputs) -> dict[str, bytes]:
    """The traced sentences on a page of the attention viewer, with their animation."""
    if not outputs.traced:
        return {}
    note = "The attention from each generated word to each source word, step by step."
    if any(system.name == SYSTEMS["transformer"].label for system in outputs.systems):
        note += f" {MEANS_OF_HEADS}"
    return {PAGE: page(outputs.traced, "Translations of this run", note)}


def _translations(outputs: Outputs) -> bytes:
    lines = []
    for i, (source, reference) in enumerate(zip(outputs.sources, outputs.references, strict=True)):
        translations = {system.name: system.translations[i] for system in outputs.systems}
        line = {"source": source, "reference": reference, **translations}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return "".join(lines).encode()


def _results(scores: Scores, curves: Sequence[Curve]) -> Iterator[str | Table | Picture]:
    yield f"""\
## Results

BLEU by the number of words in the source, with its 95 % interval (percentile bootstrap over test
sentences, {RESAMPLES:,} resamples); fewer than {FEWEST_SENTENCES} sentences have no interval."""
    yield score_table(scores)
    figure = bleu_by_length(scores.tables)
    yield Picture("bleu_by_length.png", figure, "BLEU against source length, a line a system")
    for table in comparison_table(scores):
        yield """\
The difference in BLEU of two systems, and how many times as much one scores; p is that of a paired
bootstrap test."""
        yield table
    yield """\
The length of the translations by that of the references, BLEU's factor for translations that are
too short (its brevity penalty), and the last losses in nats a token. The training loss is measured
with dropout, where the system has any; the change is since the validation before."""
    yield length_and_loss_table(scores, curves)
    for table in equal_time_table(curves):
        yield "Equal numbers of steps take unequal times. Validation losses at equal time:"
        yield table


def _curves(curves: Sequence[Curve]) -> Iterator[Picture]:
    if curves:
        caption = "Loss against the step, training and validation"
        yield Picture("training.png", training_curves(curves), caption)


def _alignments(picks: Picks | None, system: str) -> Iterator[str | Picture]:
    if picks is None:
        return
    heading = f"## Alignments of {system}" if system else "## Alignments"
    if not picks.alignments:
        yield f"{heading}\n\n{picks.rule}"
        return
    swaps = []
    for letter, alignment in zip("abcdefghijklmnopqrstuvwxyz", picks.alignments, strict=False):
        for found in crossings(alignment):
            second, first = map(escaped, alignment.source[found.column : found.column + 2])
            one, two = map(escaped, alignment.generated[found.row : found.row + 2])
            swaps.append(f"({letter}) *{one} {two}* attend to *{first}*, then *{second}*")
    listed = f"\n\nSwaps: {'; '.join(swaps)}." if swaps else ""
    yield f"""\
{heading}

{picks.rule} Weights are between words: those of the subwords of a source word are summed, those of
the subwords of a generated word averaged.{listed}"""
    caption = "Attention weights, a row a generated word, a column a source word"
    titles = [f"test sentence {place + 1}" for place in picks.places]
    yield Picture("alignments.png", alignment_maps(picks.alignments, titles=titles), caption)
    yield f"[These and the lecture's sentence, step by step]({PAGE}): open the file in a browser."


def _example(example: Example, systems: Sequence[SystemOutput]) -> str:
    lines = [f"**{escaped(example.title)}**", "", f"- source: {escaped(example.source)}"]
    if example.reference is not None:
        lines.append(f"- reference: {escaped(example.reference)}")
    for system in systems:
        if system.name in example.translations:
            lines.append(f"- *{system.name}*: {escaped(example.translations[system.name])}")
    if example.alignment is not None:
        lines += ["", "```text", draw_alignment(example.alignment, width=100), "```"]
    return "\n".join(lines)


def _facts(outputs: Outputs, scores: Scores, place: Environment) -> Table:
    """Everything needed to repeat the run, one row a fact."""
    data = outputs.data
    facts = {
        "corpus": data.name,
        "licence": data.licence,
        "training pairs": f"{data.train:,}",
        "validation pairs": f"{data.validation:,}",
        "test pairs": f"{data.test:,}",
        "selection": data.rule,
        "seed": str(outputs.seed),
        "BLEU (sacrebleu)": scores.bleu_signature,
        "chrF (sacrebleu)": scores.chrf_signature,
        "date": place.date,
        "commit": place.commit or "unknown (not a git checkout)",
        "python": place.python,
        "packages": ", ".join(f"{name} {version}" for name, version in place.versions.items()),
        "machine": f"{place.processor}, {place.cores} cores, {place.platform}",
        "device": place.device,
    }
    return Table(["fact", "value"], [[name, escaped(fact)] for name, fact in facts.items()])
