"""Heads and batch examples may be on any axis of each array, and stay on that axis."""

import jax
import jax.numpy as jnp
import pytest

import attn_jax
from attn_jax import masks
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_close

B, N, T, S, H, V = 2, 3, 5, 7, 4, 6
PLACES = {  # batch axes of query, key, value and output; head axes within an example
    "in front": ((0, 0, 0, 0), (0, 0, 0, 0)),
    "between rows and widths": ((0, 0, 0, 0), (1, 1, 1, 1)),
    "behind": ((3, 3, 3, 3), (2, 2, 2, 2)),
    "everywhere": ((2, 0, 3, 1), (0, 2, 1, 2)),
    "shared by the examples": ((1, None, 0, 3), (2, 1, 1, 0)),
    "shared by the heads": ((0, 0, 2, 0), (1, None, None, 1)),
}


def attention(implementation):
    def head(query, key, value):
        mask = masks.key_padding(4)
        return attn_jax.attend(query, key, value, mask=mask, implementation=implementation)

    return head


def in_place(array, example, head):
    """[B N L W] with heads and examples moved to the axes of `vmap`, or the first if shared."""
    array = array[:, 0] if head is None else jnp.moveaxis(array, 1, 1 + head)
    return array[0] if example is None else jnp.moveaxis(array, 0, example)


def in_front(array, example, head):
    """[B N L W] in which a shared array is repeated for all heads or examples."""
    array = array[:, :1] + 0 * array if head is None else array
    return array[:1] + 0 * array if example is None else array


@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
@pytest.mark.usefixtures("x64")
def test_output_and_gradients_are_the_same_wherever_the_axes_are(places, tiles):
    tiles(2, 3)
    (*examples, example), (*heads, head) = places
    arrays = draw(3, (B, N, T, H), (B, N, S, H), (B, N, S, V), dtype=jnp.float64)
    (cotangent,) = draw(4, (B, N, T, V))

    def placed(*arrays):
        over_heads = jax.vmap(attention("blockwise"), in_axes=tuple(heads), out_axes=head)
        over_all = jax.vmap(over_heads, in_axes=tuple(examples), out_axes=example)
        out = over_all(*map(in_place, arrays, examples, heads))
        return jnp.moveaxis(jnp.moveaxis(out, example, 0), 1 + head, 1)

    def plain(*arrays):
        return jax.vmap(jax.vmap(attention("reference")))(*map(in_front, arrays, examples, heads))

    out, transpose = jax.vjp(placed, *arrays)
    wanted, transpose_plain = jax.vjp(plain, *arrays)
    assert_close(out, wanted)
    for ours, theirs in zip(transpose(cotangent), transpose_plain(cotangent), strict=True):
        assert_close(ours, theirs, gradient=True)


@pytest.mark.parametrize("place", [0, 1], ids=["in front", "between rows and widths"])
def test_arrays_are_not_copied_to_bring_heads_to_the_front(place):
    T, N, H = 4096, 8, 64
    shape = (N, T, H) if place == 0 else (T, N, H)
    array = jax.ShapeDtypeStruct(shape, jnp.float32)

    def gradients(query, key, value, cotangent):
        over_heads = jax.vmap(attention("blockwise"), in_axes=place, out_axes=place)
        return jax.vjp(over_heads, query, key, value)[1](cotangent)

    compiled = jax.jit(gradients).lower(array, array, array, array).compile()
    temporary = compiled.memory_analysis().temp_size_in_bytes
    output_and_tiles = 4 * T * N * H + 4 * 4 * N * 256 * 256
    keys_and_values = 2 * 4 * T * N * H  # XLA's matmul needs heads in front
    assert temporary <= output_and_tiles + place * keys_and_values
