"""The main job: is a sentence's last state enough to translate it, or must the decoder look back?

    .venv/bin/python -m experiments.translate  # what `make run` does
    .venv/bin/python -m experiments.translate --preset smoke  # the same in a minute
    .venv/bin/python -m experiments.translate sample --run runs/translate-docs-quick "A sentence."

Bahdanau, Cho and Bengio, "Neural Machine Translation by Jointly Learning to Align and Translate"
(2014), figures 2 and 3, https://arxiv.org/abs/1409.0473, in small: several systems learn English to
French from the same sentences; then BLEU is shown by the length of the sentence, and alignments of
test sentences are drawn. Whatever is interrupted goes on when the same command is run again.
"""

import dataclasses
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from rich.console import Console

from experiments.command_line.errors import mendable_errors
from experiments.command_line.options import shell_command
from experiments.data import batches
from experiments.data.corpora import Corpus
from experiments.data.tokens import decode, encode
from experiments.data.words import detokenize, tokenize
from experiments.measures.alignments import Alignment, pick_alignments, word_alignment
from experiments.measures.decode import align, translate
from experiments.measures.scores import SystemOutput
from experiments.reports.curves import read_curve
from experiments.reports.report import publish
from experiments.reports.sample import sample, translate_one
from experiments.reports.translation_report import DataNote, Example, Outputs, make_report
from experiments.systems.lexicon import train_lexicon
from experiments.systems.translation import SYSTEMS, Network, model_config, note
from experiments.training.runs import METRICS, locked
from experiments.training.sentences import (
    Vocabulary,
    claim,
    identity,
    prepare_corpus,
    prepare_vocabulary,
)
from experiments.training.settings import Settings, from_command_line
from experiments.training.task import Task
from experiments.training.train import fit

LECTURE = "The cat that was sitting on the mat, which was next to the dog, jumped."


@dataclass(frozen=True)
class Bench:
    """What every system of a run works on.

    Attributes:
      settings: of the run.
      corpus: cut down by the run's rule.
      vocabulary: the word pieces of both languages.
      console: where to talk.
    """

    settings: Settings
    corpus: Corpus
    vocabulary: Vocabulary
    console: Console

    def encoded(self, split: str, longest: int) -> batches.Encoded:
        """A split of the corpus as ids."""
        return batches.encode_pairs(
            getattr(self.corpus, split),
            self.vocabulary.english,
            self.vocabulary.french,
            max_source=longest,
            max_target=longest,
        )

    @cached_property
    def test_batches(self) -> list[batches.EvaluationBatch]:
        """The test sentences, whatever their length."""
        sources = [encode(self.vocabulary.english, pair.source) for pair in self.corpus.test]
        examples = [batches.Example(source, []) for source in sources]
        shapes = batches.choose_shapes(examples, self.settings.shapes)
        return batches.evaluation_batches(
            examples, batch_size=self.settings.train.batch_size, shapes=shapes
        )


@dataclass(frozen=True)
class Outcome:
    """What a system contributes to the report: its test set, the lecture's sentence, alignments."""

    output: SystemOutput
    lecture: str
    alignments: tuple[Alignment, ...] = ()
    lecture_alignment: Alignment | None = None


def run(settings: Settings, command: str, console: Console) -> None:
    """Trains, translates and reports every system of the settings."""
    with locked(settings.directory):
        claim(settings)
        corpus = prepare_corpus(settings)
        console.print(corpus.note, soft_wrap=True)
        vocabulary = prepare_vocabulary(corpus, settings)
        bench = Bench(settings, corpus, vocabulary, console)
        outcomes = {}
        for name in settings.systems:
            console.rule(SYSTEMS[name].label, align="left")
            outcomes[name] = lexicon(bench) if name == "lexicon" else network(bench, name)
        directory = settings.directory / "report"
        publish(make_report(outputs(bench, outcomes, command)), directory, console)
        if (system := settings.systems[-1]) in ("bahdanau", "luong", "transformer"):
            asked = ["sample", "--run", str(settings.directory), "--system", system]
            asked.append(question(bench))
            console.print("Next, ask it something:", soft_wrap=True)
            console.print(shell_command("translate", asked), markup=False, soft_wrap=True)


def question(bench: Bench) -> str:
    """What a reader may ask next: the lecture's sentence, or one as long as the networks allow."""
    english, longest = bench.vocabulary.english, bench.settings.longest
    sentences = (LECTURE, *(pair.source for pair in bench.corpus.test))
    return next((s for s in sentences if len(encode(english, s)) <= longest), LECTURE)


def lexicon(bench: Bench) -> Outcome:
    """Word by word: the likeliest translation of each word, in source order."""
    bench.console.print(f"fitting IBM model 1 to {len(bench.corpus.train):,} sentence pairs …")
    began = time.monotonic()
    pairs = [(tokenize(pair.source), tokenize(pair.target)) for pair in bench.corpus.train]
    words = train_lexicon(pairs)
    seconds = time.monotonic() - began

    def say(sentence: str) -> str:
        return detokenize(words.translate(tokenize(sentence)))

    translations = tuple(say(pair.source) for pair in bench.corpus.test)
    system = SYSTEMS["lexicon"]
    output = SystemOutput(system.label, translations, seconds, len(words.table), system.note)
    return Outcome(output, say(LECTURE))


