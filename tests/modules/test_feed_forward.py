"""`modules.FeedForward` and `modules.Embedding`: formulas, parameters and errors."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from attn_jax.modules import Embedding, FeedForward
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_close, assert_differs, assert_equal

B, T, D, A, P = 2, 5, 6, 9, 7
SCALARS = {
    "relu": lambda x: max(x, 0.0),
    "gelu": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    "silu": lambda x: x / (1 + math.exp(-x)),
}


def make(**options):
    """A network with nonzero biases."""
    layer = FeedForward(D, A, **{"rngs": nnx.Rngs(0)} | options)
    for seed, (_, parameter) in enumerate(nnx.to_flat_state(nnx.state(layer))):
        if parameter.ndim == 1:
            parameter[...] = draw(seed, parameter.shape, dtype=parameter.dtype)[0]
    return layer


def tokens(seed=0, dtype=jnp.float32):
    return draw(seed, (B, T, D), dtype=dtype)[0]


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("activation", SCALARS)
def test_a_feed_forward_network_is_its_formula(activation, gated, x64):
    layer = make(activation=activation, gated=gated, param_dtype=jnp.float64)
    p = {name: np.asarray(leaf[...]) for name, leaf in nnx.state(layer).items()}
    x, act = tokens(dtype=jnp.float64), np.vectorize(SCALARS[activation])
    up = np.asarray(x) @ p["w_up"] + p["b_up"]
    hidden = act(np.asarray(x) @ p["w_gate"] + p["b_gate"]) * up if gated else act(up)
    assert_close(layer(x), hidden @ p["w_down"] + p["b_down"])


def test_parameters_have_the_shapes_of_their_letters():
    shapes = {name: leaf.shape for name, leaf in nnx.state(make(gated=True)).items()}
    assert shapes == {
        "w_gate": (D, A),
        "w_up": (D, A),
        "w_down": (A, D),
        "b_gate": (A,),
        "b_up": (A,),
        "b_down": (D,),
    }
    assert set(nnx.state(make(use_bias=False))) == {"w_up", "w_down"}


def test_hidden_units_are_dropped_only_if_a_call_has_a_dropout_key():
    layer, x, rng = make(dropout_rate=0.4), tokens(1), jax.random.key(2)
    assert_equal(layer(x), make()(x))
    hidden = jax.nn.relu(x @ layer.w_up[...] + layer.b_up[...][None, None])
    hidden = jnp.where(jax.random.bernoulli(rng, 0.6, hidden.shape), hidden / 0.6, 0)
    assert_close(layer(x, rng=rng), hidden @ layer.w_down[...] + layer.b_down[...][None, None])
    assert_equal(make()(x, rng=rng), make()(x))


def test_layers_compute_in_the_dtype_of_their_input():
    half = tokens(3, jnp.bfloat16)
    assert make(activation="gelu", gated=True)(half).dtype == jnp.bfloat16
    embedding = Embedding(P, D, rngs=nnx.Rngs(0))
    assert embedding.attend(half).dtype == jnp.bfloat16
    assert embedding(jnp.arange(3)).dtype == jnp.float32
    narrow = Embedding(P, D, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert narrow(jnp.arange(3)).dtype == jnp.bfloat16


def test_an_embedding_looks_up_rows_and_its_attend_multiplies_by_the_table():
    embedding, tokens_of = Embedding(P, D, rngs=nnx.Rngs(0)), jnp.array([[6, 0, 3], [3, 3, 1]])
    table = np.asarray(embedding.table[...])
    assert_equal(embedding(tokens_of), table[np.asarray(tokens_of)])
    (x,) = draw(4, (B, T, D), dtype=jnp.float32)
    assert_close(embedding.attend(x), np.asarray(x) @ table.T)


def test_initial_embedding_vectors_have_a_norm_of_about_one():
    lengths = jnp.linalg.norm(Embedding(500, 400, rngs=nnx.Rngs(0)).table[...], axis=1)
    assert 0.85 < lengths.min() <= lengths.max() < 1.15


@pytest.mark.parametrize("token", [-1, P, 10**6])
def test_an_id_outside_the_vocabulary_gives_nan_and_moves_no_row(token):
    embedding = Embedding(P, D, rngs=nnx.Rngs(0))
    ids = jnp.array([2, token])
    assert jnp.isnan(embedding(ids)).all(axis=-1).tolist() == [False, True]
    grads = nnx.grad(lambda layer: jnp.sum(layer(ids)[:1]))(embedding)
    moved = jnp.abs(grads["table"][...]).sum(axis=1) > 0
    assert moved.tolist() == [row == 2 for row in range(P)]


def test_gradients_reach_every_parameter_and_both_uses_of_a_tied_table():
    layer, x = make(gated=True, activation="silu"), tokens(5)
    (weight,) = draw(6, x.shape, dtype=jnp.float32)
    found = nnx.grad(lambda layer: jnp.sum(weight * layer(x)))(layer)
    assert all(jnp.abs(leaf).min() > 0 for leaf in jax.tree.leaves(found))
    embedding, ids = Embedding(P, D, rngs=nnx.Rngs(0)), jnp.array([1, 2])
    tied = nnx.grad(lambda layer: jnp.sum(layer.attend(layer(ids)) ** 3))(embedding)["table"][...]
    one_end = nnx.grad(lambda layer: jnp.sum(layer.attend(embedding(ids)) ** 3))(embedding)
    assert_differs(tied, one_end["table"][...])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make(activation="tanh"), "activation='tanh' is unknown"),
        (lambda: FeedForward(D, 0, rngs=nnx.Rngs(0)), "hidden_dim must be at least 1"),
        (lambda: make(dropout_rate=1.0), "dropout_rate"),
        (lambda: make()(jnp.zeros((B, T, D + 1))), "x must be 6 wide"),
        (lambda: Embedding(0, D, rngs=nnx.Rngs(0)), "vocab_size must be at least 1"),
        (lambda: Embedding(P, D, rngs=nnx.Rngs(0))(jnp.zeros(3)), "tokens must be integers"),
        (lambda: Embedding(P, D, rngs=nnx.Rngs(0)).attend(jnp.zeros(3)), "x must be 6 wide"),
    ],
)
def test_wrong_sizes_are_refused(call, message):
    with pytest.raises((ValueError, TypeError)) as error:
        call()
    assert message in str(error.value) or "Type-check" in str(error.value)
