import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import tiny_model
from tolerance import assert_close, assert_differs, assert_equal

from attn_jax.models import Batch, decoder_inputs, token_losses, translation_loss

SOURCE = jnp.array([[4, 10, 7, 5, 2], [8, 2, 0, 0, 0], [6, 2, 0, 0, 0]])
TARGET = jnp.array([[5, 8, 6, 2], [7, 2, 0, 0], [8, 2, 0, 0]])
BATCH = Batch(SOURCE, SOURCE != 0, TARGET, TARGET != 0)


def test_the_decoder_is_given_the_words_before_each_word():
    assert decoder_inputs(TARGET[0]).tolist() == [1, 5, 8, 6]


def test_token_losses_are_minus_the_log_of_the_softmax():
    logits = np.random.default_rng(0).normal(size=(3, 4, 9))
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    losses, correct = token_losses(jnp.asarray(logits, jnp.float32), TARGET)
    rows, columns = np.indices(TARGET.shape)
    expected = -np.log(probabilities[rows, columns, TARGET])
    assert_close(losses, expected.astype(np.float32))
    assert_equal(correct, logits.argmax(-1) == np.asarray(TARGET))


def test_token_losses_survive_logits_of_any_size():
    losses, _ = token_losses(jnp.array([[1e30, 0.0, -1e30]]), jnp.array([1]))
    assert float(losses[0]) == pytest.approx(1e30)


def test_the_loss_is_the_mean_over_target_tokens_of_each_sentence_alone():
    model = tiny_model()
    loss, metrics = jax.jit(lambda batch: translation_loss(model, batch))(BATCH)
    total, hits = 0.0, 0
    for source, target in zip(SOURCE, TARGET, strict=True):
        source, target = source[source != 0], target[target != 0]
        logits = model.logits(source, source != 0, decoder_inputs(target))
        log_probs = jax.nn.log_softmax(logits)[jnp.arange(target.size), target]
        total -= float(log_probs.sum())
        hits += int((logits.argmax(-1) == target).sum())
    assert float(metrics["tokens"]) == 8
    assert float(loss) == pytest.approx(total / 8, rel=1e-6)
    assert float(metrics["loss"]) == float(loss)
    assert float(metrics["accuracy"]) == pytest.approx(hits / 8)


def test_what_stands_behind_the_end_of_a_target_counts_for_nothing():
    model = tiny_model()
    loss = jax.jit(lambda batch: translation_loss(model, batch)[0])
    noise = jnp.where(BATCH.target_mask, TARGET, 8)
    assert_equal(loss(BATCH._replace(target=noise)), loss(BATCH))
    assert_differs(loss(BATCH._replace(target=TARGET.at[0, 1].set(3))), loss(BATCH))


def test_a_batch_of_nothing_but_padding_has_no_loss_and_no_gradient():
    graphdef, parameters = nnx.split(tiny_model())
    empty = Batch(SOURCE * 0, SOURCE < 0, TARGET * 0, TARGET < 0)

    def loss(parameters):
        return translation_loss(nnx.merge(graphdef, parameters), empty)[0]

    value, gradients = jax.jit(jax.value_and_grad(loss))(parameters)
    assert float(value) == 0
    assert not any(gradient.any() for gradient in jax.tree.leaves(gradients))


def test_dropout_takes_its_key_from_the_caller():
    model = tiny_model(dropout_rate=0.3)
    loss = jax.jit(lambda rng: translation_loss(model, BATCH, rng)[0])
    assert_equal(loss(jax.random.key(3)), loss(jax.random.key(3)))
    assert_differs(loss(jax.random.key(3)), loss(jax.random.key(4)))
    assert_equal(translation_loss(model, BATCH)[0], translation_loss(tiny_model(), BATCH)[0])


def test_a_few_steps_down_the_gradient_learn_the_batch():
    graphdef, parameters = nnx.split(tiny_model())

    def loss(parameters):
        return translation_loss(nnx.merge(graphdef, parameters), BATCH)[0]

    def descend(parameters, _):
        value, gradients = jax.value_and_grad(loss)(parameters)
        return jax.tree.map(lambda p, g: p - 0.5 * g, parameters, gradients), value

    _, losses = jax.jit(lambda start: jax.lax.scan(descend, start, length=60))(parameters)
    assert losses[-1] < 0.3 * losses[0]
