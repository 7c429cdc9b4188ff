"""The arrays that the gallery shows of a trained network: a trace, or queries and keys.

Their names are those that `.venv/bin/python -m attn_jax.viewer` reads from a file.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from attn_jax.models import BOS, EOS, GPT, EncoderDecoder, Trace, force, greedy_search
from attn_jax.viewer import gradient_times_input, leave_one_out
from experiments.measures.toy_translation import Translator
from experiments.training.runs import write_whole

type Words = tuple[str, ...]
type Arrays = Mapping[str, np.ndarray]


def translation(translator: Translator, english: Words) -> Arrays:
    """A network's greedy translation of a sentence, step by step, with importances."""
    model, source = _model_and_source(translator, english)
    trace = greedy_search(model, source, source > 0, max_length=2 * len(english) + 5)
    return _arrays(translator, model, english, trace)


def forced(translator: Translator, english: Words, french: Words) -> Arrays:
    """The attention of a network for a given translation (teacher forcing)."""
    model, source = _model_and_source(translator, english)
    target = jnp.array([*translator.target.encode(french), EOS])
    trace = force(model, source, source > 0, target)
    return _arrays(translator, model, english, trace)


def _model_and_source(
    translator: Translator, english: Words
) -> tuple[EncoderDecoder, Int[Array, " S"]]:
    model = translator.network.model(translator.params)
    assert isinstance(model, EncoderDecoder)
    return model, jnp.array(translator.source.encode(english))


def _arrays(translator: Translator, model: EncoderDecoder, english: Words, trace: Trace) -> Arrays:
    """The fields of a trace without padding, its words, the annotations and the importances."""
    steps = np.flatnonzero(trace.target_mask)
    by_step = {"source", "source_mask"}
    fields = {
        name: np.asarray(field) if name in by_step else np.asarray(field)[steps]
        for name, field in trace._asdict().items()
    }
    measures = importances(model, trace.source, jnp.asarray(fields["target"]))
    words = np.vectorize(lambda i: _word(translator, int(i)))
    return {
        **fields,
        "source_tokens": np.array(english),
        "target_tokens": words(fields["target"]),
        "top_words": words(fields["top_tokens"]),
        "annotations": np.asarray(model.encode(trace.source, trace.source_mask).annotations),
        "measure_names": np.array(list(measures)),
        "measures": np.array(list(measures.values()), np.float32),
    }


def _word(translator: Translator, i: int) -> str:
    return "<end>" if i == EOS else translator.target.decode([i])[0]


def importances(
    model: EncoderDecoder, source: Int[Array, " S"], target: Int[Array, " T"]
) -> dict[str, np.ndarray]:
    """The influence of each source word on the log-probability of each generated word."""
    inputs = jnp.concatenate([jnp.array([BOS]), target[:-1]])
    graph, params = _split(model)

    def target_log_probs(embedded: Float[Array, "S m"], mask: Any) -> Float[Array, " T"]:
        """Log-probabilities of the target, with these vectors as embeddings of the source words."""
        moved = graph(embedded, params)
        log_probs = jax.nn.log_softmax(moved.logits(jnp.arange(source.size), mask, inputs))
        return jnp.take_along_axis(log_probs, target[:, None], axis=1)[:, 0]

    embedded = model.encoder.embedding[...][source]
    everything = jnp.ones(source.size, bool)
    return {
        "gradient × input": gradient_times_input(
            lambda x: target_log_probs(x, everything), embedded
        ),
        "leave-one-out": leave_one_out(lambda mask: target_log_probs(embedded, mask), source.size),
    }


def _split(model: EncoderDecoder) -> tuple[Callable[[Any, Any], EncoderDecoder], Any]:
    structure, params = nnx.split(model)

    def merged(table: Any, params: Any) -> EncoderDecoder:
        copy = nnx.merge(structure, params)
        copy.encoder.embedding = nnx.Param(table)
        return copy

    return merged, params


def sorting(model: GPT, tokens: Sequence[int], letters: str) -> Arrays:
    """The queries and keys of all layers of the GPT that sorts, for a question and its answer."""
    ids = jnp.array(tokens)
    assert model.position is not None
    x = model.embedding(ids) + model.position(jnp.arange(ids.size))
    queries, keys = [], []
    for block in model.blocks:
        normed = block.attention_residual.enter(x)
        queries.append(block.attention.project_query(normed))
        keys.append(block.attention.project_memory(normed)[0])
        x = block(x)
    return {
        "query": np.array(queries),
        "key": np.array(keys),
        "mask": np.tril(np.ones((ids.size, ids.size), bool)),
        "tokens": np.array([letters[i] for i in tokens]),
    }


def save(arrays: Arrays, path: Path) -> Path:
    """Writes one file of arrays; if interrupted, the old file stays whole."""
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content.getvalue())
    return path
