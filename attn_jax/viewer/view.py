"""A view of attention: made from arrays, traces or models, and written as one page."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from attn_jax.viewer import _measured
from attn_jax.viewer._decode import reading_of_trace
from attn_jax.viewer._from_qk import reading_of_qk
from attn_jax.viewer._from_weights import reading_of_weights
from attn_jax.viewer._model import asked_of
from attn_jax.viewer._saved import Saved


@dataclasses.dataclass(frozen=True)
class AttentionView(Saved):
    """Attention to look at: heads, alignments, and the steps of a translation, on one page.

    The last line of a notebook's cell shows it; `save` writes a file that needs no network and no
    Python. Make one with `from_weights`, `from_qk`, `from_trace` or `from_model`; `compare` puts
    two on one page.

    Attributes:
      readings: what is shown; two can be compared, of more the page shows one at a time.
      title: of the page.
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
        """A view of weights that are there already.

        Up to two million of them are kept in float32; of more, the 32 greatest of each row, the sum
        of the rest, and a picture in which every spike is seen.

        Args:
          weights: [T S], [N T S], [L N T S], or a list of layers [N T S]; any array.
          tokens: one text a query.
          key_tokens: one text a key; the same tokens where T = S and nothing is given.
          logits: before bias, mask and softmax, of the same shape, each axis full or 1.
          bias: what was added to them.
          mask: True where a query may read a key; where it is False the page is hatched.
          normalised: whether each row sums to one; False shows them as they are, and says so.
          words: the number of each query's word, 0, 0, 1, …, for the page to merge pieces; by the
            marks of common tokenizers (▁, Ġ, ##) where nothing is given.
          key_words: the same for the keys.
          measures: other quantities [T S] by name, as those of `attn_jax.viewer`, shown beside.
          title: of the page.
          note: a sentence under it.

        Returns:
          The view.

        Raises:
          ValueError: rows do not sum to one, tokens are not one a row or column, heads are ragged,
            something is empty, or the mask forbids what was read.
          TypeError: an array is complex or not of numbers, the mask is not boolean, or the tokens
            are one text.

        Cost:
          O(L N T S); a page of 4 bytes a weight, or of 256 a row.

        Example:
          >>> from attn_jax.viewer import AttentionView
          >>> view = AttentionView.from_weights([[0.5, 0.5, 0.0]], ["a"], key_tokens=list("xyz"))
          >>> view.readings[0].entropy      # bits, by layer and head
          [[1.0]]
        """
        beside = {"logits": logits, "bias": bias, "mask": mask, "normalised": normalised}
        named = {"words": words, "key_words": key_words}
        reading = reading_of_weights(title, weights, tokens, key_tokens, **beside, **named)
        return cls((_measured.beside(reading, measures),), title, note)

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
        """A view of queries and keys, for thousands of tokens: the page computes each row itself.

          weights = softmax(where(mask, score_mod(scale * query · key), -inf))

        Args:
          query: [T H], [T N H], [L T N H], or a list of layers; positions already turned in.
          key: [S H], [S K H], [L S K H] or layers; each head serves N/K query heads in order.
          tokens: as `from_weights`.
          key_tokens: as `from_weights`.
          mask: as in `dot_product_attention`: an array, or a rule on positions, such as those of
            `attn_jax.masks`; a list is one a layer.
          score_mod: as in `dot_product_attention`; a list is one a layer.
          scale: factor on the dot products, one number or one a layer; 1/√H by default.
          query_position: where each query stands, for rules where T ≠ S.
          words: as `from_weights`.
          measures: as `from_weights`.
          title: of the page.
          note: a sentence under it.

        Returns:
          The view. Queries and keys are rounded to float16; the page says how much that changes a
          weight at most, measured on all of them.

        Raises:
          ValueError: sizes do not fit; a rule needs `query_position`; or a score mod that depends
            on more than distance is to be written out for too many pairs.
          TypeError: as `from_weights`.

        Cost:
          O(L N T S H) here, in pieces; the page holds 2 H bytes a query and key and head, and a
          picture of 256 kB a head: 1.3 MB a head of 4,096 tokens and H = 64, as text 1.8 MB.

        Example:
          >>> from attn_jax.viewer import AttentionView
          >>> x = jnp.arange(6.0).reshape(3, 2)
          >>> view = AttentionView.from_qk(x, x, ["a", "b", "c"], mask=attn_jax.masks.causal())
          >>> view.readings[0].weights(0, 0)[0].tolist()
          [1.0, 0.0, 0.0]
        """
        rules = {"mask": mask, "score_mod": score_mod, "query_position": query_position}
        options = {"scale": scale, "words": words, **rules}
        reading = reading_of_qk(title, query, key, tokens, key_tokens, **options)
        return cls((_measured.beside(reading, measures),), title, note)

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
        """A view of one translation: its alignment, and its steps as an animation.

        Args:
          trace: a `Trace` of `attn_jax.models`, or anything with its fields, of one sentence.
          source_tokens: one text a source token; those of padding may be there or not.
          target_tokens: one text a token that was said.
          annotations: what the decoder could read, [S E], such as `encode(…).annotations`; with
            them the page shows each weighted vector, and that they sum to the context.
          word: the text of a target id, for the likeliest words of each step; numbers otherwise.
          source_words: the number of each source token's word, as `words` of `from_weights`.
          target_words: the same for what was said.
          measures: other quantities [T S] by name, for the tokens that are shown.
          title: of the page.
          note: a sentence under it.

        Returns:
          The view; padding is left out.

        Raises:
          ValueError: a field is missing, has a batch axis, or sizes do not fit.
          TypeError: as `from_weights`.

        Cost:
          A page of 4 bytes for each number of the trace and the annotations, as text a third more.

        Example:
          >>> from attn_jax.models import EncoderDecoder, EncoderDecoderConfig, greedy_search
          >>> from attn_jax.viewer import AttentionView
          >>> model = EncoderDecoder(EncoderDecoderConfig(9, 7, 2, 3, 4, 5), rngs=nnx.Rngs(0))
          >>> source = jnp.array([4, 5, 2, 0])
          >>> trace = greedy_search(model, source, source > 0, max_length=2)
          >>> AttentionView.from_trace(trace, ["A", "cat", "."]).readings[0].keys
          ['A', 'cat', '.']
        """
        reading = reading_of_trace(
            title,
            trace,
            source_tokens,
            target_tokens,
            annotations=annotations,
            word=word,
            source_words=source_words,
            target_words=target_words,
        )
        return cls((_measured.beside(reading, measures),), title, note)

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
          model: a `GPT` of `attn_jax.models`, or a module built as it is: `embedding`, `position`
            and `blocks`, each with an `attention` and its `attention_residual`.
          tokens: ids, [T].
          labels: one text a token; the ids by default.
          words: as `from_weights`.
          measures: as `from_weights`.
          title: of the page.
          note: a sentence under it.

        Returns:
          The view, as `from_qk` makes it of the layers' queries, keys, masks and score mods.

        Raises:
          ValueError: the tokens are not [T], or the model's layers have sinks.
          TypeError: the model is built in another way.

        Cost:
          One forward pass, and that of `from_qk`.

        Example:
          >>> from attn_jax.models import DecoderConfig, GPT
          >>> from attn_jax.viewer import AttentionView
          >>> config = DecoderConfig(7, model_dim=8, num_layers=2, num_heads=2, max_length=9)
          >>> view = AttentionView.from_model(GPT(config, rngs=nnx.Rngs(0)), jnp.array([3, 1, 4]))
          >>> view.readings[0].sizes
          (2, 2)
        """
        found = asked_of(model, tokens)
        names = [str(i) for i in np.asarray(tokens)] if labels is None else labels
        reading = reading_of_qk(title, *found.operands, names, None, words=words, **found.rules)
        return cls((_measured.beside(reading, measures),), title, note)

    def compare(self, other: "AttentionView") -> "AttentionView":
        """Both on one page, side by side, with their difference where they have the same tokens.

        Args:
          other: a view of one reading, as this one.

        Returns:
          A view of two readings, each named by its title.

        Raises:
          ValueError: one of them has two already.

        Cost:
          The sum of both pages.

        Example:
          >>> from attn_jax.viewer import AttentionView
          >>> one, two = (AttentionView.from_weights([w], title=str(w)) for w in ([1, 0], [0, 1]))
          >>> one.compare(two).title
          '[1, 0] and [0, 1]'
        """
        if len(self.readings) + len(other.readings) > 2:
            raise ValueError("other cannot be compared: a page has room for two readings")
        title = f"{self.title} and {other.title}"
        return AttentionView(self.readings + other.readings, title, self.note or other.note)
