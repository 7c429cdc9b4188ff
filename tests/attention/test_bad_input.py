"""Every mistake raises an error that names the argument, its value and the remedy."""

import re

import jax
import jax.numpy as jnp
import pytest

import attn_jax
from tests.helpers.cases import S
from tests.helpers.draws import draw
from tests.helpers.mistakes import HEADS, MISTAKES
from tests.helpers.tolerance import assert_differs, assert_equal


@pytest.mark.usefixtures("no_type_hook")
@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_refused_with_advice(mistake):
    with pytest.raises(mistake.error, match=re.compile(mistake.message, re.DOTALL)) as raised:
        mistake.function(**mistake.arguments)
    assert raised.type is mistake.error


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_refused_by_name_with_the_type_hook_too(mistake):
    message = rf"parameter '{mistake.argument}'|{mistake.message}"
    with pytest.raises((mistake.error, TypeError), match=re.compile(message, re.DOTALL)):
        mistake.function(**mistake.arguments)


@pytest.mark.parametrize("lengths", [[3, 100], [-1, 2]])
def test_traced_lengths_are_clipped_and_not_refused(lengths):
    arrays = draw(0, *(array.shape for array in HEADS.values()), dtype=jnp.float32)
    attention, lengths = jax.jit(attn_jax.dot_product_attention), jnp.array(lengths)
    clipped = attention(*arrays, key_value_seq_lengths=jnp.clip(lengths, 0, S))
    assert_equal(attention(*arrays, key_value_seq_lengths=lengths), clipped)
    assert_differs(clipped, attention(*arrays))


def test_the_axis_order_of_torch_makes_a_warning():
    """B2: PyTorch's order of axes, which no shape check finds if heads and positions divide."""
    of_torch = [jnp.zeros((2, 4, 32, 8))] * 3
    with pytest.warns(UserWarning, match=r"32 heads but 4 positions.*\(B, N, T, H\).*swapaxes"):
        attn_jax.dot_product_attention(*of_torch)


@pytest.mark.parametrize(("T", "S"), [(4, 32), (1, 1), (8, 8)])
def test_many_heads_alone_make_no_warning(T, S, recwarn):
    attn_jax.dot_product_attention(
        jnp.zeros((2, T, 32, 8)), jnp.zeros((2, S, 32, 8)), jnp.zeros((2, S, 32, 8))
    )
    assert not recwarn.list
