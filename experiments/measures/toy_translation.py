"""An encoder–decoder for pairs of word sequences: training, translations and their alignments.

The tasks are small: every word is a token, all sentences are padded to one shape, and decoding is
greedy.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree
from rich.console import Console

from attn_jax.models import EOS, UNK, Trace, greedy_search
from experiments.data.batches import Example, choose_shapes, evaluation_batches, training_batches
from experiments.measures.alignments import Alignment
from experiments.measures.decode import align, before_eos, in_example_order, longest_target
from experiments.systems.translation import (
    SYSTEMS,
    Network,
    TransformerWidths,
    Widths,
    model_config,
)
from experiments.training.task import Task, TrainConfig
from experiments.training.train import fit
from experiments.training.whole_run import Part

type Words = tuple[str, ...]
type Ids = Int[Array, "B S"]
type Mask = Bool[Array, "B S"]

FIRST_WORD_ID = UNK + 1
EVALUATION_BATCH = 64  # sentences translated in one batch


@dataclass(frozen=True)
class Vocabulary:
    """All words of one language; ids follow the special tokens in the order of `words`."""

    words: Words

    @classmethod
    def of(cls, sequences: Iterable[Words]) -> "Vocabulary":
        """Every word of the sequences, in alphabetical order."""
        return cls(tuple(sorted({word for sequence in sequences for word in sequence})))

    @property
    def size(self) -> int:
        """Number of ids, special tokens included."""
        return FIRST_WORD_ID + len(self.words)

    def encode(self, sequence: Words) -> list[int]:
        """The ids of a sequence.

        Raises:
          ValueError: a word is not in the vocabulary.
        """
        unknown = sorted(set(sequence) - set(self.words))
        if unknown:
            raise ValueError(f"{unknown} are not among the {len(self.words)} words of the task")
        return [FIRST_WORD_ID + self.words.index(word) for word in sequence]

    def decode(self, ids: Iterable[int]) -> Words:
        """The words of a sequence of ids; a special token becomes «?»."""
        return tuple(self.words[i - FIRST_WORD_ID] if i >= FIRST_WORD_ID else "?" for i in ids)


@dataclass(frozen=True)
class TrainingPairs:
    """The training pairs, and the shapes for training and translation.

    Attributes:
      pairs: source and target words.
      longest: words of the longest source that will be translated.
      shapes: number of padded shapes of training batches, each compiled once.
    """

    pairs: Sequence[tuple[Words, Words]]
    longest: int
    shapes: int = 3

    def fingerprint(self) -> str:
        """A hash of the pairs; a stored run resumes only with the same."""
        return hashlib.sha256(json.dumps(self.pairs).encode()).hexdigest()


@dataclass(frozen=True)
class Translator:
    """A trained network with its vocabularies.

    Attributes:
      network: the model without its parameters.
      params: the trained parameters.
      source: vocabulary of the sources.
      target: vocabulary of the targets.
      longest: words of the longest source; all are padded to it and compiled once.
      seconds: training time.
    """

    network: Network
    params: PyTree
    source: Vocabulary
    target: Vocabulary
    longest: int
    seconds: float

    def translate(self, sources: Sequence[Words]) -> list[Alignment]:
        """Greedy translations and their attention weights.

        Raises:
          ValueError: a source is longer than `longest`, or has an unknown word.
        """
        examples = [Example(self.source.encode(source), []) for source in sources]
        shape = (self.longest, longest_target(self.longest))
        found: dict[int, Alignment] = {}
        for batch, index in evaluation_batches(
            examples, batch_size=EVALUATION_BATCH, shapes=[shape]
        ):
            trace = self._search(self.params, batch.source, batch.source_mask)
            for i, target, weights in zip(
                index.tolist(), np.asarray(trace.target), np.asarray(trace.weights), strict=True
            ):
                if i >= 0:
                    output = before_eos(target)
                    inside = weights[: len(output), : len(sources[i])].astype(np.float64)
                    found[i] = Alignment(sources[i], self.target.decode(output), inside)
        return in_example_order(found)

    def align(self, pairs: Sequence[tuple[Words, Words]]) -> list[Alignment]:
        """The attention weights for given targets (teacher forcing)."""
        examples = [Example(self.source.encode(source), []) for source, _ in pairs]
        shape = (self.longest, longest_target(self.longest))
        batches = evaluation_batches(examples, batch_size=EVALUATION_BATCH, shapes=[shape])
        targets = [self.target.encode(target) for _, target in pairs]
        found = align(self.network, self.params, batches, targets)
        return [
            Alignment(source, target, weights[:-1].astype(np.float64))  # the last row is EOS
            for (source, target), weights in zip(pairs, found, strict=True)
        ]

    @cached_property
    def _search(self) -> Callable[[PyTree, Ids, Mask], Trace]:
        def search(params: PyTree, source: Ids, source_mask: Mask) -> Trace:
            model = self.network.model(params)
            one = partial(greedy_search, model, max_length=longest_target(self.longest))
            return jax.vmap(one)(source, source_mask)

        return jax.jit(search)


def train_translator(
    data: TrainingPairs,
    system: str,
    widths: Widths | TransformerWidths,
    config: TrainConfig,
    directory: Path,
    *,
    console: Console | None = None,
    fresh: bool = False,
    part: Part | None = None,
) -> Translator:
    """Trains one of the `SYSTEMS` on pairs of word sequences in `directory`, or resumes there.

    Args:
      data: the training pairs.
      system: "final", "bahdanau", "luong" or "transformer".
      widths: of the network.
      config: training settings.
      directory: of this run alone.
      console: where to show progress; None for nowhere.
      fresh: remove an earlier run in `directory` first.
      part: the part of a longer run that this training is, for the estimate of the time left.
    """
    sources, targets = zip(*data.pairs, strict=True)
    source, target = Vocabulary.of(sources), Vocabulary.of(targets)
    network = Network.of(model_config(system, widths, (source.size, target.size)))
    examples = [Example(source.encode(s), [*target.encode(t), EOS]) for s, t in data.pairs]
    batches = training_batches(
        examples,
        batch_size=config.batch_size,
        shapes=choose_shapes(examples, data.shapes),
        seed=config.seed,
    )
    identity = {"model": asdict(network.config), "pairs": data.fingerprint()}
    task = Task(SYSTEMS[system].label, identity, network.init, network.loss, batches)
    result = fit(task, config, directory, console=console, fresh=fresh, part=part)
    return Translator(network, result.params, source, target, data.longest, result.seconds)
