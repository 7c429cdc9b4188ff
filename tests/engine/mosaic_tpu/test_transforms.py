"""JAX's transforms of the fused kernel: `vmap` of any arguments, derivatives of any order."""

import itertools
import os
from functools import partial

import jax
import jax.numpy as jnp
import pytest

import attn_jax
from attn_jax import masks, score_mods
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_same_but_for_rounding

B, N, T, H, V = 3, 2, 140, 8, 5
pytestmark = pytest.mark.usefixtures("interpreted")


def head(implementation, query, key, value, slope):
    return attn_jax.attend(
        query,
        key,
        value,
        mask=masks.causal(),
        score_mod=score_mods.alibi(slope),
        implementation=implementation,
    )


def arrays_of(*mapped):
    """Query, key, value and slope, with the axes B and N in front where each is mapped."""
    sizes = {"b": B, "n": N}
    lead = [tuple(sizes[level] for level in levels) for levels in mapped]
    cores = (T, H), (T, H), (T, V), ()
    return draw(0, *(a + c for a, c in zip(lead, cores, strict=True)), dtype=jnp.float32)


def mapped_head(implementation, mapped):
    """One head mapped over N and then over B, for the arguments that have the axis."""
    function = partial(head, implementation)
    for level in "nb":
        axes = tuple(0 if level in levels else None for levels in mapped)
        if any(axis == 0 for axis in axes):
            function = jax.vmap(function, axes)
    return function


def loss(function, *arrays):
    return jnp.sum(jnp.sin(function(*arrays)))


def assert_equals_the_reference(transform, *arrays):
    """A function of an implementation's name has the results of "reference".

    Both round each of T terms in a row; test_conformance.py compares with float64.
    """
    with jax.default_matmul_precision("highest"):
        ours, wanted = (
            jax.jit(partial(transform, name))(*arrays) for name in ("mosaic_tpu", "reference")
        )
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(wanted), strict=True)
    for one, other in pairs:
        assert_same_but_for_rounding(one, other, units=4 * T)


ONE_LEVEL = [levels for levels in itertools.product(("", "b"), repeat=4) if any(levels)]
TWO_LEVELS = list(itertools.product(("", "b", "n", "bn"), repeat=4))[1::6]
EVERY = [*ONE_LEVEL, *TWO_LEVELS]
SUBSET = [
    ("", "", "", "b"),
    ("b", "", "", ""),
    ("", "b", "", "b"),
    ("bn", "n", "", "b"),
    ("n", "b", "bn", ""),
    ("bn", "bn", "bn", "n"),
]


@pytest.mark.parametrize("mapped", EVERY if os.environ.get("EVERY_CASE") else SUBSET, ids=str)
def test_gradients_of_vmap_over_any_arguments(mapped):
    def gradients(name, *arrays):
        return jax.value_and_grad(partial(loss, mapped_head(name, mapped)), (0, 1, 2, 3))(*arrays)

    assert_equals_the_reference(gradients, *arrays_of(*mapped))


def test_vmap_of_a_gradient_gives_gradients_of_each_example_with_shared_keys_and_slope():
    def of_each(name, *arrays):
        gradient = jax.grad(partial(loss, partial(head, name)), (0, 1, 2, 3))
        return jax.vmap(gradient, (0, None, None, None))(*arrays)

    assert_equals_the_reference(of_each, *arrays_of("b", "", "", ""))


def test_a_gradient_of_a_checkpoint():
    def gradients(name, *arrays):
        kept = jax.checkpoint(lambda query, *rest: head(name, jnp.cos(query), *rest))
        return jax.grad(partial(loss, kept), (0, 1, 2, 3))(*arrays)

    assert_equals_the_reference(gradients, *arrays_of("", "", "", ""))


def test_forward_mode_and_second_derivatives():
    def derivatives(name, *arrays):
        function = partial(loss, partial(head, name))
        return jax.jvp(function, arrays, arrays), jax.jvp(jax.grad(function), arrays, arrays)

    assert_equals_the_reference(derivatives, *arrays_of("", "", "", ""))


def test_two_batch_axes_and_shared_key_heads():
    rows = draw(1, (2, 3, T, 4, H), (2, 1, T, 2, H), (2, 1, T, 2, V), (4,), dtype=jnp.float32)

    def gradients(name, query, key, value, slope):
        def attend(query, key, value, slope):
            mod = score_mods.alibi(slope[None, None])
            return attn_jax.dot_product_attention(
                query, key, value, is_causal=True, score_mod=mod, implementation=name
            )

        return jax.value_and_grad(partial(loss, attend), (0, 1, 2, 3))(query, key, value, slope)

    assert_equals_the_reference(gradients, *rows)


def test_dropout_drops_the_weights_that_blockwise_drops():
    """Values of the unit matrix make the output the weights."""
    query, key = draw(2, (T, H), (T, H), dtype=jnp.float32)
    dropped = [
        attn_jax.attend(
            query,
            key,
            jnp.eye(T),
            dropout_rate=0.4,
            dropout_rng=jax.random.key(3),
            implementation=name,
        )
        == 0
        for name in ("mosaic_tpu", "blockwise")
    ]
    assert 0.35 < dropped[0].mean() < 0.45
    assert (dropped[0] == dropped[1]).all()
