"""The report of `translate`: BLEU by length, what follows from it, alignments and examples."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence

from attn_jax.viewer import AttentionView
from experiments.measures.alignments import Alignment, Picks, crossings
from experiments.measures.scores import (
    ALL,
    BINS,
    FEWEST_SENTENCES,
    OVER_20,
    RESAMPLES,
    Scores,
    SystemOutput,
    score_systems,
    word_count,
)
from experiments.reports.curves import Curve, training_curves
from experiments.reports.environment import Environment, environment
from experiments.reports.figures import alignment_maps, bleu_by_length
from experiments.reports.observations import duration, observations
from experiments.reports.report import (
    NOTHING,
    Finding,
    Picture,
    Report,
    Table,
    bullets,
    escaped,
    score_cell,
)
from experiments.reports.terminal import draw_alignment

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
    seen = observations(scores, outputs.curves)
    examples = [*outputs.examples, *_test_examples(outputs)]
    return Report(
        title="English to French: what attention is worth, by the length of the sentence",
        findings={
            "data": outputs.data,
            "systems": [_without_translations(system) for system in outputs.systems],
            "scores": scores,
            "observations": seen,
            "curves": outputs.curves,
            "picks": outputs.picks,
            "examples": examples,
            "command": outputs.command,
            "seed": outputs.seed,
        },
        body=[
            f"## Question\n\n{QUESTION}",
            f"## Data\n\n{_data(outputs.data)}",
            "## Systems",
            *_systems(outputs),
            *_results(scores),
            *(["## Observations", Finding(bullets(seen))] if seen else []),
            *_alignments(outputs.picks),
            "\n\n".join(["## Examples", CHOSEN, *(_example(e, outputs.systems) for e in examples)]),
            f"## Caveats\n\n{bullets(CAVEATS)}",
            f"## How to repeat it\n\n{_repeat(outputs, place)}",
            f"## What to try next\n\n{bullets(NEXT_STEPS)}",
        ],
        files={TRANSLATIONS: _translations(outputs), **_page(outputs)},
        decimals=None,
        environment=place,
    )


def score_table(scores: Scores) -> Table:
    """BLEU by length, one column a system."""
    header = ["source words", "sentences", *(table.system for table in scores.tables)]
    rows: list[list[str]] = []
    for length_bin in (*BINS, OVER_20, ALL):
        row = [table.row(length_bin.label) for table in scores.tables]
        rows.append(
            [
                length_bin.label,
                f"{row[0].sentences:,}",
                *(score_cell(r.bleu, r.interval) for r in row),
            ]
        )
    rows.append(["chrF, all", "", *(f"{table.chrf:.1f}" for table in scores.tables)])
    return Table(header, rows, "BLEU (95 % interval) by source length")


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
    """The alignments of the report on a page of the attention viewer."""
    picked = () if outputs.picks is None else outputs.picks.alignments
    drawn = [(" ".join(one.source), one) for one in picked]
    drawn += [(example.title, example.alignment) for example in outputs.examples]
    views = [
        AttentionView.from_weights(one.weights, one.generated, key_tokens=one.source, title=title)
        for title, one in drawn
        if one is not None and one.generated
    ]
    if not picked or not views:
        return {}
    readings = tuple(reading for view in views for reading in view.readings)
    note = "The attention weights from each generated word to each source word."
    page = AttentionView(readings, "Alignments of test sentences", note).to_html()
    return {PAGE: page.encode()}


def _translations(outputs: Outputs) -> bytes:
    lines = []
    for i, (source, reference) in enumerate(zip(outputs.sources, outputs.references, strict=True)):
        translations = {system.name: system.translations[i] for system in outputs.systems}
        line = {"source": source, "reference": reference, **translations}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return "".join(lines).encode()


def _data(data: DataNote) -> str:
    return (
        f"{escaped(data.name)} ({escaped(data.licence)}): {data.train:,} sentence pairs to train, "
        f"{data.validation:,} to validate, {data.test:,} to test. {escaped(data.rule)}"
    )


def _systems(outputs: Outputs) -> Iterator[Table | Picture]:
    yield Table(
        ["system", "parameters", "training", "what it is"],
        [
            [s.name, f"{s.parameters:,}", duration(s.seconds), escaped(s.note)]
            for s in outputs.systems
        ],
    )
    if outputs.curves:
        caption = "Loss against the step, training and validation"
        yield Picture("training.png", training_curves(outputs.curves), caption)


def _results(scores: Scores) -> Iterator[str | Table | Picture]:
    yield f"""\
## Results

BLEU by the number of words in the source, with its 95 % interval (percentile bootstrap over test
sentences, {RESAMPLES:,} resamples). {NOTHING} is an empty bin; a bin of fewer than
{FEWEST_SENTENCES} sentences has no interval and is not drawn."""
    yield score_table(scores)
    yield bullets([f"BLEU: `{scores.bleu_signature}`", f"chrF: `{scores.chrf_signature}`"])
    figure = bleu_by_length(scores.tables)
    yield Picture("bleu_by_length.png", figure, "BLEU against source length, a line a system")


def _alignments(picks: Picks | None) -> Iterator[str | Picture]:
    if picks is None:
        return
    if not picks.alignments:
        yield f"## Alignments\n\n{picks.rule}"
        return
    swaps = []
    for letter, alignment in zip("abcdefghijklmnopqrstuvwxyz", picks.alignments, strict=False):
        for found in crossings(alignment):
            second, first = map(escaped, alignment.source[found.column : found.column + 2])
            one, two = map(escaped, alignment.generated[found.row : found.row + 2])
            swaps.append(f"({letter}) *{one} {two}* attend to *{first}*, then *{second}*")
    listed = f"\n\nSwaps: {'; '.join(swaps)}." if swaps else ""
    yield f"""\
## Alignments

{picks.rule} Weights are between words: those of the subwords of a source word are summed, those of
the subwords of a generated word averaged.{listed}"""
    caption = "Attention weights, a row a generated word, a column a source word"
    yield Picture("alignments.png", alignment_maps(picks.alignments), caption)
    yield f"[These and the lecture's sentence on a page]({PAGE}), with every weight."


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


def _repeat(outputs: Outputs, place: Environment) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in place.versions.items())
    facts = {
        "date": place.date,
        "commit": place.commit or "unknown (not a git checkout)",
        "seed": str(outputs.seed),
        "python": f"{place.python}, {versions}",
        "machine": f"{place.processor}, {place.cores} cores, {place.platform}",
        "trained on": place.device,
    }
    listed = bullets([f"{name}: {escaped(fact)}" for name, fact in facts.items()])
    return f"```sh\n{outputs.command}\n```\n\n{listed}"
