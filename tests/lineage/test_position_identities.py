"""Identities E0–E7 of position encodings, each with a counterexample that must differ."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn_jax
from attn_jax import positions
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_close, assert_differs, assert_equal

pytestmark = pytest.mark.usefixtures("x64")

T, D, H, V = 7, 6, 3, 5


def test_e00_learned_positions_from_the_sinusoidal_table_are_sinusoidal():
    table, (other,) = positions.sinusoidal(jnp.arange(20), D), draw(0, (20, D))
    place = jnp.array([3, 19, 0, 3, 7])
    assert_equal(positions.learned(table, place), positions.sinusoidal(place, D))
    assert_differs(positions.learned(other.astype(jnp.float32), place), table[place])


def test_e00_sinusoidal_positions_are_the_papers():
    place = [0, 1, 5, 100, 4999]
    exact = [
        [
            (np.sin if column % 2 == 0 else np.cos)(p / 10_000 ** (column // 2 * 2 / D))
            for column in range(D)
        ]
        for p in place
    ]
    ours = positions.sinusoidal(jnp.array(place), D)
    np.testing.assert_allclose(ours, exact, rtol=0, atol=5_000 * 6e-8)  # as in its docstring
    assert np.abs(np.asarray(ours) - np.roll(exact, 1, axis=1)).max() > 0.1


def test_e01_the_product_of_two_positions_depends_on_their_distance_only():
    first, second = (positions.sinusoidal(p + jnp.arange(4), D) for p in (0, 30))
    assert np.abs(first @ first.T - second @ second.T).max() < 1e-5
    assert_differs(first @ second.T, first @ first.T)


def test_e02_moving_on_by_k_is_the_same_rotation_everywhere():
    k, pairs = 3, D // 2
    here = np.asarray(positions.sinusoidal(jnp.arange(11), D)).reshape(-1, pairs, 2)
    angle = k / 10_000 ** (2 * np.arange(pairs) / D)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    there = np.einsum("abp,tpb->tpa", turn, here)
    assert np.abs(there[:-k] - here[k:]).max() < 1e-5  # angles of size 10 have an error of 1e-6
    assert np.abs(there[:-k] - here[:-k]).max() > 0.1


def test_e07_tokens_at_equal_positions_have_no_order():
    x, *weights = draw(1, (T, D), (D, H), (D, H), (D, V))
    order = jnp.array([3, 0, 6, 1, 5, 2, 4])

    def equivariance(place):
        encoding = positions.sinusoidal(place, D).astype(x.dtype)
        shuffled = attn_jax.self_attention(x[order] + encoding, *weights)
        return shuffled, attn_jax.self_attention(x + encoding, *weights)[order]

    assert_close(*equivariance(jnp.full(T, 4)))
    assert_differs(*equivariance(jnp.arange(T)))


def test_a_position_outside_the_table_gives_nan_and_no_gradient():
    (table,) = draw(2, (4, 3))
    place = jnp.array([-1, 0, 3, 4])
    rows = positions.learned(table, place)
    assert jnp.isnan(rows[jnp.array([0, 3])]).all()
    assert_equal(rows[jnp.array([1, 2])], table[jnp.array([0, 3])])
    gradient = jax.grad(lambda t: jnp.sum(positions.learned(t, place)[1:3]))(table)
    assert_equal(gradient, jnp.zeros((4, 3)).at[jnp.array([0, 3])].set(1))
