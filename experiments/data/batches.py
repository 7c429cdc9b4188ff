"""Sentence pairs as batches of a few fixed shapes, shuffled by a seed and resumable.

Each new shape is compiled, so every batch has one of a few shapes (S, T) that its sentences fit.
Order, epochs and state are grain's: https://google-grain.readthedocs.io.
"""

import bisect
import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import grain
import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer

from attn_jax.models import EOS, PAD, Batch
from experiments.data.corpora import Pair
from experiments.data.tokens import encode

type Shape = tuple[int, int]
"""Source length S and target length T of a batch, EOS included."""

_MULTIPLE = 4  # lengths of shapes are multiples of this


class Example(NamedTuple):
    """A sentence pair as ids; the target ends with EOS."""

    source: list[int]
    target: list[int]


class Encoded(NamedTuple):
    """The sentence pairs that fit a model.

    Attributes:
      examples: the pairs that fit, in order.
      dropped: the number of pairs that are too long.
    """

    examples: list[Example]
    dropped: int


def encode_pairs(
    pairs: Iterable[Pair],
    source_tokenizer: Tokenizer,
    target_tokenizer: Tokenizer,
    *,
    max_source: int,
    max_target: int,
) -> Encoded:
    """Sentence pairs as ids; pairs that are too long are left out and counted.

    Args:
      pairs: the sentence pairs.
      source_tokenizer: of the source language.
      target_tokenizer: of the target language.
      max_source: the most source tokens.
      max_target: the most target tokens, EOS included.

    Returns:
      The examples, and how many pairs were left out.

    Raises:
      ValueError: a limit is not positive, or a sentence is empty.
    """
    for name, limit in (("max_source", max_source), ("max_target", max_target)):
        if limit < 1:
            raise ValueError(f"{name}={limit} must be at least 1")
    examples = [
        Example(
            encode(source_tokenizer, pair.source), [*encode(target_tokenizer, pair.target), EOS]
        )
        for pair in pairs
    ]
    fitting = [e for e in examples if len(e.source) <= max_source and len(e.target) <= max_target]
    return Encoded(fitting, len(examples) - len(fitting))


def encode_one(tokenizer: Tokenizer, sentence: str, *, max_length: int) -> list[int]:
    """The ids of one source sentence to translate.

    Args:
      tokenizer: of the source language.
      sentence: input of a user.
      max_length: the most tokens the model allows.

    Returns:
      The ids, at least one.

    Raises:
      ValueError: the sentence is empty or too long.
    """
    ids = encode(tokenizer, sentence)
    if len(ids) > max_length:
        raise ValueError(f"sentence has {len(ids)} tokens, the model allows {max_length}; split it")
    return ids


