"""NumPy arrays and numbers are converted as JAX converts them, under strict dtype promotion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import attn_jax
from attn_jax import caches, masks, modules, score_mods
from tests.helpers.tolerance import assert_equal

pytestmark = [
    pytest.mark.usefixtures("no_type_hook"),
    pytest.mark.filterwarnings("error:Explicitly requested dtype float64"),
]

B, T, S, N, H = 2, 3, 5, 2, 4
RNG = np.random.default_rng(0)
QUERY, KEY, VALUE = (RNG.normal(size=(rows, H)) for rows in (T, S, S))
QUERIES, KEYS, VALUES = (RNG.normal(size=(B, rows, N, H)) for rows in (T, S, S))
MASK, BIAS, TABLE = RNG.random((T, S)) < 0.7, RNG.normal(size=(S, S)), RNG.normal(size=8)
WHERE = {"query_position": np.arange(2, 2 + T), "key_position": np.arange(S)}
ROWS = {"query_row": np.arange(2, 2 + T), "key_row": np.arange(S)}


def cached(keys, values, queries, is_real, **options):
    cache = caches.contiguous(B, 6, N, H, dtype=jax.dtypes.canonicalize_dtype(keys.dtype))
    return attn_jax.cached_attention(queries, cache.append(keys, values, is_real)[1], **options)


def layer(x, mask, position):
    options = {"mask": masks.causal(), "rotary": modules.Rotary(), "rngs": nnx.Rngs(0)}
    dtype = jax.dtypes.canonicalize_dtype(x.dtype)
    attention = modules.MultiHeadAttention(8, 2, param_dtype=dtype, **options)
    return attention(x, mask=mask, query_position=position)


# A call, and its arguments.
CALLS = {
    "attend": (
        lambda q, k, v, o: attn_jax.attend(q, k, v, score_mod=lambda x, i, j: 2 * x, **o),
        (QUERY, KEY, VALUE, {"mask": MASK, **WHERE}),
    ),
    "attend_with_logsumexp": (
        lambda q, k, v, o: attn_jax.attend_with_logsumexp(q, k, v, **o),
        (QUERY, KEY, VALUE, {"sink": np.float64(0.5), "scale": np.float64(0.3)}),
    ),
    "attention_weights": (
        lambda q, k, o: attn_jax.attention_weights(q, k, **o),
        (QUERY, KEY, {"mask": MASK}),
    ),
    "attention_stats": (
        lambda q, k, o: attn_jax.attention_stats(q, k, score_mod=lambda x, i, j: x / 2, **o),
        (QUERY, KEY, {"sink": np.float64(0.5), **WHERE}),
    ),
    "score mods": (
        lambda q, k, v, b, t, o: attn_jax.attend(
            *(q, k, v),
            score_mod=score_mods.dense_bias(b)
            >> score_mods.relative_bias(t, bidirectional=True)
            >> score_mods.soft_cap(np.float64(3)),
            **o,
        ),
        (QUERY, KEY, VALUE, BIAS, TABLE, WHERE | ROWS),
    ),
    "scores": (
        lambda q, k, w: attn_jax.scores.general(q, k, kernel=w),
        (QUERY, KEY, RNG.normal(size=(H, H))),
    ),
    "merge_partials": (
        lambda *parts: attn_jax.merge_partials(parts[:2], parts[2:]),
        (KEY, KEY[:, 0], VALUE, VALUE[:, 1]),
    ),
    "dot_product_attention": (
        lambda q, k, v, o: attn_jax.dot_product_attention(q, k, v, is_causal=True, **o),
        (
            QUERIES,
            KEYS,
            VALUES,
            {
                "mask": MASK[None, None],
                "bias": BIAS[None, None, :T],
                "sink": np.array([0.0, 1.0]),
                "key_value_seq_lengths": np.array([4, 5]),
                **WHERE,
            },
        ),
    ),
    "cached_attention": (cached, (KEYS, VALUES, KEYS + 1, np.ones((B, S), bool))),
    "layer": (
        layer,
        (RNG.normal(size=(B, T, 8)), np.ones((B, 1, T, T), bool), WHERE["query_position"]),
    ),
    "masks": (
        lambda mask, ids, i, j, rows: masks.evaluate(
            masks.from_array(mask) & masks.segments(ids) & (lambda i, j: np.bool_(True)),
            *(i, j),
            **rows,
        ),
        (BIAS > 0, np.array([0, 0, 0, 3, 3]), *WHERE.values(), ROWS),
    ),
    "block_mask": (
        lambda i, j: attn_jax.block_mask(
            masks.causal(), T, S, query_position=i, key_position=j, tile=(2, 2)
        ),
        tuple(WHERE.values()),
    ),
    "dropout_mask": (
        lambda i, j: attn_jax.dropout_mask(jax.random.key(0), 0.3, i, j),
        tuple(WHERE.values()),
    ),
}


def same_as_jax(name: str) -> None:
    call, arguments = CALLS[name]
    given, wanted = call(*arguments), call(*jax.tree.map(jnp.asarray, arguments))
    assert jax.tree.leaves(given)
    jax.tree.map(assert_equal, given, wanted)


@pytest.mark.parametrize("name", CALLS)
def test_numpy_arrays_of_float64_are_taken_as_jax_takes_them(name):
    same_as_jax(name)


@pytest.mark.parametrize("name", ["attend", "layer", "masks"])
def test_numpy_arrays_of_float64_stay_so_where_jax_has_it(name, x64):
    same_as_jax(name)


CONSTANTS = {
    "float64 of NumPy": lambda logit, i, j: np.float64(0.25),
    "float of Python": lambda logit, i, j: 0.25,
    "array of float64": lambda logit, i, j: jnp.asarray(0.25, "float64"),
    "the logit's": lambda logit, i, j: jnp.float32(0.25),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_a_score_mod_may_return_a_number_of_more_bits(name, x64):
    x = jnp.asarray(VALUE, jnp.float32)
    out = attn_jax.attend(x, x, x, score_mod=CONSTANTS[name])
    assert_equal(out, attn_jax.attend(x, x, x, score_mod=lambda logit, i, j: 0 * logit))


def test_a_score_mod_may_not_return_fewer_bits_nor_an_integer():
    x = jnp.asarray(VALUE, jnp.float32)
    for narrow in (lambda logit, i, j: logit.astype(jnp.float16), lambda logit, i, j: i - j):
        with pytest.raises(TypeError, match="score_mod must return one scalar of dtype float32"):
            attn_jax.attend(x, x, x, score_mod=narrow)


def test_a_boolean_array_inside_of_a_mask_stays_boolean():
    x = jnp.asarray(RNG.normal(size=(1, T, 8)), jnp.float32)
    own = modules.MultiHeadAttention(8, 2, mask=masks.causal(), rngs=nnx.Rngs(0))
    mask = np.array([[[[True], [False], [True]]]]) & np.ones((1, 1, T, T), bool)
    assert_equal(own(x, mask=mask), own(x, mask=jnp.asarray(mask)))


@pytest.mark.parametrize("shape", [(0, 4), (2, 0, 3, 4), (0, 2, 3, 4)], ids=str)
def test_explain_counts_nothing_where_there_is_no_query(shape):
    x, keys = np.zeros(shape), np.zeros((*shape[:-3], 5, *shape[-2:]) if len(shape) > 2 else (5, 4))
    explanation = attn_jax.explain(x, keys, keys)
    assert explanation.flops == explanation.tiles_visited * 0
    assert explanation.bytes_moved == 2 * keys.size * 4


def test_explain_counts_the_bytes_that_jax_moves_of_numpy_arrays():
    given = attn_jax.explain(QUERY, KEY, VALUE, mask=MASK)
    wanted = attn_jax.explain(
        *(jnp.asarray(x) for x in (QUERY, KEY, VALUE)), mask=jnp.asarray(MASK)
    )
    assert given.bytes_moved == wanted.bytes_moved == 4 * 2 * H * (T + S) + T * S
