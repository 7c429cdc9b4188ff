"""The outcome of each system in a run of `translate`: training, translations and alignments."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jaxtyping import PyTree
from rich.console import Console

from experiments.data import batches
from experiments.data.corpora import Corpus
from experiments.data.tokens import decode, encode
from experiments.data.words import detokenize, tokenize
from experiments.measures import outcomes
from experiments.measures.alignments import Alignment, pick_alignments, word_alignment
from experiments.measures.decode import align, traces, translate
from experiments.measures.outcomes import Outcome, TracedSentence, code_digest
from experiments.measures.scores import SystemOutput
from experiments.systems.lexicon import train_lexicon
from experiments.systems.translation import SYSTEMS, Network, model_config, note
from experiments.training import checkpoints
from experiments.training.progress import show_progress
from experiments.training.runs import CHECKPOINTS
from experiments.training.sentences import Vocabulary, identity
from experiments.training.settings import Beam, Settings
from experiments.training.task import Task
from experiments.training.train import fit
from experiments.training.whole_run import WholeRun

LECTURE = "The cat that was sitting on the mat, which was next to the dog, jumped."


@dataclass(frozen=True)
class RunContext:
    """The inputs that all systems of a run share.

    Attributes:
      settings: of the run.
      corpus: the part that the run's rule keeps.
      vocabulary: the tokenizers of both languages.
      console: for messages.
      whole: the expected time of the run.
    """

    settings: Settings
    corpus: Corpus
    vocabulary: Vocabulary
    console: Console
    whole: WholeRun

    def finish(self, name: str, *, is_translated: bool) -> None:
        """Counts the training of a system, and its translations, as done by an earlier run."""
        if name != "lexicon":
            self.whole.part(f"train {name}").start(1.0)
            if is_translated:
                self.whole.part(f"translate {name}").start(1.0)

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


def stored_outcome(context: RunContext, name: str) -> Outcome | None:
    """The outcome of a system from an earlier run of the same command; None if there is none."""
    key = outcome_key(context, name)
    if key is None:
        return None
    outcome = outcomes.load(context.settings.directory / name, key)
    context.finish(name, is_translated=outcome is not None)
    return outcome


def measured_outcome(context: RunContext, name: str) -> Outcome:
    """The outcome of a system, measured and stored; a network is trained first."""
    outcome = lexicon(context) if name == "lexicon" else network(context, name)
    key = outcome_key(context, name)
    assert key is not None  # the network is trained
    outcomes.store(context.settings.directory / name, key, outcome)
    return outcome


def outcome_key(context: RunContext, name: str) -> dict[str, Any] | None:
    """What the outcome of a system depends on; None if its network is not trained to the end."""
    corpus, settings = context.corpus, context.settings
    if name == "lexicon":
        return {
            "code": code_digest(),
            "sentences": _fingerprint([corpus.train, corpus.test, LECTURE]),
        }
    checkpoint = checkpoints.newest(settings.directory / name / CHECKPOINTS)
    if checkpoint is None or checkpoint.step < settings.train.steps:
        return None
    return {
        "code": code_digest(),
        "checkpoint": checkpoint.fingerprint,
        "beam": dataclasses.asdict(settings.beam),
        "sentences": _fingerprint([corpus.test, LECTURE]),
    }


def _fingerprint(sentences: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(sentences).encode()).hexdigest()[:16]


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
    result = fit(
        training_task(context, name, net),
        settings.train,
        settings.directory / name,
        console=console,
        fresh=settings.fresh,
        part=context.whole.part(f"train {name}"),
    )
    console.print(
        f"translating {len(context.corpus.test):,} test sentences, beam {settings.beam.width} …"
    )
    part = context.whole.part(f"translate {name}")
    with show_progress(console, part=part, unit="sentence") as progress:
        targets = translate(net, result.params, context.test_batches, settings.beam, progress)
    translations = tuple(decode(vocabulary.french, target) for target in targets)
    line = note(name, settings.widths_of(name))
    output = SystemOutput(SYSTEMS[name].label, translations, result.seconds, net.size, line)
    source = encode(vocabulary.english, LECTURE)
    title = f"{SYSTEMS[name].label}: the lecture's sentence"
    text, alignment, traced = translate_one(
        net, result.params, vocabulary, source, settings.beam, title
    )
    if name == "final":
        return Outcome(output, text, traced=(traced,))
    outcome = Outcome(output, text, lecture_alignment=alignment, traced=(traced,))
    return with_alignments(context, net, result.params, targets, outcome)


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


def translate_one(
    net: Network,
    params: PyTree,
    vocabulary: Vocabulary,
    source: list[int],
    beam: Beam,
    title: str = "Your sentence",
) -> tuple[str, Alignment, TracedSentence]:
    """The translation of one encoded sentence, its alignment between words, and its trace."""
    length = -(-len(source) // 8) * 8  # a multiple of 8, so that few lengths are compiled
    one = batches.evaluation_batches(
        [batches.Example(source, [])], batch_size=1, shapes=[(length, 1)]
    )
    [target] = translate(net, params, one, beam)
    fields = traces(net, params, one, [target], [0])[0]
    alignment = word_alignment(vocabulary, source, target, fields["weights"])
    traced = TracedSentence.of(title, vocabulary, source, target, fields)
    return decode(vocabulary.french, target), alignment, traced


def with_alignments(
    context: RunContext, net: Network, params: PyTree, targets: list[list[int]], outcome: Outcome
) -> Outcome:
    """The outcome of a system, with alignments of test sentences and their traces."""
    vocabulary, tests = context.vocabulary, context.corpus.test
    sources = [encode(vocabulary.english, pair.source) for pair in tests]
    weights = align(net, params, context.test_batches, targets)
    alignments = {
        i: word_alignment(vocabulary, sources[i], target, weights[i])
        for i, target in enumerate(targets)
        if target
    }
    picks = pick_alignments([*alignments.values()])
    chosen = tuple([*alignments][place] for place in picks.places)
    picks = dataclasses.replace(picks, places=chosen)  # in the test set
    fields = traces(net, params, context.test_batches, targets, chosen)
    traced = [
        TracedSentence.of(
            f"{outcome.output.name}: test sentence {i + 1}",
            vocabulary,
            sources[i],
            targets[i],
            fields[i],
        )
        for i in chosen
    ]
    return dataclasses.replace(outcome, picks=picks, traced=(*traced, *outcome.traced))
