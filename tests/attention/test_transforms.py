"""JAX's transforms work on attention in any order, with one compilation per shape."""

from functools import partial

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest

import attn_jax
from attn_jax import masks
from tests.helpers.cases import IMPLEMENTATIONS, B, H, K, N, S, T, V
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_close, assert_differs, assert_same_but_for_rounding

pytestmark = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)

AT_THE_END = jnp.arange(S - T, S)


def operands(seed=0):
    return draw(seed, (B, T, N, H), (B, S, K, H), (B, S, K, V), dtype=jnp.float32)


def one_head(seed=0):
    return draw(seed, (T, H), (S, H), (S, V), dtype=jnp.float32)


def test_eager_and_jit_agree(run, implementation):
    attend = partial(attn_jax.attend, implementation=implementation)
    (query, key, value), (mask,) = one_head(1), draw(2, (T, S), dtype=jnp.float32)
    out = run(lambda *a: attend(*a[:3], mask=a[3] > 0))(query, key, value, mask)
    logits = jnp.where(mask > 0, query @ key.T / np.sqrt(H).astype(np.float32), -jnp.inf)
    assert_close(out, jax.nn.softmax(logits, axis=-1) @ value)


def test_heads_and_examples_are_vmap(implementation):
    query, key, value = operands(3)
    attend = partial(
        attn_jax.attend, mask=masks.causal(), query_position=AT_THE_END, key_position=jnp.arange(S)
    )
    attend = partial(attend, implementation=implementation)
    repeated = (jnp.repeat(array, N // K, axis=2) for array in (key, value))
    heads = jax.vmap(attend, in_axes=1, out_axes=1)
    mapped = jax.vmap(heads)(query, *repeated)
    fused = attn_jax.dot_product_attention(
        query,
        key,
        value,
        is_causal=True,
        query_position=AT_THE_END,
        key_position=jnp.arange(S),
        implementation=implementation,
    )
    assert_close(mapped, fused)


MAPPED = {
    "mask": lambda option: {"mask": option > 0},
    "position": lambda option: {
        "mask": masks.causal(),
        "query_position": AT_THE_END - jnp.argmax(option[0]),
        "key_position": jnp.arange(S),
    },
    "length": lambda option: {"mask": masks.key_padding(1 + jnp.argmax(option[0]))},
    "slope": lambda option: {
        "score_mod": lambda logit, i, j: logit - option[0, 0] * (i - j).astype(logit.dtype),
        "query_position": AT_THE_END,
        "key_position": jnp.arange(S),
    },
    "scale": lambda option: {"scale": jnp.exp(option[0, 0])},
}


@pytest.mark.parametrize("options", MAPPED.values(), ids=MAPPED)
def test_vmap_over_an_option_alone_is_a_loop(options, implementation):
    query, key, value = one_head(4)
    (choices,) = draw(5, (3, T, S), dtype=jnp.float32)

    def attend(option):
        return attn_jax.attend(query, key, value, implementation=implementation, **options(option))

    mapped = jax.vmap(attend)(choices)
    assert_close(mapped, jnp.stack([attend(choice) for choice in choices]))
    assert_differs(mapped[0], mapped[1])


def test_vmap_over_a_batch_is_a_batch(implementation):
    query, key, value = operands(6)
    (mask,) = draw(7, (B, N, T, S), dtype=jnp.float32)
    attend = partial(attn_jax.dot_product_attention, implementation=implementation)
    batched = attend(query, key, value, None, mask > 0)
    assert_close(
        jax.vmap(attend, in_axes=(0, 0, 0, None, 0))(query, key, value, None, mask > 0), batched
    )


def loss(attention, query, key, value):
    return jnp.sum(jnp.square(attention(query, key, value)))


def test_remat_changes_no_gradient(implementation):
    attend = partial(attn_jax.dot_product_attention, implementation=implementation)
    gradient = jax.jit(jax.grad(partial(loss, attend), argnums=(0, 1, 2)))
    again = jax.jit(jax.grad(partial(loss, jax.checkpoint(attend)), argnums=(0, 1, 2)))
    for ours, wanted in zip(again(*operands(8)), gradient(*operands(8)), strict=True):
        assert_close(ours, wanted, gradient=True)


def test_a_scan_over_single_queries_is_the_call_of_all_queries(implementation):
    query, key, value = one_head(9)
    attend = partial(attn_jax.attend, mask=masks.causal(), key_position=jnp.arange(S))
    attend = partial(attend, implementation=implementation)

    def step(count, query):
        out = attend(query[None], key, value, query_position=count[None])
        return count + 1, out[0]

    _, out = jax.lax.scan(step, jnp.array(S - T), query)
    assert_close(out, attend(query, key, value, query_position=AT_THE_END))


def test_forward_mode_is_reverse_mode(implementation):
    attend = partial(attn_jax.attend, implementation=implementation)
    arrays, tangents, (cotangent,) = one_head(10), one_head(11), draw(12, (T, V), dtype=jnp.float32)
    _, tangent = jax.jvp(attend, tuple(arrays), tuple(tangents))
    gradients = jax.vjp(attend, *arrays)[1](cotangent)
    forward = jnp.vdot(tangent, cotangent)
    reverse = sum(jnp.vdot(g, t) for g, t in zip(gradients, tangents, strict=True))
    assert_close(forward, reverse, gradient=True)


@pytest.mark.parametrize("axis", [0, 2])
def test_arrays_sharded_over_examples_or_heads_give_the_same_numbers(axis, implementation):
    mesh = jax.make_mesh((2,), ("shards",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec(*[None] * axis, "shards")
    sharding = jax.sharding.NamedSharding(mesh, spec)
    attend = jax.jit(partial(attn_jax.dot_product_attention, implementation=implementation))
    arrays = operands(13)
    out = attend(*jax.device_put(arrays, sharding))
    assert_same_but_for_rounding(out, attend(*arrays))
    assert out.sharding.is_equivalent_to(sharding, out.ndim)


def count_compilations(function):
    """The number of XLA compilations during `function`."""
    seen = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        function()
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    return len(seen)


ONES = [1.0, 1, np.float32(1), np.float64(1), jnp.float32(1)]


def test_a_scale_of_any_kind_of_number_compiles_once(implementation):
    arrays = operands(14)
    attend = partial(attn_jax.dot_product_attention, *arrays, implementation=implementation)
    first = attend(scale=2.0)
    assert_differs(attend(scale=0.5), first)
    for one in ONES:
        assert count_compilations(lambda one=one: attend(scale=one)) == 0
    other_rule = {
        "local_window_size": (4, 2),
        "query_position": AT_THE_END,
        "key_position": jnp.arange(S),
    }
    assert count_compilations(lambda: attend(scale=1.0, **other_rule)) > 0


def test_a_new_lambda_reuses_the_compiled_function_of_an_equal_one(implementation):
    query, key, value = one_head(17)

    def attend(slope, factor=1.0):
        return attn_jax.attend(
            query,
            key,
            value,
            mask=lambda i, j: j <= i,
            score_mod=lambda logit, i, j: factor * logit - slope * (i - j).astype(logit.dtype),
            query_position=AT_THE_END,
            key_position=jnp.arange(S),
            implementation=implementation,
        )

    slopes = [jnp.float32(0.25), jnp.float32(0.5)]
    first = attend(slopes[0])
    assert count_compilations(lambda: assert_differs(attend(slopes[1]), first)) == 0
    assert count_compilations(lambda: attend(slopes[0], factor=2.0)) > 0


SELF_ATTENTIONS = {
    "simplified": (attn_jax.simplified_self_attention, ((11, 4),)),
    "self": (attn_jax.self_attention, ((11, 4), (4, 3), (4, 3), (4, 6))),
    "causal": (attn_jax.causal_self_attention, ((11, 4), (4, 3), (4, 3), (4, 6))),
    "heads": (attn_jax.multi_head_self_attention, ((11, 4), (4, 2, 3), (4, 2, 3), (4, 2, 6))),
}


@pytest.mark.parametrize(("function", "shapes"), SELF_ATTENTIONS.values(), ids=SELF_ATTENTIONS)
def test_a_self_attention_compiles_once_a_shape(function, shapes, implementation):
    jax.clear_caches()
    del implementation  # the library chooses
    arrays, others = draw(15, *shapes, dtype=jnp.float32), draw(16, *shapes, dtype=jnp.float32)
    assert count_compilations(lambda: function(*arrays)) == 1
    assert count_compilations(lambda: function(*others)) == 0
