"""Label smoothing: three conventions written as target distributions, and how they are related."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_jax.models import smoothed_losses, token_losses, translation_loss
from tests.helpers.tiny_models import tiny_model
from tests.helpers.tolerance import assert_close, assert_differs, assert_equal
from tests.models.test_loss import BATCH

WORDS, PAD = 7, 0


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(size=(3, 5, WORDS)) * 2


@pytest.fixture
def target():
    return np.random.default_rng(1).integers(1, WORDS, size=(3, 5))


def ours(logits, target, smoothing):
    return smoothed_losses(jnp.asarray(logits), jnp.asarray(target), smoothing)


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def torch_target(target, epsilon):
    """Szegedy et al. (2016) and torch: ε over all words."""
    return (1 - epsilon) * np.eye(WORDS)[target] + epsilon / WORDS


def t2t_target(target, epsilon):
    """tensor2tensor: ε over the other words."""
    is_true = np.eye(WORDS)[target]
    return (1 - epsilon) * is_true + epsilon / (WORDS - 1) * (1 - is_true)


def annotated_target(target, epsilon):
    """The Annotated Transformer: ε over the other words but PAD."""
    is_true = np.eye(WORDS)[target]
    row = (1 - epsilon) * is_true + epsilon / (WORDS - 2) * (1 - is_true)
    row[..., PAD] = 0
    return row


def cross_entropy(distribution, logits):
    return -(distribution * log_softmax(logits)).sum(axis=-1)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("epsilon", [0.1, 0.4])
def test_g2_smoothing_mixes_the_loss_with_the_mean_loss_of_all_words(logits, target, epsilon):
    expected = cross_entropy(torch_target(target, epsilon), logits)
    assert_close(ours(logits, target, epsilon), expected)
    plain, _ = token_losses(jnp.asarray(logits), jnp.asarray(target))
    mean = -log_softmax(logits).mean(axis=-1)
    assert_close(ours(logits, target, epsilon), (1 - epsilon) * np.asarray(plain) + epsilon * mean)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("epsilon", [0.1, 0.4])
def test_g3_tensor2tensors_epsilon_is_another_of_ours(logits, target, epsilon):
    theirs = cross_entropy(t2t_target(target, epsilon), logits)
    assert_close(ours(logits, target, epsilon * WORDS / (WORDS - 1)), theirs)
    assert_differs(ours(logits, target, epsilon), theirs)


@pytest.mark.usefixtures("x64")
def test_g3_the_annotated_transformers_is_tensor2tensors_on_the_words_but_pad(logits, target):
    epsilon, others = 0.4, WORDS - 1
    distribution = annotated_target(target, epsilon)
    np.testing.assert_allclose(distribution.sum(axis=-1), 1, rtol=1e-15)
    without_pad = cross_entropy(distribution[..., 1:], logits[..., 1:])
    assert_close(ours(logits[..., 1:], target - 1, epsilon * others / (others - 1)), without_pad)


def test_the_annotated_transformers_picture_is_its_convention():
    rows = np.array([[0, 2 / 15, 0.6, 2 / 15, 2 / 15], [0, 0.6, 2 / 15, 2 / 15, 2 / 15]])
    is_true = np.eye(5)[[2, 1]]
    smooth = 0.4 / (5 - 2) * (1 - is_true) + 0.6 * is_true
    smooth[:, PAD] = 0
    np.testing.assert_allclose(smooth, rows, rtol=1e-12)


def test_without_smoothing_the_losses_are_plain(logits, target):
    logits, target = jnp.asarray(logits, jnp.float32), jnp.asarray(target)
    assert_equal(smoothed_losses(logits, target, 0.0), token_losses(logits, target)[0])


def test_a_word_that_is_impossible_costs_infinitely_much():
    logits = jnp.array([[0.0, 1.0, -jnp.inf]] * 2)
    assert ours(logits, np.array([2, 0]), 0.1).tolist() == [np.inf, np.inf]
    plain = ours(logits, np.array([2, 0]), 0.0)
    assert_close(plain, np.array([np.inf, np.log(1 + np.e)], np.float32))


def test_the_best_logits_are_those_of_the_smoothed_target():
    distribution = torch_target(np.array([2]), 0.3)
    gradient = jax.grad(lambda x: ours(x, np.array([2]), 0.3).sum())
    assert np.abs(gradient(jnp.log(jnp.asarray(distribution, jnp.float32)))).max() < 1e-6
    confident = jnp.full((1, WORDS), -9.0).at[0, 2].set(9.0)
    assert gradient(confident)[0, 2] > 0.1  # more probability than the target has a loss


def test_the_translation_loss_minimises_the_smoothed_one_and_measures_the_plain():
    model = tiny_model()
    smoothed, metrics = jax.jit(lambda batch: translation_loss(model, batch, smoothing=0.2))(BATCH)
    inputs = jnp.concatenate([jnp.ones_like(BATCH.target[:, :1]), BATCH.target[:, :-1]], axis=1)
    logits = jax.jit(jax.vmap(model.logits))(BATCH.source, BATCH.source_mask, inputs)
    plain, _ = token_losses(logits, BATCH.target)
    losses = smoothed_losses(logits, BATCH.target, 0.2)
    expected, measured = (float(x[BATCH.target_mask].mean()) for x in (losses, plain))
    assert float(smoothed) == pytest.approx(expected, rel=1e-6)
    assert float(metrics["loss"]) == pytest.approx(measured, rel=1e-6)
    assert abs(expected - measured) > 1e-3


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_a_share_outside_its_range_is_refused(smoothing):
    with pytest.raises(ValueError, match="smoothing must be a number in"):
        ours(np.zeros((2, 3), np.float32), np.zeros(2, int), smoothing)