def choose_shapes(examples: Sequence[Example], count: int) -> list[Shape]:
    """The `count` or fewer shapes with the least padding.

    The candidates are the quantiles 1/20, 2/20, … of both lengths; the best of them are chosen.

    Args:
      examples: the training examples.
      count: the most shapes; each is compiled once.

    Returns:
      Shapes in increasing order of both lengths; every example fits the last one.

    Raises:
      ValueError: there are no examples, or `count` is not positive.

    Example:
      >>> examples = [Example([9] * n, [9] * (n + 1)) for n in [*range(1, 20), 40]]
      >>> choose_shapes(examples, 2)
      [(20, 20), (40, 44)]
    """
    if not examples or count < 1:
        raise ValueError(f"count={count} and {len(examples)} examples; both must be at least 1")
    lengths = np.array([(len(e.source), len(e.target)) for e in examples])
    edges = np.quantile(lengths, np.arange(1, 21) / 20, axis=0, method="higher")
    candidates = sorted({(int(S), int(T)) for S, T in -(-edges // _MULTIPLE) * _MULTIPLE})
    held = np.cumsum([0, *(len(bucket) for bucket in _buckets(examples, candidates).values())])
    # best[j]: the fewest padded tokens, and their shapes, for the examples up to candidate j.
    best: dict[int, tuple[int, list[Shape]]] = {0: (0, [])}
    for _ in range(count):
        best |= {
            j: min(
                (
                    cost + int(held[j] - held[i]) * sum(candidates[j - 1]),
                    [*shapes, candidates[j - 1]],
                )
                for i, (cost, shapes) in best.items()
                if i < j
            )
            for j in range(1, len(candidates) + 1)
        }
    return best[len(candidates)][1]


def training_batches(
    examples: Sequence[Example], *, batch_size: int, shapes: Sequence[Shape], seed: int
) -> grain.IterDataset[Batch]:
    """Endless shuffled batches, each full and of one of the shapes.

    In every epoch the examples of each shape are shuffled and cut into full batches, and then all
    batches are shuffled; examples that fill no batch are left out of the epoch. Where a shape has
    too few examples for one batch, they are padded to the next larger shape that has enough.

    Args:
      examples: the training examples.
      batch_size: examples in a batch.
      shapes: of `choose_shapes`.
      seed: of all shuffling; the same seed gives the same batches.

    Returns:
      A dataset whose iterator has `get_state` and `set_state`. After `set_state` the same batches
      follow as after `get_state`, in another process too.

    Raises:
      ValueError: `batch_size` is not positive, `shapes` are not nested, an example fits none of
        them, or there are fewer examples than a batch holds.
    """
    _check(batch_size, shapes)
    if len(examples) < batch_size:
        raise ValueError(
            f"{len(examples)} examples cannot fill one batch of batch_size={batch_size}; lower it"
        )
    buckets = _merge(_buckets(examples, shapes), batch_size)
    batched = [
        grain.MapDataset.source([examples[i] for i in bucket])
        .seed(seed + number)
        .shuffle()
        .batch(batch_size, drop_remainder=True, batch_fn=functools.partial(pad, shape=shape))
        for number, (shape, bucket) in enumerate(buckets.items())
    ]
    epoch = grain.MapDataset.concatenate(batched).seed(seed).shuffle()
    # No threads: padding takes microseconds, and prefetched batches would not be in the state.
    options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    return epoch.repeat().to_iter_dataset(options)


class EvaluationBatch(NamedTuple):
    """A batch and the positions of its examples.

    Attributes:
      batch: the padded sentences; filler examples repeat the first source and have no target.
      index: the position of each batch example in the list of examples, -1 for a filler.
    """

    batch: Batch
    index: Int[np.ndarray, " B"]


def evaluation_batches(
    examples: Sequence[Example], *, batch_size: int, shapes: Sequence[Shape]
) -> list[EvaluationBatch]:
    """Batches with every example once; `index` restores the order.

    Args:
      examples: to be evaluated.
      batch_size: of every batch; the last batch of a shape is filled up.
      shapes: of `choose_shapes`.

    Returns:
      The batches, in increasing order of shapes, and in the order of the examples within a shape.

    Raises:
      ValueError: `batch_size` is not positive, `shapes` are not nested, or an example fits none.
    """
    _check(batch_size, shapes)
    batches = []
    for shape, bucket in _buckets(examples, shapes).items():
        for rows in itertools.batched(bucket, batch_size):
            surplus = batch_size - len(rows)
            filler = Example(examples[rows[0]].source, [])
            chosen = [examples[i] for i in rows] + [filler] * surplus
            index = np.array([*rows, *[-1] * surplus])
            batches.append(EvaluationBatch(pad(chosen, shape), index))
    return batches


def pad(examples: Sequence[Example], shape: Shape) -> Batch:
    """Examples as one batch of a shape.

    Args:
      examples: those of the batch.
      shape: S and T, at least as long as every example.

    Returns:
      The batch, as numpy arrays (int32 and bool).

    Example:
      >>> pad([Example([7, 8], [9, 2]), Example([5], [2])], (3, 2)).source
      array([[7, 8, 0],
             [5, 0, 0]], dtype=int32)
    """
    S, T = shape
    source, source_mask = _pad_side([example.source for example in examples], S)
    target, target_mask = _pad_side([example.target for example in examples], T)
    # numpy arrays, so that a batch is moved to the device only when it is used
    return Batch(source, source_mask, target, target_mask)  # pyrefly: ignore[bad-argument-type]


def _pad_side(rows: Sequence[Sequence[int]], length: int) -> tuple[np.ndarray, np.ndarray]:
    ids = np.full((len(rows), length), PAD, np.int32)
    for filled, row in zip(ids, rows, strict=True):
        filled[: len(row)] = row
    lengths = np.array([len(row) for row in rows])
    return ids, np.arange(length)[None, :] < lengths[:, None]


def _check(batch_size: int, shapes: Sequence[Shape]) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1")
    nested = all(a <= c and b <= d for (a, b), (c, d) in itertools.pairwise(shapes))
    if not shapes or not nested:
        raise ValueError(f"shapes={list(shapes)} must grow in both lengths; use choose_shapes")


def _buckets(examples: Sequence[Example], shapes: Sequence[Shape]) -> dict[Shape, list[int]]:
    """The positions of the examples, by the smallest shape that they fit."""
    sources, targets = [S for S, _ in shapes], [T for _, T in shapes]
    buckets: dict[Shape, list[int]] = {shape: [] for shape in shapes}
    for position, (source, target) in enumerate(examples):
        S, T = len(source), len(target)
        fit = max(bisect.bisect_left(sources, S), bisect.bisect_left(targets, T))
        if fit == len(shapes):
            raise ValueError(
                f"example {position} has {S} source and {T} target tokens, the largest shape is "
                f"{shapes[-1]}; leave it out (encode_pairs) or pass a larger shape"
            )
        buckets[shapes[fit]].append(position)
    return buckets


def _merge(buckets: dict[Shape, list[int]], least: int) -> dict[Shape, list[int]]:
    """Moves examples to larger shapes until each shape has none or at least `least` examples."""
    merged: dict[Shape, list[int]] = {}
    open_shape: Shape | None = None
    for shape, bucket in sorted(buckets.items(), reverse=True):
        if open_shape is None or len(merged[open_shape]) >= least:
            open_shape = shape
        merged.setdefault(open_shape, []).extend(bucket)
    # The smallest shape may still have too few: its examples move to the next larger one.
    if open_shape is not None and len(merged[open_shape]) < least:
        leftover = merged.pop(open_shape)
        merged[next(reversed(merged))].extend(leftover)
    return {shape: bucket for shape, bucket in merged.items() if bucket}
