"""The loss of a translation model: how surprised it is by the true words, per word."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from attn_jax.models.encoder_decoder import EncoderDecoder
from attn_jax.models.ids import BOS


class Batch(NamedTuple):
    """Sentence pairs, padded to one length on either side.

    Attributes:
      source: token ids [B S].
      source_mask: True at tokens [B S].
      target: token ids that end with EOS [B T].
      target_mask: True at tokens, EOS included [B T].

    Example:
      >>> from attn_jax.models import EOS, PAD, Batch
      >>> source, target = jnp.array([[4, EOS, PAD]]), jnp.array([[5, 6, EOS, PAD]])
      >>> Batch(source, source != PAD, target, target != PAD).target_mask.tolist()
      [[True, True, True, False]]
    """

    source: Int[Array, "B S"]
    source_mask: Bool[Array, "B S"]
    target: Int[Array, "B T"]
    target_mask: Bool[Array, "B T"]


def decoder_inputs(target: Int[Array, " T"]) -> Int[Array, " T"]:
    """What a decoder is given to predict each word: the word before it, [BOS, target[:-1]].

    Args:
      target: the words to predict.

    Returns:
      Ids of the same length, moved by one.

    Cost:
      O(T).

    Example:
      >>> from attn_jax.models import decoder_inputs
      >>> decoder_inputs(jnp.array([7, 8, 2])).tolist()
      [1, 7, 8]
    """
    return jnp.concatenate([jnp.full_like(target[:1], BOS), target[:-1]])


def token_losses(
    logits: Float[Array, "*B T K"], target: Int[Array, "*B T"]
) -> tuple[Float[Array, "*B T"], Bool[Array, "*B T"]]:
    """The negative log-likelihood of each true word, and whether it was the model's first choice.

      nll = logsumexp(logits) − logits[target]

    Args:
      logits: over the target vocabulary.
      target: the true words' ids.

    Returns:
      Natural-log losses, and True where no logit exceeds the true word's.

    Numerics:
      In the logits' dtype, with their maximum subtracted.

    Example:
      >>> from attn_jax.models import token_losses
      >>> logits = jnp.log(jnp.array([[1.0, 3.0], [1.0, 3.0]]))
      >>> losses, correct = token_losses(logits, jnp.array([0, 1]))
      >>> (jnp.exp(-losses).round(2).tolist(), correct.tolist())
      ([0.25, 0.75], [False, True])
    """
    logits = jax.lax.optimization_barrier(logits)  # or XLA:CPU repeats the softmax in each product
    true_logit = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - true_logit, true_logit >= logits.max(axis=-1)


def translation_loss(
    model: EncoderDecoder, batch: Batch, rng: PRNGKeyArray | None = None
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The mean negative log-likelihood of a target word, given source and true words before it.

      loss = Σ_{b,t} target_mask · nll / Σ_{b,t} target_mask

    Args:
      model: the encoder–decoder.
      batch: sentence pairs; where target_mask is False nothing counts.
      rng: dropout's key in training; None evaluates.

    Returns:
      The loss in nats, and the metrics "loss", "tokens" (how many counted) and "accuracy" (share of
      them that the model ranked first). A batch of padding alone has loss 0.

    Cost:
      The readout is one product over all B·T positions, O(B T K l), most of the work of a small
      model; B·T·K logits are kept for the backward pass.

    Example:
      >>> from attn_jax.models import Batch, EncoderDecoder, EncoderDecoderConfig, translation_loss
      >>> model = EncoderDecoder(EncoderDecoderConfig(9, 7, 2, 3, 4, 5), rngs=nnx.Rngs(0))
      >>> source, target = jnp.array([[4, 2]]), jnp.array([[5, 2, 0]])
      >>> loss, metrics = translation_loss(model, Batch(source, source > 0, target, target > 0))
      >>> print(f"{float(loss):.3f}, {float(metrics['tokens'])} tokens")   # untrained: log 7
      1.946, 2.0 tokens
    """
    unroll_rng, readout_rng = (None, None) if rng is None else jax.random.split(rng)
    words, emissions = _unroll(model, batch, unroll_rng)
    # One row for each target position of the batch: products over rows are twice as fast on CPU.
    words, emissions = jax.tree.map(
        lambda leaf: leaf.reshape(-1, leaf.shape[-1]), (words, emissions)
    )
    logits = model.decoder.readout(words, emissions, rng=readout_rng)
    target, mask = batch.target.reshape(-1), batch.target_mask.reshape(-1)
    losses, correct = token_losses(logits, target)
    tokens = jnp.sum(mask).astype(losses.dtype)
    at_least_one = jnp.maximum(tokens, 1)
    loss = jnp.sum(losses, where=mask) / at_least_one
    hits = jnp.sum(correct & mask).astype(losses.dtype)
    return loss, {"loss": loss, "tokens": tokens, "accuracy": hits / at_least_one}


def _unroll(model: EncoderDecoder, batch: Batch, rng: PRNGKeyArray | None):
    inputs = jax.vmap(decoder_inputs)(batch.target)
    if rng is None:
        return jax.vmap(model.unroll)(batch.source, batch.source_mask, inputs)
    rngs = jax.random.split(rng, inputs.shape[0])
    unroll = jax.vmap(lambda source, mask, inputs, rng: model.unroll(source, mask, inputs, rng=rng))
    return unroll(batch.source, batch.source_mask, inputs, rngs)
