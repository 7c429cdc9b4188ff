"""How much attention improves translation, by the length of the sentence.

    .venv/bin/python -m experiments.translate  # the same as `make run`
    .venv/bin/python -m experiments.translate --preset smoke  # a test run, one minute
    .venv/bin/python -m experiments.translate sample --run runs/translate-docs-quick "A sentence."

Bahdanau, Cho and Bengio, "Neural Machine Translation by Jointly Learning to Align and Translate"
(2014), figures 2 and 3, https://arxiv.org/abs/1409.0473, at a small scale: several systems are
trained to translate English to French on the same sentences; the report has BLEU by the length of
the sentence and alignments of test sentences. If interrupted, run the same command again: it
resumes from the last checkpoint.
"""

import dataclasses
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from rich.console import Console

from experiments.command_line.errors import exit_on_user_error
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
    identity,
    prepare_corpus,
    prepare_vocabulary,
    reserve_directory,
)
from experiments.training.settings import Settings, from_command_line
from experiments.training.task import Task
from experiments.training.train import fit

LECTURE = "The cat that was sitting on the mat, which was next to the dog, jumped."


@dataclass(frozen=True)
class RunContext:
    """The inputs that all systems of a run share.

    Attributes:
      settings: of the run.
      corpus: the part that the run's rule keeps.
      vocabulary: the tokenizers of both languages.
      console: for messages.
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
        """The test sentences of any length."""
        sources = [encode(self.vocabulary.english, pair.source) for pair in self.corpus.test]
        examples = [batches.Example(source, []) for source in sources]
        shapes = batches.choose_shapes(examples, self.settings.shapes)
        return batches.evaluation_batches(
            examples, batch_size=self.settings.train.batch_size, shapes=shapes
        )


@dataclass(frozen=True)
class Outcome:
    """A system's part of the report: translations, the lecture's sentence, and alignments."""

    output: SystemOutput
    lecture: str
    alignments: tuple[Alignment, ...] = ()
    lecture_alignment: Alignment | None = None


def run(settings: Settings, command: str, console: Console) -> None:
    """Trains every system of the settings, translates the test set, and writes the report."""
    with locked(settings.directory):
        reserve_directory(settings)
        corpus = prepare_corpus(settings)
        console.print(corpus.note, soft_wrap=True)
        vocabulary = prepare_vocabulary(corpus, settings)
        context = RunContext(settings, corpus, vocabulary, console)
        outcomes = {}
        for name in settings.systems:
            console.rule(SYSTEMS[name].label, align="left")
            outcomes[name] = lexicon(context) if name == "lexicon" else network(context, name)
        directory = settings.directory / "report"
        publish(make_report(outputs(context, outcomes, command)), directory, console)
        if (system := settings.systems[-1]) in ("bahdanau", "luong", "transformer"):
            arguments = ["sample", "--run", str(settings.directory), "--system", system]
            arguments.append(question(context))
            console.print("Next, translate a sentence:", soft_wrap=True)
            console.print(shell_command("translate", arguments), markup=False, soft_wrap=True)


def question(context: RunContext) -> str:
    """The lecture's sentence, or if it is too long, the first test sentence that is not."""
    english, longest = context.vocabulary.english, context.settings.longest
    sentences = (LECTURE, *(pair.source for pair in context.corpus.test))
    return next((s for s in sentences if len(encode(english, s)) <= longest), LECTURE)


def lexicon(context: RunContext) -> Outcome:
    """The word-by-word system: the likeliest translation of each word, in source order."""
    context.console.print(f"fitting IBM model 1 to {len(context.corpus.train):,} sentence pairs …")
    began = time.monotonic()
    pairs = [(tokenize(pair.source), tokenize(pair.target)) for pair in context.corpus.train]
    words = train_lexicon(pairs)
    seconds = time.monotonic() - began

    def translated(sentence: str) -> str:
        return detokenize(words.translate(tokenize(sentence)))

    translations = tuple(translated(pair.source) for pair in context.corpus.test)
    system = SYSTEMS["lexicon"]
    output = SystemOutput(system.label, translations, seconds, len(words.table), system.note)
    return Outcome(output, translated(LECTURE))