def network(bench: Bench, name: str) -> Outcome:
    """A network: trained, or found trained, then asked for every test sentence."""
    settings, vocabulary, console = bench.settings, bench.vocabulary, bench.console
    net = Network.of(model_config(name, settings.widths_of(name), vocabulary.sizes))
    directory = settings.directory / name
    result = fit(
        training_task(bench, name, net),
        settings.train,
        directory,
        console=console,
        fresh=settings.fresh,
    )
    console.print(
        f"translating {len(bench.corpus.test):,} test sentences, beam {settings.beam.width} …"
    )
    targets = translate(net, result.params, bench.test_batches, settings.beam)
    translations = tuple(decode(vocabulary.french, target) for target in targets)
    line = note(name, settings.widths_of(name))
    output = SystemOutput(SYSTEMS[name].label, translations, result.seconds, net.size, line)
    source = encode(vocabulary.english, LECTURE)
    lecture, alignment = translate_one(net, result.params, vocabulary, source, settings.beam)
    if name == "final":
        return Outcome(output, lecture)
    weights = align(net, result.params, bench.test_batches, targets)
    alignments = tuple(
        word_alignment(vocabulary, encode(vocabulary.english, pair.source), target, weight)
        for pair, target, weight in zip(bench.corpus.test, targets, weights, strict=True)
        if target
    )
    return Outcome(output, lecture, alignments, alignment)


def training_task(bench: Bench, name: str, net: Network) -> Task:
    """The network's task on the run's training and validation sentences."""
    settings, train = bench.settings, bench.settings.train
    examples, dropped = bench.encoded("train", settings.longest)
    shapes = batches.choose_shapes(examples, settings.shapes)
    validation = bench.encoded("validation", settings.longest).examples
    held_out = batches.evaluation_batches(
        validation, batch_size=train.batch_size, shapes=batches.choose_shapes(validation, 1)
    )
    bench.console.print(
        f"{len(examples):,} training pairs ({dropped:,} longer than {settings.longest} pieces left "
        f"out), {train.steps * train.batch_size / len(examples):.1f} epochs, "
        f"{net.size:,} parameters",
        soft_wrap=True,
    )
    return Task(
        name=SYSTEMS[name].label,
        config={
            **identity(settings),
            "model": dataclasses.asdict(net.config),
            "vocabulary": bench.vocabulary.fingerprint,
            "sentences": len(examples),
        },
        init=net.init,
        loss=net.loss,
        dataset=batches.training_batches(
            examples, batch_size=train.batch_size, shapes=shapes, seed=train.seed
        ),
        validate=net.validation([batch for batch, _ in held_out]),
    )


def outputs(bench: Bench, outcomes: dict[str, Outcome], command: str) -> Outputs:
    """What the report shows of the run; the first system that has alignments shows its own."""
    corpus, settings = bench.corpus, bench.settings
    aligned = [outcome for outcome in outcomes.values() if outcome.alignments]
    lecture = Example(
        "The lecture's sentence (not of this corpus: manuals know no cats)",
        LECTURE,
        {outcome.output.name: outcome.lecture for outcome in outcomes.values()},
        alignment=aligned[0].lecture_alignment if aligned else None,
    )
    read_otherwise = (
        Example(
            f"The lecture's sentence, as it is read by: {outcome.output.name}",
            LECTURE,
            {outcome.output.name: outcome.lecture},
            alignment=outcome.lecture_alignment,
        )
        for outcome in aligned[1:]
    )
    metrics = {name: settings.directory / name / METRICS for name in outcomes}
    return Outputs(
        data=DataNote(
            corpus.name,
            corpus.licence,
            corpus.note,
            len(corpus.train),
            len(corpus.validation),
            len(corpus.test),
        ),
        systems=tuple(outcome.output for outcome in outcomes.values()),
        sources=tuple(pair.source for pair in corpus.test),
        references=tuple(pair.target for pair in corpus.test),
        command=command,
        seed=settings.train.seed,
        curves=tuple(
            read_curve(SYSTEMS[name].label, path) for name, path in metrics.items() if path.exists()
        ),
        picks=pick_alignments(aligned[0].alignments) if aligned else None,
        examples=(lecture, *read_otherwise),
    )


def main(arguments: Sequence[str]) -> None:
    """Runs the experiment, or `sample`; errors that a user can mend are one line on stderr."""
    console = Console(highlight=False)
    with mendable_errors():
        if arguments[:1] == ["sample"]:
            sample(arguments[1:], console)
        else:
            run(from_command_line(arguments), shell_command("translate", arguments), console)


if __name__ == "__main__":
    main(sys.argv[1:])
