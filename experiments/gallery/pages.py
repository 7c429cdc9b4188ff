"""The pages of the gallery, each from published numbers or from a model."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from attn_jax.models import BOS, EOS, GPT, EncoderDecoder, force, greedy_search
from attn_jax.viewer import AttentionView, gradient_times_input, leave_one_out
from experiments.measures.toy_translation import Translator

ROOT = Path(__file__).resolve().parents[2]
FIGURE_3A = ROOT / "docs" / "gallery" / "bahdanau_fig3a_alignment.json"
BOOK = ROOT / "tests" / "data" / "ch03_reference.json"

type Words = tuple[str, ...]


def figure_3a() -> AttentionView:
    """Figure 3(a) of Bahdanau et al. (2014); the weights are the greys of the figure."""
    figure = json.loads(FIGURE_3A.read_text(encoding="utf-8"))
    return AttentionView.from_weights(
        figure["weights_grey"],
        figure["tgt"],
        key_tokens=figure["src"],
        normalised=False,
        title="Figure 3(a) of Bahdanau, Cho and Bengio (2014)",
        note="English to French, by the first network with attention. The numbers are the greys of "
        "the printed figure, so rows do not sum to one; “zone économique européenne” attends to "
        "“European Economic Area” in reverse order.",
    )


def worked_example() -> AttentionView:
    """The lecture's sentence of six vectors: attention without and with trained parameters."""
    x, book = _book_inputs()
    query, key = (np.array(book["self_attention_v2"][name]) for name in ("queries", "keys"))
    tokens = book["simplified"]["tokens"]
    simplified = _weights_page(x[:, None], x[:, None], 1.0, tokens, "Simplified self-attention")
    scale = query.shape[-1] ** -0.5
    trained = _weights_page(query[:, None], key[:, None], scale, tokens, "With trainable weights")
    return simplified.compare(trained)


def worked_example_causal() -> AttentionView:
    """The same sentence with causal attention, with one head and with two."""
    x, book = _book_inputs()
    views = []
    for section, title in (("causal_attention", "Causal"), ("multi_head_attention", "Multi-head")):
        kernels = (np.array(book[section][f"W_{name}_weight"]).T for name in ("query", "key"))
        split = (len(x), book[section].get("num_heads", 1), -1)
        query, key = ((x @ kernel).reshape(split) for kernel in kernels)
        scale = query.shape[-1] ** -0.5
        tokens, name = book["simplified"]["tokens"], f"{title} self-attention"
        views.append(
            _weights_page(query, key, scale, tokens, name, mask=np.tril(np.ones((6, 6), bool)))
        )
    return views[0].compare(views[1])


def _weights_page(
    query: Float[np.ndarray, "T N H"],
    key: Float[np.ndarray, "T N H"],
    scale: float,
    tokens: Sequence[str],
    title: str,
    mask: np.ndarray | None = None,
) -> AttentionView:
    """A page of weights and logits."""
    logits = scale * np.einsum("TNH,SNH->NTS", query, key)
    masked = logits if mask is None else np.where(mask, logits, -np.inf)
    powers = np.exp(masked - masked.max(axis=-1, keepdims=True))
    weights = powers / powers.sum(axis=-1, keepdims=True)
    return AttentionView.from_weights(
        weights, tokens, logits=logits, mask=mask, title=title, note=_BOOK_NOTE
    )


_BOOK_NOTE = (
    "The numbers of chapter 3 of Raschka, Build a Large Language Model (From Scratch). A logit is "
    "what the book calls a score, multiplied by the scale."
)


def _book_inputs() -> tuple[np.ndarray, dict[str, Any]]:
    book = json.loads(BOOK.read_text(encoding="utf-8"))
    return np.array(book["simplified"]["inputs"]), book


def translation(translator: Translator, english: Words, title: str, note: str) -> AttentionView:
    """A network's greedy translation of a sentence, step by step, with importances."""
    model, source = _model_and_source(translator, english)
    trace = greedy_search(model, source, source > 0, max_length=2 * len(english) + 5)
    return _view(translator, model, english, trace, title, note)


def forced(translator: Translator, english: Words, french: Words, title: str) -> AttentionView:
    """The attention of a network for a given translation (teacher forcing)."""
    model, source = _model_and_source(translator, english)
    target = jnp.array([*translator.target.encode(french), EOS])
    trace = force(model, source, source > 0, target)
    return _view(translator, model, english, trace, title, "")


def _model_and_source(
    translator: Translator, english: Words
) -> tuple[EncoderDecoder, Int[Array, " S"]]:
    model = translator.network.model(translator.params)
    assert isinstance(model, EncoderDecoder)
    return model, jnp.array(translator.source.encode(english))


def _view(
    translator: Translator,
    model: EncoderDecoder,
    english: Words,
    trace: Any,
    title: str,
    note: str,
) -> AttentionView:
    target = np.asarray(trace.target)[np.asarray(trace.target_mask)]
    word = partial(_word, translator)
    memory = model.encode(trace.source, trace.source_mask)
    return AttentionView.from_trace(
        trace,
        english,
        [word(int(i)) for i in target],
        annotations=memory.annotations,
        word=word,
        measures=importances(model, trace.source, jnp.asarray(target)),
        title=title,
        note=note,
    )


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


def sorting(model: GPT, tokens: Sequence[int], letters: str) -> AttentionView:
    """All heads of the GPT that sorts, for one question and its answer."""
    return AttentionView.from_model(
        model,
        jnp.array(tokens),
        [letters[i] for i in tokens],
        title="A GPT that sorts letters",
        note="The first half is the question, the second the answer, generated letter by letter. "
        "Some heads attend to the next letter, at any place in the question.",
    )


def written(pages: dict[str, AttentionView], folder: Path) -> list[Path]:
    """Saves the pages, and README.md with a list of them."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [view.save(folder / f"{name}.html") for name, view in pages.items()]
    lines = ["# The gallery of the attention viewer", "", _INTRODUCTION, ""]
    lines += ["| page | what it shows | kB |", "|---|---|---:|"]
    for path, view in zip(paths, pages.values(), strict=True):
        size = path.stat().st_size / 1000
        lines.append(f"| [{path.name}]({path.name}) | {view.title}. {view.note} | {size:,.0f} |")
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return paths


_INTRODUCTION = (
    "`.venv/bin/python -m experiments.gallery` makes these pages and trains their networks in "
    "some minutes. Each is one file: download it, open it in a browser, press `?` for the keys."
)
