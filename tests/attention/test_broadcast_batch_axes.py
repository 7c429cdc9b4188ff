"""A batch axis of size 1 is broadcast: one memory for many queries, and the reverse."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import attn_jax
from attn_jax.modules import MultiHeadAttention
from tests.helpers import oracle
from tests.helpers.cases import IMPLEMENTATIONS, B, H, K, N, S, T, V
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_close, assert_differs

BATCHES = {  # batch shapes of query, key and value
    "one memory": ((B,), (1,), (1,)),
    "one query": ((1,), (B,), (B,)),
    "one key": ((B,), (1,), (B,)),
    "crosswise": ((3, 1), (1, B), (1, B)),
    "each its own axes": ((3, 1), (3, B), (1, 1)),
}


def arrays(batches, seed=0, dtype=jnp.float64):
    shapes = ((T, N, H), (S, K, H), (S, K, V))
    return draw(seed, *((*b, *s) for b, s in zip(batches, shapes, strict=True)), dtype=dtype)


def written_out(operands, batches):
    full = np.broadcast_shapes(*batches)
    return [jnp.broadcast_to(x, (*full, *x.shape[-3:])) for x in operands]


@pytest.mark.parametrize(
    ("batches", "implementation"),
    [(name, "reference") for name in BATCHES]
    + [(name, "blockwise") for name in ("one memory", "crosswise")],
)
@pytest.mark.usefixtures("x64")
def test_output_and_gradients_are_those_of_copies(batches, implementation):
    """The gradient of a shared array is the sum of the gradients of its copies."""
    batches = BATCHES[batches]
    full = np.broadcast_shapes(*batches)
    bias, cotangent = draw(1, (*full[:-1], 1, N, 1, S), (*full, T, N, V), dtype=jnp.float64)
    operands = [*arrays(batches), bias]

    @jax.jit
    def attention(operands, cotangent):
        def plain(*arrays):
            return attn_jax.dot_product_attention(*arrays, implementation=implementation)

        out, transpose = jax.vjp(plain, *operands)
        return out, transpose(cotangent)

    out, gradients = attention(operands, cotangent)
    copies = [np.asarray(x) for x in written_out(operands[:3], batches)]
    options = {"bias": np.asarray(bias)}
    assert_close(out, oracle.multi_head(*copies, **options))
    wanted = oracle.multi_head_gradients(*copies, np.asarray(cotangent), **options)
    for array, gradient, whole in zip(operands, gradients, wanted, strict=True):
        axes = tuple(n for n, size in enumerate(array.shape) if size != whole.shape[n])
        assert_close(gradient, whole.sum(axis=axes, keepdims=True), gradient=True)


@pytest.mark.parametrize("batches", [BATCHES["one memory"], BATCHES["one query"]])
def test_every_option_per_example_works_with_a_shared_memory(batches):
    operands = arrays(batches, dtype=jnp.float32)
    each = {
        "mask": jnp.asarray(np.random.default_rng(3).random((B, 1, T, S)) < 0.7),
        "query_seq_lengths": jnp.array([5, 2]),
        "key_value_seq_lengths": jnp.array([4, 7]),
        "query_position": jnp.array([[0, 1, 2, 3, 4], [2, 6, 3, 5, 4]]),
        "key_position": jnp.arange(S)[None],
        "local_window_size": (3, 1),
        "dropout_rate": 0.3,
        "dropout_rng": jax.random.key(5),
    }
    out = attn_jax.dot_product_attention(*operands, **each)
    assert_close(out, attn_jax.dot_product_attention(*written_out(operands, batches), **each))
    assert_differs(out[:1], out[1:])


@pytest.mark.parametrize("name", ["query_seq_lengths", "key_value_seq_lengths"])
def test_one_length_may_be_shared_by_all_examples(name):
    operands = arrays(BATCHES["one memory"], dtype=jnp.float32)
    one = attn_jax.dot_product_attention(*operands, **{name: jnp.array([3])})
    each = attn_jax.dot_product_attention(*operands, **{name: jnp.array([3, 3])})
    assert_close(one, each)
    assert_differs(one, attn_jax.dot_product_attention(*operands))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_shared_memory_needs_no_copies(implementation):
    examples, length, heads, width = 64, 1024, 2, 64
    query = jax.ShapeDtypeStruct((examples, 8, heads, width), jnp.float32)
    memory = jax.ShapeDtypeStruct((1, length, heads, width), jnp.float32)
    attention = functools.partial(attn_jax.dot_product_attention, implementation=implementation)
    compiled = jax.jit(attention).lower(query, memory, memory).compile()
    copies = 4 * examples * length * heads * width
    assert compiled.memory_analysis().temp_size_in_bytes < copies // 2


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (((2,), (3,), (3,)), r"key must have shape \[\*#B S K H\] with \*B = 2.*got \[3, 7"),
        (((1,), (2,), (3,)), r"value must have shape .*\*B = 2, .*got \[3, 7"),
        (((2,), (), ()), r"key must have shape .*\*B = 2.*got \[7, 2, 8\]"),
        (((3, 2), (2,), (2,)), r"key must have shape .*\*B = 3×2.*got \[2, 7, 2, 8\]"),
    ],
)
@pytest.mark.usefixtures("no_type_hook")
def test_batches_that_do_not_fit_are_refused(batches, message):
    with pytest.raises(ValueError, match=message):
        attn_jax.dot_product_attention(*arrays(batches, dtype=jnp.float32))


def test_a_batch_of_no_examples_takes_a_shared_memory():
    operands = arrays(((0,), (1,), (1,)), dtype=jnp.float32)
    assert attn_jax.dot_product_attention(*operands).shape == (0, T, N, V)


def test_a_layer_takes_one_memory_for_all_examples():
    layer = MultiHeadAttention(6, N, memory_dim=3, head_dim=H, rngs=nnx.Rngs(0))
    x, memory = draw(6, (B, T, 6), (1, S, 3), dtype=jnp.float32)
    mask = jnp.asarray(np.random.default_rng(7).random((B, 1, T, S)) < 0.7)
    copies = jnp.broadcast_to(memory, (B, S, 3))
    assert_close(layer(x, memory, mask=mask), layer(x, copies, mask=mask))
    query, key = layer.project_query(x), layer.project_memory(memory)[0]
    logits = jnp.einsum("BTNH,SNH->BNTS", query, key[0]) / np.float32(np.sqrt(H))
    weights = jax.nn.softmax(jnp.where(mask, logits, -jnp.inf))
    assert_close(layer.stats(x, memory, mask=mask, top=2).received, weights.sum(axis=2))


def test_explain_counts_the_bytes_of_a_shared_memory_once():
    shared = attn_jax.explain(*arrays(BATCHES["one query"], dtype=jnp.float32))
    copied = attn_jax.explain(
        *written_out(arrays(BATCHES["one query"], dtype=jnp.float32), BATCHES["one query"])
    )
    assert (shared.flops, shared.tiles) == (copied.flops, copied.tiles)
    assert copied.bytes_moved - shared.bytes_moved == 4 * (B - 1) * T * N * H
