"""The loss of a translation model: the mean negative log-likelihood of the target tokens."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from attn_jax._base import checks
from attn_jax._base.numerics import accumulation_dtype
from attn_jax.models.ids import BOS, PAD
from attn_jax.models.translator import Translator


class Batch(NamedTuple):
    """A batch of sentence pairs: all sources padded to one length, all targets to another.

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
    """The decoder's inputs for teacher forcing: the target shifted right, with BOS in front.

      inputs = [BOS, target[:-1]]

    Args:
      target: the tokens to predict.

    Returns:
      As many ids, shifted by one.

    Cost:
      O(T).

    Example:
      >>> from attn_jax.models import decoder_inputs
      >>> decoder_inputs(jnp.array([7, 8, 2])).tolist()
      [1, 7, 8]
    """
    return jnp.concatenate([jnp.full_like(target[:1], BOS), target[:-1]])


def token_losses(
    logits: Float[Array, "*B T K"], target: Int[Array, "*B T"], *, ignore: int | None = None
) -> tuple[Float[Array, "*B T"], Bool[Array, "*B T"]]:
    """The negative log-likelihood of each target token, and whether the model ranks it first.

      nll = logsumexp(logits) − logits[target]

    Args:
      logits: over the target vocabulary.
      target: the target tokens' ids, from 0 to K − 1.
      ignore: an id that marks positions without a token, such as PAD or the −100 of PyTorch and
        Hugging Face: their loss is 0, and they are never correct. None ignores no id.

    Returns:
      Natural-log losses, and True where no logit exceeds the target's. For a mean over tokens,
      divide the sum of losses by the number of targets that are not ignored.

    Raises:
      ValueError: a target is outside the vocabulary and is not ignored. Under `jit`, where targets
        are unknown, such a target has loss NaN and is not correct.

    Numerics:
      In float32, or in float64 for float64 logits, with their maximum subtracted. A target with
      logit −inf has loss ∞.

    Example:
      >>> from attn_jax.models import token_losses
      >>> logits = jnp.log(jnp.array([[1.0, 3.0], [1.0, 3.0], [1.0, 3.0]]))
      >>> losses, correct = token_losses(logits, jnp.array([0, 1, -100]), ignore=-100)
      >>> (jnp.exp(-losses).round(2).tolist(), correct.tolist())
      ([0.25, 0.75, 1.0], [False, True, False])
    """
    terms = _loss_terms(logits, target, ignore)
    return terms.without_ignored(terms.losses), terms.is_first


def smoothed_losses(
    logits: Float[Array, "*B T K"],
    target: Int[Array, "*B T"],
    smoothing: float,
    *,
    ignore: int | None = None,
) -> Float[Array, "*B T"]:
    """The loss of each target token with label smoothing.

    The target distribution is 1 − smoothing on the target token plus smoothing spread evenly over
    the vocabulary. Szegedy et al., "Rethinking the Inception Architecture" (2016), section 7,
    https://arxiv.org/abs/1512.00567; used by Vaswani et al. (2017), section 5.4. The convention is
    that paper's and torch's: ε is spread over all K tokens, the target included.

      loss = (1 − smoothing) * nll[target] + smoothing * mean over tokens of nll[token]

    tensor2tensor spreads its ε over the K − 1 other tokens: pass smoothing = ε K / (K − 1) for the
    same distribution. It also subtracts the distribution's entropy, a constant. The Annotated
    Transformer spreads its ε over the other tokens except PAD: the same over K − 1 tokens.

    Args:
      logits: over the target vocabulary.
      target: the target tokens' ids.
      smoothing: ε, the probability that is spread over the vocabulary.
      ignore: as `token_losses`.

    Returns:
      Natural-log losses; with smoothing 0 those of `token_losses`.

    Raises:
      ValueError: smoothing is not in [0, 1), or a target is outside the vocabulary, as in
        `token_losses`.

    Numerics:
      As `token_losses`. With smoothing above 0, any logit of −inf makes the loss ∞.

    Example:
      >>> from attn_jax.models import smoothed_losses
      >>> logits, target = jnp.log(jnp.array([[0.7, 0.1, 0.1, 0.1]])), jnp.array([0])
      >>> print(f"{smoothed_losses(logits, target, 0.4).item():.3f}")
      0.940
      >>> print(f"{-(0.7 * np.log(0.7) + 3 * 0.1 * np.log(0.1)):.3f}")   # (1 − ε) + ε/K = 0.7
      0.940
    """
    checks.check_rate("smoothing", smoothing)
    terms = _loss_terms(logits, target, ignore)
    return terms.without_ignored(terms.smoothed(smoothing))


class _LossTerms(NamedTuple):
    """The terms of the losses, for each target token."""

    logsumexp: Float[Array, "*B T"]
    mean_logit: Float[Array, "*B T"]
    true_logit: Float[Array, "*B T"]
    is_first: Bool[Array, "*B T"]
    is_word: Bool[Array, "*B T"]  # in the vocabulary, and not ignored
    is_ignored: Bool[Array, "*B T"] | None

    @property
    def losses(self) -> Float[Array, "*B T"]:
        """The negative log-likelihoods."""
        return self.logsumexp - self.true_logit

    def smoothed(self, smoothing: float) -> Float[Array, "*B T"]:
        """The losses with label smoothing."""
        if smoothing == 0:  # a logit of −inf would give 0 · ∞ = NaN
            return self.losses
        return (1 - smoothing) * self.losses + smoothing * (self.logsumexp - self.mean_logit)

    def without_ignored(self, losses: Float[Array, "*B T"]) -> Float[Array, "*B T"]:
        """The losses, 0 where the target is ignored and NaN where it is not in the vocabulary."""
        losses = jnp.where(self.is_word, losses, jnp.nan)
        return losses if self.is_ignored is None else jnp.where(self.is_ignored, 0, losses)


