import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from attn_jax.models import (
    Batch,
    decoder_inputs,
    smoothed_losses,
    token_losses,
    translation_loss,
)
from tests.helpers.tiny_models import tiny_model
from tests.helpers.tolerance import assert_close, assert_differs, assert_equal

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


def test_an_id_that_is_no_word_is_refused_or_ignored_by_name():
    logits, target = jnp.log(jnp.array([[0.7, 0.2, 0.1]] * 3)), jnp.array([1, -100, 0])
    with pytest.raises(ValueError, match=r"between 0 and 2; got -100: .* pass ignore=-100"):
        token_losses(logits, target)
    with pytest.raises(ValueError, match="got 3"):
        token_losses(logits, jnp.array([1, -100, 3]), ignore=-100)
    losses, correct = token_losses(logits, target, ignore=-100)
    assert_close(losses, -np.log([0.2, 1, 0.7]).astype(np.float32))
    assert correct.tolist() == [False, False, True]
    assert token_losses(logits, target * 0, ignore=0)[0].tolist() == [0, 0, 0]
    smoothed = smoothed_losses(logits, target, 0.1, ignore=-100)
    assert_equal(smoothed[1], jnp.float32(0))
    assert_close(smoothed[::2], smoothed_losses(logits[::2], target[::2], 0.1))


@pytest.mark.parametrize("word", [-1, -3, 3])
def test_under_jit_the_loss_of_an_id_that_is_no_word_is_nan(word):
    logits, target = jnp.zeros((2, 3)), jnp.array([1, word])
    losses, correct = jax.jit(token_losses)(logits, target)
    assert jnp.isnan(losses).tolist() == [False, True]
    assert correct.tolist() == [True, False]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_losses_of_narrow_logits_are_taken_in_float32(dtype):
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(4, 9)) * 20, dtype)
    losses, _ = token_losses(logits, TARGET[0])
    wide = np.asarray(logits, np.float64)
    expected = np.log(np.exp(wide).sum(-1)) - wide[np.arange(4), TARGET[0]]
    assert_close(losses, expected.astype(np.float32))


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


def test_tokens_after_the_end_of_a_target_do_not_count():
    model = tiny_model()
    loss = jax.jit(lambda batch: translation_loss(model, batch)[0])
    noise = jnp.where(BATCH.target_mask, TARGET, 8)
    assert_equal(loss(BATCH._replace(target=noise)), loss(BATCH))
    assert_differs(loss(BATCH._replace(target=TARGET.at[0, 1].set(3))), loss(BATCH))


def test_ids_that_are_no_words_do_not_count_where_masked():
    graphdef, parameters = nnx.split(tiny_model())
    noise = BATCH._replace(
        source=jnp.where(BATCH.source_mask, SOURCE, -100),
        target=jnp.where(BATCH.target_mask, TARGET, -100),
    )

    def loss(parameters, batch):
        return translation_loss(nnx.merge(graphdef, parameters), batch)[0]

    gradient = jax.jit(jax.grad(loss))
    assert_equal(
        *(jax.flatten_util.ravel_pytree(gradient(parameters, b))[0] for b in (noise, BATCH))
    )


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


def test_a_few_steps_of_gradient_descent_fit_the_batch():
    graphdef, parameters = nnx.split(tiny_model())

    def loss(parameters):
        return translation_loss(nnx.merge(graphdef, parameters), BATCH)[0]

    def descend(parameters, _):
        value, gradients = jax.value_and_grad(loss)(parameters)
        return jax.tree.map(lambda p, g: p - 0.5 * g, parameters, gradients), value

    _, losses = jax.jit(lambda start: jax.lax.scan(descend, start, length=60))(parameters)
    assert losses[-1] < 0.3 * losses[0]
