"""An encoder–decoder learned from pairs of word sequences, and what it then says and reads.

The tasks of the lecture are small: every word is a token, every sentence fits one shape, and a
translation is found greedily together with the attention that made it.
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
from experiments.measures.decode import align, in_order, longest_target, until_end
from experiments.systems.translation import (
    SYSTEMS,
    Network,
    TransformerWidths,
    Widths,
    model_config,
)
from experiments.training.task import Task, TrainConfig
from experiments.training.train import fit

type Words = tuple[str, ...]
type Ids = Int[Array, "B S"]
type Mask = Bool[Array, "B S"]

FIRST_WORD = UNK + 1
TOGETHER = 64  # sentences translated at once


@dataclass(frozen=True)
class Vocabulary:
    """All words of one side; the id of a word is its place, after the special tokens."""

    words: Words

    @classmethod
    def of(cls, sequences: Iterable[Words]) -> "Vocabulary":
        """Every word of the sequences, in alphabetical order."""
        return cls(tuple(sorted({word for sequence in sequences for word in sequence})))

    @property
    def size(self) -> int:
        """Number of ids, special tokens included."""
        return FIRST_WORD + len(self.words)

    def encode(self, sequence: Words) -> list[int]:
        """The ids of a sequence.

        Raises:
          ValueError: a word is not in the vocabulary.
        """
        unknown = sorted(set(sequence) - set(self.words))
        if unknown:
            raise ValueError(f"{unknown} are not among the {len(self.words)} words of the task")
        return [FIRST_WORD + self.words.index(word) for word in sequence]

    def decode(self, ids: Iterable[int]) -> Words:
        """The words of a sequence of ids; a special token, which is no word, is written «?»."""
        return tuple(self.words[i - FIRST_WORD] if i >= FIRST_WORD else "?" for i in ids)


@dataclass(frozen=True)
class Lesson:
    """What is learned, and what will be asked.

    Attributes:
      pairs: source and target words to learn from.
      longest: words of the longest source that will be asked for.
      shapes: padded lengths of the training batches, each compiled once.
    """

    pairs: Sequence[tuple[Words, Words]]
    longest: int
    shapes: int = 3

    def fingerprint(self) -> str:
        """What a stored run must have learned from, to go on."""
        return hashlib.sha256(json.dumps(self.pairs).encode()).hexdigest()


@dataclass(frozen=True)
class Translator:
    """A trained network with its vocabularies.

    Attributes:
      network: the model without its parameters.
      params: what it learned.
      source: words it can read.
      target: words it can say.
      longest: the longest source it will be given; all are padded to this, for one compile.
      seconds: how long it trained.
    """

    network: Network
    params: PyTree
    source: Vocabulary
    target: Vocabulary
    longest: int
    seconds: float

    def translate(self, sources: Sequence[Words]) -> list[Alignment]:
        """What the network says, greedily, and what it reads for each word of that.

        Raises:
          ValueError: a source is longer than `longest`, or has an unknown word.
        """
        examples = [Example(self.source.encode(source), []) for source in sources]
        shape = (self.longest, longest_target(self.longest))
        found: dict[int, Alignment] = {}
        for batch, index in evaluation_batches(examples, batch_size=TOGETHER, shapes=[shape]):
            trace = self._search(self.params, batch.source, batch.source_mask)
            for i, target, weights in zip(
                index.tolist(), np.asarray(trace.target), np.asarray(trace.weights), strict=True
            ):
                if i >= 0:
                    said = until_end(target)
                    read = weights[: len(said), : len(sources[i])].astype(np.float64)
                    found[i] = Alignment(sources[i], self.target.decode(said), read)
        return in_order(found)

    def align(self, pairs: Sequence[tuple[Words, Words]]) -> list[Alignment]:
        """What the network reads while it is made to say the target of each pair."""
        examples = [Example(self.source.encode(source), []) for source, _ in pairs]
        shape = (self.longest, longest_target(self.longest))
        batches = evaluation_batches(examples, batch_size=TOGETHER, shapes=[shape])
        targets = [self.target.encode(target) for _, target in pairs]
        read = align(self.network, self.params, batches, targets)
        return [
            Alignment(source, target, weights[:-1].astype(np.float64))  # the last row is EOS
            for (source, target), weights in zip(pairs, read, strict=True)
        ]

    @cached_property
    def _search(self) -> Callable[[PyTree, Ids, Mask], Trace]:
        def search(params: PyTree, source: Ids, source_mask: Mask) -> Trace:
            model = self.network.model(params)
            one = partial(greedy_search, model, max_length=longest_target(self.longest))
            return jax.vmap(one)(source, source_mask)

        return jax.jit(search)


def teach(
    lesson: Lesson,
    system: str,
    widths: Widths | TransformerWidths,
    config: TrainConfig,
    directory: Path,
    *,
    console: Console | None = None,
    fresh: bool = False,
) -> Translator:
    """Trains one of the `SYSTEMS` on pairs of word sequences, in `directory`, or goes on there.

    Args:
      lesson: what to learn.
      system: "final", "bahdanau", "luong" or "transformer".
      widths: of the network.
      config: how to train.
      directory: of this training alone.
      console: where progress is shown; None is silence.
      fresh: forget an earlier training in `directory`.
    """
    sources, targets = zip(*lesson.pairs, strict=True)
    source, target = Vocabulary.of(sources), Vocabulary.of(targets)
    network = Network.of(model_config(system, widths, (source.size, target.size)))
    examples = [Example(source.encode(s), [*target.encode(t), EOS]) for s, t in lesson.pairs]
    batches = training_batches(
        examples,
        batch_size=config.batch_size,
        shapes=choose_shapes(examples, lesson.shapes),
        seed=config.seed,
    )
    identity = {"model": asdict(network.config), "pairs": lesson.fingerprint()}
    task = Task(SYSTEMS[system].label, identity, network.init, network.loss, batches)
    result = fit(task, config, directory, console=console, fresh=fresh)
    return Translator(network, result.params, source, target, lesson.longest, result.seconds)
