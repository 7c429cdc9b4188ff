"""Beam search over a test set with a trained network, and the attention weights."""

from collections.abc import Callable, Collection, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PyTree

from attn_jax.models import EOS, PAD, Translator, beam_search, force
from experiments.data.batches import EvaluationBatch
from experiments.systems.translation import Network
from experiments.training.progress import Progress
from experiments.training.settings import Beam


def longest_target(source_length: int) -> int:
    """The most tokens of a translation, EOS included, for a padded source length."""
    return 2 * source_length + 5


def translate(
    network: Network,
    params: PyTree,
    batches: Sequence[EvaluationBatch],
    beam: Beam,
    progress: Progress | None = None,
) -> list[list[int]]:
    """The best hypothesis for each sentence, without EOS, in the order of the examples.

    Args:
      network: the model without its parameters.
      params: the parameters.
      batches: of all sentences.
      beam: settings of the search.
      progress: is told how many sentences are translated; None for no progress.
    """
    count = sum(int((index >= 0).sum()) for _, index in batches)
    if progress is not None:
        progress.start(0, count)
    search = jax.jit(partial(_search, network.graph, beam), static_argnames="max_length")
    translations: dict[int, list[int]] = {}
    for batch, index in batches:
        max_length = longest_target(batch.source.shape[1])
        found = search(params, batch.source, batch.source_mask, max_length=max_length)
        translations |= dict(zip(index.tolist(), map(before_eos, np.asarray(found)), strict=True))
        if progress is not None:
            progress.step(sum(i >= 0 for i in translations))
    return in_example_order(translations)


def in_example_order[Value](by_index: dict[int, Value]) -> list[Value]:
    """The values of the examples 0, 1, 2, …; fillers, which have index −1, are left out."""
    return [by_index[i] for i in sorted(by_index) if i >= 0]


def _search(
    graph: nnx.GraphDef,
    beam: Beam,
    params: PyTree,
    source: Int[Array, "B S"],
    source_mask: Bool[Array, "B S"],
    *,
    max_length: int,
) -> Int[Array, "B L"]:
    model: Translator = nnx.merge(graph, params)
    one = partial(
        beam_search,
        model,
        width=beam.width,
        max_length=max_length,
        length_penalty=beam.length_penalty,
    )
    return jax.vmap(one)(source, source_mask).tokens[:, 0]


def before_eos(tokens: Int[np.ndarray, " L"]) -> list[int]:
    """The tokens before the first EOS."""
    ends = np.flatnonzero(tokens == EOS)
    return tokens[: ends[0] if ends.size else None].tolist()


def align(
    network: Network,
    params: PyTree,
    batches: Sequence[EvaluationBatch],
    translations: Sequence[list[int]],
) -> list[Float[np.ndarray, "T S"]]:
    """The attention weights of each translation's tokens, EOS included, over the source tokens."""
    weights: dict[int, np.ndarray] = {}
    for batch, index in batches:
        traced, lengths = _forced(network, params, batch, index, translations)
        found = np.asarray(traced["weights"])
        for i, one, length, mask in zip(index, found, lengths, batch.source_mask, strict=True):
            weights[int(i)] = one[:length, mask]
    return in_example_order(weights)


def traces(
    network: Network,
    params: PyTree,
    batches: Sequence[EvaluationBatch],
    translations: Sequence[list[int]],
    chosen: Collection[int],
) -> dict[int, dict[str, np.ndarray]]:
    """What the decoder computed for some translations: the fields of an `attn_jax.models.Trace`.

    Args:
      network: the model without its parameters.
      params: the parameters.
      batches: of all sentences.
      translations: of all sentences, without EOS.
      chosen: the numbers of the sentences to trace.

    Returns:
      By number, the fields, and `annotations`, the encoder's states.
    """
    found = {}
    for batch, index in batches:
        if chosen_here := set(index.tolist()) & set(chosen):
            traced, _ = _forced(network, params, batch, index, translations)
            rows = {name: np.asarray(field) for name, field in traced.items()}
            for place, i in enumerate(index.tolist()):
                if i in chosen_here:
                    found[i] = {name: field[place] for name, field in rows.items()}
    return found


def _forced(
    network: Network,
    params: PyTree,
    batch: Any,
    index: Int[np.ndarray, " B"],
    translations: Sequence[list[int]],
) -> tuple[dict[str, Array], list[int]]:
    """The traces of a batch for given translations, and the lengths of these, EOS included."""
    outputs = [[*translations[i], EOS] if i >= 0 else [EOS] for i in index]
    target = np.full((len(outputs), longest_target(batch.source.shape[1]) + 1), PAD, np.int32)
    for row, tokens in zip(target, outputs, strict=True):
        row[: len(tokens)] = tokens
    traced = _tracer(network.graph)(params, batch.source, batch.source_mask, target)
    return traced, [len(tokens) for tokens in outputs]


@lru_cache(maxsize=4)
def _tracer(graph: nnx.GraphDef) -> Callable[..., dict[str, Array]]:
    """The compiled teacher forcing of a network, the same for `align` and `traces`."""

    def trace(
        params: PyTree,
        source: Int[Array, "B S"],
        source_mask: Bool[Array, "B S"],
        target: Int[Array, "B T"],
    ) -> dict[str, Array]:
        model = nnx.merge(graph, params)
        annotations = jax.vmap(lambda *one: model.encode(*one).annotations)(source, source_mask)
        forced = jax.vmap(partial(force, model))(source, source_mask, target)
        return {**forced._asdict(), "annotations": annotations}

    return jax.jit(trace)
