"""A GPT for training: its parameters, loss, evaluation and sampling."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PyTree

from attn_jax.models import GPT, DecoderConfig, token_losses
from experiments.data.windows import Windows


@dataclass(frozen=True)
class LanguageModel:
    """A GPT without its parameters.

    Attributes:
      config: sizes and choices.
      graph: the static part of the NNX model.
      given: number of tokens at the start of each window that are not predicted.
    """

    config: DecoderConfig
    graph: nnx.GraphDef
    given: int = 1

    @classmethod
    def of(cls, config: DecoderConfig, given: int = 1) -> "LanguageModel":
        abstract = nnx.eval_shape(lambda: GPT(config, rngs=nnx.Rngs(0)))
        return cls(config, nnx.graphdef(abstract), given)

    def init(self, rng: Array) -> PyTree:
        """Fresh params from a random key."""
        return nnx.state(GPT(self.config, rngs=nnx.Rngs(rng)))

    def model(self, params: PyTree) -> GPT:
        """The model with these params."""
        return nnx.merge(self.graph, params)

    @property
    def size(self) -> int:
        """Number of parameters."""
        abstract = jax.eval_shape(self.init, jax.random.key(0))
        return sum(leaf.size for leaf in jax.tree.leaves(abstract))

    def loss(
        self, params: PyTree, batch: Windows, rng: Array | None
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Mean loss of a predicted token, with dropout if the config has any and `rng` is given."""
        tokens = jnp.asarray(batch.tokens)
        model, rng = self.model(params), rng if self.config.dropout_rate > 0 else None
        hidden = model.hidden(tokens[:, :-1], rng=rng)[:, self.given - 1 :]
        losses, correct = token_losses(model.readout(hidden), tokens[:, self.given :])
        measured = {
            "tokens": jnp.asarray(losses.size, losses.dtype),
            "accuracy": correct.astype(losses.dtype).mean(),
        }
        return losses.mean(), measured

    def evaluation(self, batches: Sequence[Windows]) -> Callable[[PyTree], float]:
        """A function from params to the mean loss of a token over all `batches`."""
        loss = jax.jit(partial(self.loss, rng=None))
        shapes = [batch.tokens.shape for batch in batches]
        tokens = [rows * (length - self.given) for rows, length in shapes]

        def evaluate(params: PyTree) -> float:
            losses = [loss(params, batch)[0] for batch in batches]
            total = sum(float(one) * count for one, count in zip(losses, tokens, strict=True))
            return total / sum(tokens)

        return evaluate

    def writer(self, length: int, temperature: float) -> Callable[..., Int[Array, " T"]]:
        """A compiled function from `(params, prompt, rng)` to `length` generated tokens.

        Each token is sampled from a forward pass over the last `max_length` tokens, without a
        cache, so a text may be longer than the model's positions.
        """
        return jax.jit(partial(self._write, length=length, temperature=temperature))

    def _write(
        self,
        params: PyTree,
        prompt: Int[Array, " P"],
        rng: Array,
        *,
        length: int,
        temperature: float,
    ) -> Int[Array, " T"]:
        model, most = self.model(params), self.config.max_length
        prompt = jnp.asarray(prompt)[-most:]
        first = jnp.zeros(most, jnp.int32).at[: prompt.size].set(prompt), jnp.int32(prompt.size)

        def draw(carry, rng):
            context, count = carry
            logits = model.readout(model.hidden(context[None])[0, count - 1])
            token = jax.random.categorical(rng, logits / temperature).astype(jnp.int32)
            context = jnp.where(count == most, jnp.roll(context, -1), context)
            return (
                context.at[jnp.minimum(count, most - 1)].set(token),
                jnp.minimum(count + 1, most),
            ), token

        return jax.lax.scan(draw, first, jax.random.split(rng, length))[1]
