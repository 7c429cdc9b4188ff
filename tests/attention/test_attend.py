"""`attend` against the oracle: every score, every form of mask, output, weights and log-sum-exp."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import attn_jax
from attn_jax import masks, scores
from tests.helpers import oracle
from tests.helpers.cases import IMPLEMENTATIONS
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_close, assert_differs, assert_equal

pytestmark = pytest.mark.usefixtures("x64")

T, S, H, E, V, A = 5, 7, 4, 6, 3, 2

every_implementation = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)


def operands(seed, key_width=H):
    return draw(seed, (T, H), (S, key_width), (S, V))


W, W_CONCAT, V_CONCAT, V_ADDITIVE = (
    np.random.default_rng(0).normal(size=shape) for shape in ((H, E), (H + E, A), (A,), (H,))
)
SCORES = {
    "scaled dot": (H, None, None),
    "dot": (H, scores.dot, oracle.dot),
    "general": (E, (scores.general, {"kernel": W}), partial(oracle.general, w=W)),
    "additive": (
        H,
        (scores.additive, {"out_kernel": V_ADDITIVE}),
        partial(oracle.additive, v=V_ADDITIVE),
    ),
    "concat": (
        E,
        (scores.concat, {"kernel": W_CONCAT, "out_kernel": V_CONCAT}),
        partial(oracle.concat, w=W_CONCAT, v=V_CONCAT),
    ),
}


def ours(score):
    """A score of `SCORES` whose parameters are JAX arrays."""
    if not isinstance(score, tuple):
        return score
    function, parameters = score
    return partial(function, **{name: jnp.asarray(array) for name, array in parameters.items()})


def assert_attends_like_the_oracle(arrays, options, expected, implementation):
    """Output, log-sum-exp and weights of the same call."""
    out, weights, logsumexp = oracle.attention(*(np.asarray(a) for a in arrays), **expected)
    attention = partial(attn_jax.attend_with_logsumexp, implementation=implementation, **options)
    for got, wanted in zip(attention(*arrays), (out, logsumexp), strict=True):
        assert_close(got, wanted)
    assert_close(attn_jax.attend(*arrays, implementation=implementation, **options), out)
    assert_close(attn_jax.attention_weights(*arrays[:2], **options), weights)


@every_implementation
@pytest.mark.parametrize(("width", "score", "expected"), SCORES.values(), ids=SCORES)
def test_every_score_is_the_formula_of_its_paper(width, score, expected, implementation):
    arrays, score = operands(1, width), ours(score)
    assert_attends_like_the_oracle(arrays, {"score": score}, {"score": expected}, implementation)


READABLE = np.random.default_rng(2).random((T, S)) < 0.5
READABLE[2] = False
EARLIER = np.array([[j <= i for j in range(S)] for i in range(2, T + 2)])
AT_THE_END = np.arange(2, T + 2)
MASKS = {
    "an array": (READABLE, {}, READABLE),
    "an array for all queries": (READABLE[:1], {}, np.tile(READABLE[0], (T, 1))),
    "a rule": (
        masks.causal(),
        {"query_position": AT_THE_END, "key_position": np.arange(S)},
        EARLIER,
    ),
    "a callable": (
        lambda i, j: j <= i,
        {"query_position": AT_THE_END, "key_position": np.arange(S)},
        EARLIER,
    ),
    "a rule on moved keys": (
        masks.causal(),
        {"query_position": AT_THE_END, "key_position": np.arange(S)[::-1].copy()},
        np.array([[S - 1 - j <= i for j in range(S)] for i in range(2, T + 2)]),
    ),
    "a window": (
        masks.sliding_window(2, 1),
        {"query_position": AT_THE_END, "key_position": np.arange(S)},
        np.array([[i - 2 <= j <= i + 1 for j in range(S)] for i in range(2, T + 2)]),
    ),
    "padding": (masks.key_padding(3), {}, np.tile(np.arange(S) < 3, (T, 1))),
    "rules combined": (
        (masks.causal() & ~masks.key_padding(2)) | masks.key_padding(1),
        {"query_position": AT_THE_END, "key_position": np.arange(S)},
        np.array([[(j <= i and j >= 2) or j < 1 for j in range(S)] for i in range(2, T + 2)]),
    ),
}


@every_implementation
@pytest.mark.parametrize(("mask", "positions", "unmasked"), MASKS.values(), ids=MASKS)
def test_every_form_of_a_mask(mask, positions, unmasked, implementation):
    options = {name: jnp.asarray(position) for name, position in positions.items()}
    options["mask"] = jnp.asarray(mask) if isinstance(mask, np.ndarray) else mask
    assert_attends_like_the_oracle(operands(3), options, {"mask": unmasked}, implementation)


def soft_cap(logit, i, j):
    """Caps a logit to ±2 and adds a term of both positions."""
    return 2 * jnp.tanh(logit / 2) + 0.1 * (i - 2 * j).astype(logit.dtype)


@every_implementation
def test_the_order_is_scale_then_score_mod_then_mask_then_softmax(implementation):
    options = {"scale": 3.0, "score_mod": soft_cap, "query_position": jnp.asarray(AT_THE_END)}
    options["key_position"] = jnp.arange(S)
    expected = {
        "scale": 3.0,
        "score_mod": lambda logit, i, j: 2 * np.tanh(logit / 2) + 0.1 * (i - 2 * j),
        "query_position": AT_THE_END,
        "mask": READABLE,
    }
    arrays, mask = operands(4), {"mask": jnp.asarray(READABLE)}
    assert_attends_like_the_oracle(arrays, options | mask, expected, implementation)
    weights = attn_jax.attention_weights(*arrays[:2], **options, **mask)
    assert_equal(np.asarray(weights)[~READABLE], np.zeros((~READABLE).sum()))
    capped_first = {**options, "scale": 1.0, "score_mod": lambda *x: 3 * soft_cap(*x)}
    assert_differs(attn_jax.attention_weights(*arrays[:2], **capped_first, **mask), weights)


@every_implementation
def test_gradients_reach_every_captured_array(implementation):
    query, key, value, v, slope, table = draw(5, (T, H), (S, H), (S, V), (H,), (), (T + S,))

    def attention(query, key, value, v, slope, table):
        return attn_jax.attend_with_logsumexp(
            query,
            key,
            value,
            score=partial(scores.additive, out_kernel=v),
            score_mod=lambda logit, i, j: logit - slope * (i - j).astype(float) + table[i - j + S],
            mask=jnp.asarray(READABLE).at[2, 0].set(True),
            query_position=jnp.arange(T),
            key_position=jnp.arange(S),
            implementation=implementation,
        )

    arguments = (query, key, value, v, slope, table)
    check_grads(jax.jit(attention), arguments, order=2, modes=["rev"], rtol=1e-5)
    check_grads(jax.jit(attention), arguments, order=1, modes=["fwd"], rtol=1e-5)
    gradients = jax.grad(lambda *a: jnp.sum(jnp.square(attention(*a)[0])), argnums=range(6))(
        *arguments
    )
    for gradient in gradients:
        assert jnp.max(jnp.abs(gradient)) > 1e-3


@every_implementation
def test_logsumexp_is_differentiable(implementation):
    query, key, value = operands(6)

    def total(query):
        _, lse = attn_jax.attend_with_logsumexp(query, key, value, implementation=implementation)
        return jnp.sum(lse)

    mean_key = attn_jax.attend(query, key, key) / np.sqrt(H)
    assert_close(jax.grad(total)(query), mean_key)


@every_implementation
@pytest.mark.parametrize("split", [0, 1, 4])
def test_attention_over_parts_of_the_keys_merges_by_logsumexp(split, implementation):
    """Identity F6: output = Σ softmax(logsumexp) · outputs, also if a part is fully masked."""
    query, key, value = operands(7)
    attention = partial(attn_jax.attend_with_logsumexp, implementation=implementation)
    first, second = (
        attention(query, key[part], value[part]) for part in (slice(split), slice(split, S))
    )
    logsumexp = jnp.stack([first[1], second[1]])
    share = jax.nn.softmax(logsumexp, axis=0)[:, :, None]
    out, whole = attention(query, key, value)
    assert_close(share[0] * first[0] + share[1] * second[0], out)
    assert_close(jax.nn.logsumexp(logsumexp, axis=0), whole)


@every_implementation
@pytest.mark.parametrize("size", [1e3, 1e150])
def test_logits_of_any_size_stay_finite(size, implementation):
    query, key, value = operands(8)
    out, logsumexp = attn_jax.attend_with_logsumexp(
        size * query, key, value, implementation=implementation
    )
    assert_equal(out, value[jnp.argmax(query @ key.T, axis=1)])
    assert_close(logsumexp, size * jnp.max(query @ key.T, axis=1) / np.sqrt(H))


@every_implementation
def test_a_scale_of_a_wider_dtype_leaves_the_output_dtype(implementation):
    query, key, value = (array.astype(jnp.float32) for array in operands(9))
    attention = partial(attn_jax.attend_with_logsumexp, implementation=implementation)
    for ours, wanted in zip(
        attention(query, key, value, scale=np.float64(0.5)),
        attention(query, key, value, scale=np.float32(0.5)),
        strict=True,
    ):
        assert ours.dtype == jnp.float32
        assert_equal(ours, wanted)


@every_implementation
@pytest.mark.usefixtures("no_type_hook")
def test_the_dot_score_by_name_requires_equal_widths(implementation):
    query, key = jnp.ones((4, 3)), jnp.ones((5, 2))
    with pytest.raises(ValueError, match="key must be as wide as query, H = 3; got 2"):
        attn_jax.attend(query, key, key, score=scores.dot, implementation=implementation)