def _loss_terms(logits, target, ignore: int | None) -> _LossTerms:
    logits = jnp.asarray(logits)
    _check_target(target, logits.shape[-1], ignore)
    target = jnp.asarray(target)
    # Without the barrier XLA:CPU computes the softmax again in each matmul.
    logits = jax.lax.optimization_barrier(logits.astype(accumulation_dtype(logits.dtype)))
    is_ignored = None if ignore is None else target == ignore
    is_word = (target >= 0) & (target < logits.shape[-1])
    is_word = is_word if is_ignored is None else is_word & ~is_ignored
    index = jnp.where(is_word, target, 0)[..., None]
    true_logit = jnp.take_along_axis(logits, index, axis=-1)[..., 0]
    return _LossTerms(
        logsumexp=jax.nn.logsumexp(logits, axis=-1),
        mean_logit=logits.mean(axis=-1),
        true_logit=true_logit,
        is_first=is_word & (true_logit >= logits.max(axis=-1)),
        is_word=is_word,
        is_ignored=is_ignored,
    )


def _check_target(target, K: int, ignore: int | None) -> None:
    """Checks targets whose values are known: not traced, and all on this process's devices."""
    if isinstance(target, jax.core.Tracer) or not getattr(target, "is_fully_addressable", True):
        return
    known = np.asarray(target)
    wrong = known[((known < 0) | (known >= K)) & (known != ignore)]
    if wrong.size:
        raise ValueError(
            f"target must hold ids between 0 and {K - 1}; got {wrong[0]}: if that id marks "
            f"positions without a token, pass ignore={wrong[0]}"
        )


def translation_loss(
    model: Translator,
    batch: Batch,
    rng: PRNGKeyArray | None = None,
    *,
    smoothing: float = 0.0,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The mean loss of a target token, given the source and the true tokens before it.

      loss = Σ_{b,t} target_mask · nll / Σ_{b,t} target_mask

    Args:
      model: the translator.
      batch: sentence pairs; positions where target_mask is False do not count.
      rng: dropout's key in training; None drops nothing.
      smoothing: ε of label smoothing, see `smoothed_losses`.

    Returns:
      The loss to minimise, in nats, and the metrics "loss" (without smoothing), "tokens" (how many
      count) and "accuracy" (share of them that the model ranks first). A batch of padding alone has
      loss 0.

    Raises:
      ValueError: smoothing is not in [0, 1), or a target that counts is outside the vocabulary, as
        in `token_losses`.

    Numerics:
      As `token_losses`.

    Cost:
      The readout is one matmul over all B·T positions, O(B T K l), most of the work of a small
      model; B·T·K logits are residuals of the backward pass.

    Example:
      >>> from attn_jax.models import Batch, EncoderDecoder, EncoderDecoderConfig, translation_loss
      >>> model = EncoderDecoder(EncoderDecoderConfig(9, 7, 2, 3, 4, 5), rngs=nnx.Rngs(0))
      >>> source, target = jnp.array([[4, 2]]), jnp.array([[5, 2, 0]])
      >>> loss, metrics = translation_loss(model, Batch(source, source > 0, target, target > 0))
      >>> print(f"{float(loss):.3f}, {float(metrics['tokens'])} tokens")   # untrained: log 7
      1.946, 2.0 tokens
    """
    checks.check_rate("smoothing", smoothing)
    batch = _with_pad_where_masked(batch)
    unroll_rng, readout_rng = (None, None) if rng is None else jax.random.split(rng)
    rows = _unroll(model, batch, unroll_rng)
    # One row for each target position of the batch: on CPU such a matmul is twice as fast.
    rows = jax.tree.map(lambda leaf: leaf.reshape(-1, leaf.shape[-1]), rows)
    logits = model.readout(rows, rng=readout_rng)
    target, mask = batch.target.reshape(-1), batch.target_mask.reshape(-1)
    terms = _loss_terms(logits, target, None)
    tokens = jnp.sum(mask).astype(terms.logsumexp.dtype)

    def mean(values: Float[Array, " R"]) -> Float[Array, ""]:
        return jnp.sum(values, where=mask) / jnp.maximum(tokens, 1)

    metrics = {
        "loss": mean(terms.without_ignored(terms.losses)),
        "tokens": tokens,
        "accuracy": mean(terms.is_first.astype(tokens.dtype)),
    }
    return mean(terms.without_ignored(terms.smoothed(smoothing))), metrics


def _with_pad_where_masked(batch: Batch) -> Batch:
    """PAD where the masks are False: ids outside the vocabulary would make gradients NaN there."""
    source = jnp.where(batch.source_mask, batch.source, PAD)
    target = jnp.where(batch.target_mask, batch.target, PAD)
    return batch._replace(source=source, target=target)


def _unroll(model: Translator, batch: Batch, rng: PRNGKeyArray | None):
    """`model.unroll` of each pair, with a dropout key of its own."""
    inputs = jax.vmap(decoder_inputs)(batch.target)
    if rng is None:
        return jax.vmap(model.unroll)(batch.source, batch.source_mask, inputs)
    rngs = jax.random.split(rng, inputs.shape[0])
    unroll = jax.vmap(lambda source, mask, inputs, rng: model.unroll(source, mask, inputs, rng=rng))
    return unroll(batch.source, batch.source_mask, inputs, rngs)
