"""The pages of the gallery, each from published numbers or from the stored arrays of a network.

    .venv/bin/python -m experiments.gallery.pages  # writes them into build/gallery in seconds

`.venv/bin/python -m experiments.gallery` trains the networks and stores their arrays.
"""

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from attn_jax.viewer import AttentionView

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "docs" / "gallery" / "data"
FIGURE_3A = DATA / "bahdanau_fig3a_alignment.json"
BOOK = ROOT / "tests" / "data" / "ch03_reference.json"


def all_pages(data: Path = DATA) -> dict[str, AttentionView]:
    """All pages by file name, from the arrays in a folder."""
    stored = {path.stem: dict(np.load(path)) for path in sorted(data.glob("*.npz"))}
    lecture = translation(
        stored["lecture-attention"],
        "With attention (Bahdanau)",
        "A toy network of ours; press space to follow it step by step.",
    ).compare(translation(stored["lecture-last-state"], "Last state only"))
    mechanisms = translation(
        stored["mechanisms-bahdanau"], "Bahdanau: attention before the decoder's update"
    ).compare(
        translation(stored["mechanisms-luong"], "Luong: attention after the decoder's update")
    )
    return {
        "figure-3a": figure_3a(),
        "lecture": dataclasses.replace(lecture, title="The lecture's sentence, translated"),
        "word-order": translation(
            stored["word-order"],
            "An adjective changes sides",
            "English puts it before the noun, French after: the alignment crosses.",
        ),
        "mechanisms": dataclasses.replace(
            mechanisms,
            title="Two mechanisms on one sentence",
            note="Both get the same translation as target; blue marks larger weights of the first.",
        ),
        "worked-example": worked_example(),
        "worked-example-causal": worked_example_causal(),
        "sort": sorting(stored["sort"]),
    }


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
    title = "The worked example, simplified and with trained weights"
    return dataclasses.replace(simplified.compare(trained), title=title)


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
    title = "The worked example, causal and with two heads"
    return dataclasses.replace(views[0].compare(views[1]), title=title)


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


def translation(arrays: Mapping[str, np.ndarray], title: str, note: str = "") -> AttentionView:
    """A translation step by step, with the importances of the source words."""
    words = dict(zip(arrays["top_tokens"].flat, arrays["top_words"].flat, strict=True))
    names = map(str, arrays["measure_names"])
    return AttentionView.from_trace(
        arrays,
        list(map(str, arrays["source_tokens"])),
        list(map(str, arrays["target_tokens"])),
        annotations=arrays["annotations"],
        word=lambda i: str(words[i]),
        measures=dict(zip(names, arrays["measures"], strict=True)),
        title=title,
        note=note,
    )


def sorting(arrays: Mapping[str, np.ndarray]) -> AttentionView:
    """All heads of the GPT that sorts, for one question and its answer."""
    return AttentionView.from_qk(
        arrays["query"],
        arrays["key"],
        list(map(str, arrays["tokens"])),
        mask=arrays["mask"],
        title="A GPT that sorts letters",
        note="The first half is the question, the second the answer, generated letter by letter. "
        "Some heads attend to the next letter, at any place in the question.",
    )


def written(pages: Mapping[str, AttentionView], folder: Path) -> list[Path]:
    """Saves the pages and returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    return [view.save(folder / f"{name}.html") for name, view in pages.items()]


if __name__ == "__main__":
    for page in written(
        all_pages(), Path(*sys.argv[1:]) if sys.argv[1:] else Path("build/gallery")
    ):
        print(f"{page}: {page.stat().st_size / 1000:,.0f} kB")
