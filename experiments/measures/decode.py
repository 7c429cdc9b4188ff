"""Beam search over a test set with a trained network, and the attention weights."""

from collections.abc import Sequence
from functools import partial

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PyTree

from attn_jax.models import EOS, PAD, Translator, beam_search, force
from experiments.data.batches import EvaluationBatch
from experiments.systems.translation import Network
from experiments.training.settings import Beam


def longest_target(source_length: int) -> int:
    """The most tokens of a translation, EOS included, for a padded source length."""
    return 2 * source_length + 5


def translate(
    network: Network, params: PyTree, batches: Sequence[EvaluationBatch], beam: Beam
) -> list[list[int]]:
    """The best hypothesis for each sentence, without EOS, in the order of the examples."""
    search = jax.jit(partial(_search, network.graph, beam), static_argnames="max_length")
    translations: dict[int, list[int]] = {}
    for batch, index in batches:
        max_length = longest_target(batch.source.shape[1])
        found = search(params, batch.source, batch.source_mask, max_length=max_length)
        translations |= dict(zip(index.tolist(), map(before_eos, np.asarray(found)), strict=True))
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
    weights_of = jax.jit(partial(_weights, network.graph))
    weights: dict[int, np.ndarray] = {}
    for batch, index in batches:
        outputs = [[*translations[i], EOS] if i >= 0 else [EOS] for i in index]
        target = np.full((len(outputs), longest_target(batch.source.shape[1]) + 1), PAD, np.int32)
        for row, tokens in zip(target, outputs, strict=True):
            row[: len(tokens)] = tokens
        found = np.asarray(weights_of(params, batch.source, batch.source_mask, target))
        for i, one, tokens, mask in zip(index, found, outputs, batch.source_mask, strict=True):
            weights[int(i)] = one[: len(tokens), mask]
    return in_example_order(weights)


def _weights(
    graph: nnx.GraphDef,
    params: PyTree,
    source: Int[Array, "B S"],
    source_mask: Bool[Array, "B S"],
    target: Int[Array, "B T"],
) -> Float[Array, "B T S"]:
    model = nnx.merge(graph, params)
    return jax.vmap(partial(force, model))(source, source_mask, target).weights
