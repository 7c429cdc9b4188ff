"""AttentionView: a view of attention from arrays, a trace or a model, saved as one HTML page."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from attn_jax.viewer._attach_measures import with_measures
from attn_jax.viewer._export import Exports
from attn_jax.viewer._from_model import layer_inputs
from attn_jax.viewer._from_qk import record_from_qk
from attn_jax.viewer._from_trace import record_from_trace
from attn_jax.viewer._from_weights import record_from_weights


@dataclasses.dataclass(frozen=True, repr=False)
class AttentionView(Exports):
    """An interactive page that shows attention: heads, alignments, and a translation step by step.

    Make a view with `from_weights`, `from_qk`, `from_trace` or `from_model`. In a notebook, a view
    on the last line of a cell is displayed, with a picture for places that run no script. `save`
    writes an HTML file that needs no network and no Python. `compare` puts two views on one page.

    Attributes:
      readings: the attention records, one for each model and input. A page of two compares them.
      title: the title of the page.
      note: a sentence under the title.

    Example:
      >>> from attn_jax.viewer import AttentionView
      >>> weights = [[1.0, 0.0], [0.25, 0.75]]
      >>> view = AttentionView.from_weights(weights, ["so", "what"], title="A head")
      >>> page = view.to_html()
      >>> "http" in page, "A head" in page
      (False, True)
    """

    @classmethod
    def from_weights(
        cls,
        weights: Any,
        tokens: Sequence[Any] | None = None,
        *,
        key_tokens: Sequence[Any] | None = None,
        logits: Any = None,
        bias: Any = None,
        mask: Any = None,
        normalised: bool = True,
        words: Sequence[int] | None = None,
        key_words: Sequence[int] | None = None,
        measures: Mapping[str, Any] | None = None,
        title: str = "Attention",
        note: str = "",
    ) -> "AttentionView":
        """A view of attention weights that you computed.

        The page stores up to two million weights in float32. Of more weights it stores the 32
        greatest of each row, the sum of the others, and a picture that hides no large weight.

        Args:
          weights: [T S], [N T S], [L N T S], or a list of layers [N T S]; any array type.
          tokens: the text of each query; numbers by default.
          key_tokens: the text of each key; by default the same as `tokens`, if T = S.
          logits: before bias, mask and softmax; each axis as in the weights or 1.
          bias: added to the logits; each axis as in the weights or 1.
          mask: True where a query may attend to a key. The page hatches masked pairs.
          normalised: whether each row must sum to one; False shows any numbers, without that check.
          words: the word number of each query, 0, 0, 1, …, with which the page merges subwords; by
            default from the marks of common tokenizers (▁, Ġ, ##).
          key_words: the same for the keys.
          measures: other quantities [T S] by name, such as `leave_one_out`, shown in their own tab.
          title: the title of the page.
          note: a sentence under the title.

        Returns:
          The view.

        Raises:
          ValueError: a row does not sum to one, the number of tokens is wrong, heads are ragged, an
            array is empty, or a masked pair has a weight other than 0.
          TypeError: an array is complex or does not hold numbers, the mask is not boolean, or
            `tokens` is a single text.

        Cost:
          O(L N T S); the page holds 4 bytes for each weight, or 260 for each row.

        Example:
          >>> from attn_jax.viewer import AttentionView
          >>> view = AttentionView.from_weights([[0.5, 0.5, 0.0]], ["a"], key_tokens=list("xyz"))
          >>> view.readings[0].entropy      # bits, by layer and head
          [[1.0]]
        """
        options = {"logits": logits, "bias": bias, "mask": mask, "normalised": normalised}
        words_of = {"words": words, "key_words": key_words}
        record = record_from_weights(title, weights, tokens, key_tokens, **options, **words_of)
        return cls((with_measures(record, measures),), title, note)

    @classmethod
    def from_qk(
        cls,
        query: Any,
        key: Any,
        tokens: Sequence[Any] | None = None,
        *,
        key_tokens: Sequence[Any] | None = None,
        mask: Any = None,
        score_mod: Any = None,
        scale: Any = None,
        query_position: Any = None,
        words: Sequence[int] | None = None,
        measures: Mapping[str, Any] | None = None,
        title: str = "Attention",
        note: str = "",
    ) -> "AttentionView":
        """A view of queries and keys, up to thousands of tokens: the page computes the weights.

          weights = softmax(where(mask, score_mod(scale * query · key), -inf))

        Args:
          query: [T H], [T N H], [L T N H], or a list of layers; rotary positions already applied.
          key: [S H], [S K H], [L S K H], or a list; N/K consecutive query heads share a key head.
          tokens: as `from_weights`.
          key_tokens: as `from_weights`.
          mask: as in `dot_product_attention`: an array, or a function of positions such as those of
            `attn_jax.masks`. A list has one mask for each layer.
          score_mod: as in `dot_product_attention`. A list has one score mod for each layer.
          scale: factor on the dot products, one number or one for each layer; 1/√H by default.
          query_position: the position of each query; needed where T ≠ S and the mask or score mod
            uses positions.
          words: as `from_weights`.
          measures: as `from_weights`.
          title: the title of the page.
          note: a sentence under the title.

        Returns:
          The view. Queries and keys are rounded to float16. The page states the greatest change of
          a weight by this rounding, measured over all weights.

        Raises:
          ValueError: sizes do not match; `query_position` is missing; or the score mod depends on
            more than distance, and T·S is above 2²⁰.
          TypeError: as `from_weights`.

        Cost:
          O(L N T S H) time in Python, a block of rows at a time. The page holds 2 H bytes for each
          query and key, and at most 256 kB for the picture of a head: 1.8 MB of text for a head
          of 4,096 tokens and H = 64.

        Example:
          >>> from attn_jax.viewer import AttentionView
          >>> x = jnp.arange(6.0).reshape(3, 2)
          >>> view = AttentionView.from_qk(x, x, ["a", "b", "c"], mask=attn_jax.masks.causal())
          >>> view.readings[0].weights(0, 0)[0].tolist()
          [1.0, 0.0, 0.0]
        """
        options = {"mask": mask, "score_mod": score_mod, "query_position": query_position}
        options |= {"scale": scale, "words": words}
        record = record_from_qk(title, query, key, tokens, key_tokens, **options)
        return cls((with_measures(record, measures),), title, note)

    @classmethod
    def from_trace(
        cls,
        trace: Any,
        source_tokens: Sequence[Any] | None = None,
        target_tokens: Sequence[Any] | None = None,
        *,
        annotations: Any = None,
        word: Callable[[int], str] | None = None,
        source_words: Sequence[int] | None = None,
        target_words: Sequence[int] | None = None,
        measures: Mapping[str, Any] | None = None,
        title: str = "Translation",
        note: str = "",
    ) -> "AttentionView":
        """A view of one translation: its alignment, and an animation of its decode steps.

        Args:
          trace: a `Trace` of `attn_jax.models` of one sentence, or an object or mapping with the
            same fields.
          source_tokens: the text of each source token, with or without padding.
          target_tokens: the text of each target token.
          annotations: the encoder states [S E] that the decoder attends to, such as
            `encode(…).annotations`. With them the page shows each weighted state, and checks
            that their sum is the context.
          word: a function from a target id to its text, for the most likely tokens of each step;
            by default the page shows ids.
          source_words: the word number of each source token, as `words` of `from_weights`.
          target_words: the same for the target tokens.
          measures: other quantities [T S] by name, without padding.
          title: the title of the page.
          note: a sentence under the title.

        Returns:
          The view, without padding.

        Raises:
          ValueError: a field is missing or has a batch axis, or sizes do not match.
          TypeError: as `from_weights`.

        Cost:
          The page holds 4 bytes, as text 5.3, for each number of the trace and the annotations.

        Example:
          >>> from attn_jax.models import EncoderDecoder, EncoderDecoderConfig, greedy_search
          >>> from attn_jax.viewer import AttentionView
          >>> model = EncoderDecoder(EncoderDecoderConfig(9, 7, 2, 3, 4, 5), rngs=nnx.Rngs(0))
          >>> source = jnp.array([4, 5, 2, 0])
          >>> trace = greedy_search(model, source, source > 0, max_length=2)
          >>> AttentionView.from_trace(trace, ["A", "cat", "."]).readings[0].keys
          ['A', 'cat', '.']
        """
        record = record_from_trace(
            title,
            trace,
            source_tokens,
            target_tokens,
            annotations=annotations,
            word=word,
            source_words=source_words,
            target_words=target_words,
        )
        return cls((with_measures(record, measures),), title, note)

    @classmethod
    def from_model(
        cls,
        model: Any,
        tokens: Any,
        labels: Sequence[Any] | None = None,
        *,
        words: Sequence[int] | None = None,
        measures: Mapping[str, Any] | None = None,
        title: str = "Attention",
        note: str = "",
    ) -> "AttentionView":
        """A view of all layers and heads of a language model on one text.

        Args:
          model: a `GPT` of `attn_jax.models`, or a module with the same attributes: `embedding`,
            `position` and `blocks`, and each block with `attention` and `attention_residual`.
          tokens: ids, [T].
          labels: the text of each token; the ids by default.
          words: as `from_weights`.
          measures: as `from_weights`.
          title: the title of the page.
          note: a sentence under the title.

        Returns:
          The view that `from_qk` makes from the layers' queries, keys, masks and score mods.

        Raises:
          ValueError: the tokens are not [T], or the model's layers have sinks.
          TypeError: the model has no `embedding` or no `blocks`.

        Cost:
          One forward pass, and the cost of `from_qk`.

        Example:
          >>> from attn_jax.models import DecoderConfig, GPT
          >>> from attn_jax.viewer import AttentionView
          >>> config = DecoderConfig(7, model_dim=8, num_layers=2, num_heads=2, max_length=9)
          >>> view = AttentionView.from_model(GPT(config, rngs=nnx.Rngs(0)), jnp.array([3, 1, 4]))
          >>> view.readings[0].sizes
          (2, 2)
        """
        inputs = layer_inputs(model, tokens)
        texts = [str(i) for i in np.asarray(tokens)] if labels is None else labels
        pair = inputs.query_and_key
        record = record_from_qk(title, *pair, texts, None, words=words, **inputs.options)
        return cls((with_measures(record, measures),), title, note)

    def compare(self, other: "AttentionView") -> "AttentionView":
        """Both views on one page, side by side, with their difference if the tokens are the same.

        Args:
          other: a view of one attention record; this view must have one too.

        Returns:
          A view of two attention records, each named by its title.

        Raises:
          ValueError: one of the views already has two records.

        Cost:
          The size of both pages together.

        Example:
          >>> from attn_jax.viewer import AttentionView
          >>> one, two = (AttentionView.from_weights([w], title=str(w)) for w in ([1, 0], [0, 1]))
          >>> one.compare(two).title
          '[1, 0] and [0, 1]'
        """
        if len(self.readings) + len(other.readings) > 2:
            raise ValueError(
                "other cannot be compared: a page compares two records; pass views of one record"
            )
        title = f"{self.title} and {other.title}"
        return AttentionView(self.readings + other.readings, title, self.note or other.note)