def network(context: RunContext, name: str) -> Outcome:
    """A network: trained or loaded, then applied to every test sentence."""
    settings, vocabulary, console = context.settings, context.vocabulary, context.console
    net = Network.of(model_config(name, settings.widths_of(name), vocabulary.sizes))
    directory = settings.directory / name
    result = fit(
        training_task(context, name, net),
        settings.train,
        directory,
        console=console,
        fresh=settings.fresh,
    )
    console.print(
        f"translating {len(context.corpus.test):,} test sentences, beam {settings.beam.width} …"
    )
    targets = translate(net, result.params, context.test_batches, settings.beam)
    translations = tuple(decode(vocabulary.french, target) for target in targets)
    line = note(name, settings.widths_of(name))
    output = SystemOutput(SYSTEMS[name].label, translations, result.seconds, net.size, line)
    source = encode(vocabulary.english, LECTURE)
    lecture, alignment = translate_one(net, result.params, vocabulary, source, settings.beam)
    if name == "final":
        return Outcome(output, lecture)
    weights = align(net, result.params, context.test_batches, targets)
    alignments = tuple(
        word_alignment(vocabulary, encode(vocabulary.english, pair.source), target, weight)
        for pair, target, weight in zip(context.corpus.test, targets, weights, strict=True)
        if target
    )
    return Outcome(output, lecture, alignments, alignment)


def training_task(context: RunContext, name: str, net: Network) -> Task:
    """The training task of a network on the run's sentences."""
    settings, train = context.settings, context.settings.train
    examples, dropped = context.encoded("train", settings.longest)
    shapes = batches.choose_shapes(examples, settings.shapes)
    validation = context.encoded("validation", settings.longest).examples
    held_out = batches.evaluation_batches(
        validation, batch_size=train.batch_size, shapes=batches.choose_shapes(validation, 1)
    )
    context.console.print(
        f"{len(examples):,} training pairs ({dropped:,} longer than {settings.longest} tokens left "
        f"out), {train.steps * train.batch_size / len(examples):.1f} epochs, "
        f"{net.size:,} parameters",
        soft_wrap=True,
    )
    return Task(
        name=SYSTEMS[name].label,
        config={
            **identity(settings),
            "model": dataclasses.asdict(net.config),
            "vocabulary": context.vocabulary.fingerprint,
            "sentences": len(examples),
        },
        init=net.init,
        loss=net.loss,
        dataset=batches.training_batches(
            examples, batch_size=train.batch_size, shapes=shapes, seed=train.seed
        ),
        validate=net.validation([batch for batch, _ in held_out]),
    )


def outputs(context: RunContext, outcomes: dict[str, Outcome], command: str) -> Outputs:
    """The content of the report; alignments are those of the first system that has them."""
    corpus, settings = context.corpus, context.settings
    aligned = [outcome for outcome in outcomes.values() if outcome.alignments]
    lecture = Example(
        "The lecture's sentence (not from this corpus: manuals do not mention cats)",
        LECTURE,
        {outcome.output.name: outcome.lecture for outcome in outcomes.values()},
        alignment=aligned[0].lecture_alignment if aligned else None,
    )
    other_alignments = (
        Example(
            f"The lecture's sentence, alignment of {outcome.output.name}",
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
        examples=(lecture, *other_alignments),
    )


def main(arguments: Sequence[str]) -> None:
    """Runs the experiment, or `sample`; errors that a user can correct are one line on stderr."""
    console = Console(highlight=False)
    with exit_on_user_error():
        if arguments[:1] == ["sample"]:
            sample(arguments[1:], console)
        else:
            run(from_command_line(arguments), shell_command("translate", arguments), console)


if __name__ == "__main__":
    main(sys.argv[1:])
