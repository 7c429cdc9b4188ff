"""An exported attention call, written to bytes and loaded, has the same output and gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import attn_jax
from attn_jax import masks, models, score_mods
from tests.helpers.cases import IMPLEMENTATIONS
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_close

# jaxtyping's hook cannot broadcast symbolic sizes.
pytestmark = pytest.mark.usefixtures("no_type_hook")

B, T, N, K, H, V = 2, 24, 4, 2, 8, 5


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_what_was_written_to_bytes_computes_the_same(implementation, tiles):
    tiles(16, 8)
    documents = jnp.arange(T, dtype=jnp.int32) // 10

    @jax.jit
    def attention(query, key, value, slopes):
        return attn_jax.dot_product_attention(
            query,
            key,
            value,
            mask=masks.segments(documents) & masks.causal(),
            score_mod=score_mods.alibi(slopes),
            implementation=implementation,
        )

    *arrays, cotangent = draw(
        5, (B, T, N, H), (B, T, K, H), (B, T, K, V), (1, N), (B, T, N, V), dtype=jnp.float32
    )
    written = jax.export.export(attention, platforms=["cpu", "tpu", "cuda"])(*arrays)
    loaded = jax.export.deserialize(written.serialize(vjp_order=1))
    assert loaded.platforms == ("cpu", "tpu", "cuda")

    def output_and_gradients(function, *arrays):
        out, transpose = jax.vjp(function, *arrays)
        return out, *transpose(cotangent)

    computed, expected = (
        output_and_gradients(loaded.call, *arrays),
        output_and_gradients(attention, *arrays),
    )
    for got, wanted in zip(computed, expected, strict=True):
        assert_close(got, wanted, gradient=True)


def by_symbols(function, shapes, order):
    """A function of arrays with symbolic sizes, exported, written to bytes and loaded."""
    scope = jax.export.SymbolicScope()
    types = [
        jax.ShapeDtypeStruct(jax.export.symbolic_shape(shape, scope=scope), dtype)
        for shape, dtype in shapes
    ]
    written = jax.export.export(jax.jit(function))(*types)
    return jax.export.deserialize(written.serialize(vjp_order=order))


def drawn(shapes, **sizes):
    """Arrays of these sizes: normal draws, masks made of such draws, and lengths of at least 3."""
    arrays = []
    for n, (shape, dtype) in enumerate(shapes):
        size = tuple(sizes[d] if d in sizes else int(d) for d in shape.split(","))
        (normal,) = draw(n, size, dtype=jnp.float32)
        kinds = {"float32": normal, "bool": normal > -1, "int32": 3 + jnp.arange(size[0])}
        arrays.append(kinds[dtype])
    return arrays


def heads(rows, keys, *more):
    kinds = f"b,{rows},4,8", f"b,{keys},2,8", f"b,{keys},2,3"
    return [*((kind, "float32") for kind in kinds), *more]


def causal(query, key, value, bias, implementation):
    rule = masks.causal() & masks.sliding_window(70, 0)
    return attn_jax.dot_product_attention(
        query, key, value, bias, rule, implementation=implementation
    )


def padded(query, key, value, mask, length, implementation):
    return attn_jax.dot_product_attention(
        *(query, key, value),
        mask=mask,
        key_value_seq_lengths=length,
        implementation=implementation,
    )


def mapped(query, key, value, mask, implementation):
    def one(query, key, value, mask):
        def near(logit, i, j):
            return logit - 0.1 * abs(i - j).astype(logit.dtype)

        position = jnp.arange(query.shape[0])
        return attn_jax.attend(
            *(query, key, value),
            mask=mask[None],
            score_mod=near,
            query_position=position,
            key_position=jnp.arange(key.shape[0]),
            implementation=implementation,
        )

    return jax.vmap(one)(query, key, value, mask)


# A call, and the sizes of its arrays; letters are symbolic sizes.
BY_SYMBOLS = {
    "causal": (causal, heads("t", "t", ("1,4,t,t", "float32"))),
    "an array and lengths": (padded, heads("t", "s", ("b,1,t,s", "bool"), ("b", "int32"))),
    "attend, mapped": (
        mapped,
        [("b,t,8", "float32"), ("b,s,8", "float32"), ("b,s,3", "float32"), ("b,s", "bool")],
    ),
}
CALLS = [
    ("causal", None, 0),
    ("attend, mapped", None, 0),
    ("an array and lengths", "reference", 0),
    ("an array and lengths", None, 1),  # 13 s on an idle core: three loops over symbols, compiled
]


@pytest.mark.parametrize(("name", "implementation", "order"), CALLS)
def test_one_export_serves_every_batch_and_length(name, implementation, order):
    attention, shapes = BY_SYMBOLS[name]
    loaded = by_symbols(partial(attention, implementation=implementation), shapes, order)

    def results(function, arrays):
        if not order:
            return [function(*arrays)]
        out, pull = jax.vjp(lambda *rows: function(*rows, *arrays[3:]), *arrays[:3])
        return [out, *pull(jnp.cos(out))]

    plain = partial(attention, implementation="reference")
    for arrays in (drawn(shapes, b=2, t=5, s=7), drawn(shapes, b=3, t=150, s=131)):
        computed = results(loaded.call, arrays)
        for got, wanted in zip(computed, results(plain, arrays), strict=True):
            assert_close(got, wanted, gradient=bool(order))


def test_a_kernel_that_needs_known_sizes_refuses_symbolic_ones():
    with pytest.raises(NotImplementedError, match="t queries and s keys"):
        by_symbols(
            partial(padded, implementation="cudnn"), BY_SYMBOLS["an array and lengths"][1], 0
        )


def test_a_language_model_is_exported_for_every_batch_and_length():
    sizes = {"vocab_size": 11, "model_dim": 8, "num_layers": 1, "num_heads": 2, "max_length": 9}
    model = models.GPT(models.DecoderConfig(**sizes), rngs=nnx.Rngs(0))
    parts, arrays = nnx.split(model)
    loaded = by_symbols(lambda tokens: nnx.merge(parts, arrays)(tokens), [("b,t", "int32")], 0)
    for B, T in ((2, 5), (3, 9)):
        tokens = jnp.arange(B * T).reshape(B, T) % 11
        assert_close(loaded.call(tokens), model(tokens))
    assert jnp.isnan(loaded.call(jnp.zeros((1, 10), jnp.int32))[0, -1]).all()
