"""The pages of the gallery: each from numbers that somebody published, or that a model made."""

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
    """Figure 3(a) of Bahdanau et al. (2014), read off its greys."""
    figure = json.loads(FIGURE_3A.read_text(encoding="utf-8"))
    return AttentionView.from_weights(
        figure["weights_grey"],
        figure["tgt"],
        key_tokens=figure["src"],
        normalised=False,
        title="Figure 3(a) of Bahdanau, Cho and Bengio (2014)",
        note="English to French, by the first network with attention. The numbers are the greys of "
        "the printed figure, so rows do not sum to one; see how “zone économique européenne” reads "
        "“European Economic Area” backwards.",
    )


def worked_example() -> AttentionView:
    """The lecture's sentence of six vectors: without weights, and with trained ones."""
    x, book = _book_inputs()
    query, key = (np.array(book["self_attention_v2"][name]) for name in ("queries", "keys"))
    tokens = book["simplified"]["tokens"]
    simplified = _read(x[:, None], x[:, None], 1.0, tokens, "Simplified self-attention")
    scale = query.shape[-1] ** -0.5
    trained = _read(query[:, None], key[:, None], scale, tokens, "With trainable weights")
    return simplified.compare(trained)


def worked_example_causal() -> AttentionView:
    """The same sentence: each word sees those before it, and in two heads."""
    x, book = _book_inputs()
    views = []
    for section, title in (("causal_attention", "Causal"), ("multi_head_attention", "Multi-head")):
        kernels = (np.array(book[section][f"W_{name}_weight"]).T for name in ("query", "key"))
        split = (len(x), book[section].get("num_heads", 1), -1)
        query, key = ((x @ kernel).reshape(split) for kernel in kernels)
        scale = query.shape[-1] ** -0.5
        tokens, name = book["simplified"]["tokens"], f"{title} self-attention"
        views.append(_read(query, key, scale, tokens, name, mask=np.tril(np.ones((6, 6), bool))))
    return views[0].compare(views[1])


def _read(
    query: Float[np.ndarray, "T N H"],
    key: Float[np.ndarray, "T N H"],
    scale: float,
    tokens: Sequence[str],
    title: str,
    mask: np.ndarray | None = None,
) -> AttentionView:
    """Weights with their logits, for a page that holds them in float32."""
    logits = scale * np.einsum("TNH,SNH->NTS", query, key)
    seen = logits if mask is None else np.where(mask, logits, -np.inf)
    powers = np.exp(seen - seen.max(axis=-1, keepdims=True))
    weights = powers / powers.sum(axis=-1, keepdims=True)
    return AttentionView.from_weights(
        weights, tokens, logits=logits, mask=mask, title=title, note=_BOOK_NOTE
    )


_BOOK_NOTE = (
    "The numbers of chapter 3 of Raschka, Build a Large Language Model (From Scratch). A logit is "
    "what the book calls a score, after the scale."
)


def _book_inputs() -> tuple[np.ndarray, dict[str, Any]]:
    book = json.loads(BOOK.read_text(encoding="utf-8"))
    return np.array(book["simplified"]["inputs"]), book


def translation(translator: Translator, english: Words, title: str, note: str) -> AttentionView:
    """What a network says of a sentence, greedily, step by step, with importances beside."""
    model, source = _asked(translator, english)
    trace = greedy_search(model, source, source > 0, max_length=2 * len(english) + 5)
    return _view(translator, model, english, trace, title, note)


def forced(translator: Translator, english: Words, french: Words, title: str) -> AttentionView:
    """What a network reads while it is made to say a translation."""
    model, source = _asked(translator, english)
    target = jnp.array([*translator.target.encode(french), EOS])
    trace = force(model, source, source > 0, target)
    return _view(translator, model, english, trace, title, "")


def _asked(translator: Translator, english: Words) -> tuple[EncoderDecoder, Int[Array, " S"]]:
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
    """What each source word does to the log-probability of each word that was said."""
    inputs = jnp.concatenate([jnp.array([BOS]), target[:-1]])
    graph, params = _split(model)

    def said(embedded: Float[Array, "S m"], mask: Any) -> Float[Array, " T"]:
        """The model with these vectors for its source words: they stand in the table's place."""
        moved = graph(embedded, params)
        log_probs = jax.nn.log_softmax(moved.logits(jnp.arange(source.size), mask, inputs))
        return jnp.take_along_axis(log_probs, target[:, None], axis=1)[:, 0]

    embedded = model.encoder.embedding[...][source]
    everything = jnp.ones(source.size, bool)
    return {
        "gradient × input": gradient_times_input(lambda x: said(x, everything), embedded),
        "leave-one-out": leave_one_out(lambda mask: said(embedded, mask), source.size),
    }


def _split(model: EncoderDecoder) -> tuple[Callable[[Any, Any], EncoderDecoder], Any]:
    structure, params = nnx.split(model)

    def merged(table: Any, params: Any) -> EncoderDecoder:
        copy = nnx.merge(structure, params)
        copy.encoder.embedding = nnx.Param(table)
        return copy

    return merged, params


def sorting(model: GPT, tokens: Sequence[int], letters: str) -> AttentionView:
    """All heads of the GPT that sorts, while it writes an answer."""
    return AttentionView.from_model(
        model,
        jnp.array(tokens),
        [letters[i] for i in tokens],
        title="A GPT that sorts letters",
        note="The first half is the question, the second the answer, written letter by letter. "
        "Some heads look for the letter to write next, wherever it stands in the question.",
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
    "`.venv/bin/python -m experiments.gallery` makes these pages, and trains what they need in "
    "some minutes. Each is one file: download it, open it in a browser, press `?` for the keys."
)
