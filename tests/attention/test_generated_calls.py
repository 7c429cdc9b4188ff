"""Thousands of generated calls against the float64 oracle: output, log-sum-exp, every gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn_jax
from attn_jax import masks, score_mods
from tests.helpers.cases import IMPLEMENTATIONS
from tests.helpers.criterion import check
from tests.helpers.dense_oracle import attention
from tests.helpers.generated_calls import (
    CAP,
    CONFIGURATIONS,
    DRAWS,
    SCALE,
    WINDOW,
    definition,
    draws,
)

LEARNED = ("query", "key", "value", "bias", "slope", "table", "sink")


def packed(configuration, documents):
    """Documents of the queries and of the keys, by row number."""
    return masks.segments(
        documents[..., : configuration.sizes.T], documents[..., : configuration.sizes.S]
    )


def rule(configuration, documents):
    """The mask rules of the options; boolean arrays and lengths are passed as arguments."""
    rules, options = [], configuration.options
    if "causal" in options:
        rules.append(masks.causal())
    if "window" in options:
        rules.append(masks.sliding_window(*WINDOW))
    if documents is not None:
        rules.append(packed(configuration, documents))
    return functools.reduce(lambda a, b: a & b, rules) if rules else None


def score_mod_of(options, reals, lead):
    """The score_mod; `lead` gives slopes and tables the leading axes of the call."""
    parts = []
    if "alibi" in options:
        parts.append(score_mods.alibi(lead(reals["slope"])))
    if "table" in options:
        parts.append(
            score_mods.relative_bias(lead(reals["table"]), bidirectional=True, max_distance=16)
        )
    if "cap" in options:
        parts.append(score_mods.soft_cap(CAP))
    return functools.reduce(lambda a, b: a >> b, parts) if parts else None


def through_heads(configuration, implementation, reals, rules):
    """`dot_product_attention` with the argument names of jax.nn."""
    options = configuration.options
    mask = rules.get("mask")
    if mask is None and "documents" in rules:
        mask = packed(configuration, rules["documents"][:, None])
    return {
        "out": attn_jax.dot_product_attention(
            reals["query"],
            reals["key"],
            reals["value"],
            reals.get("bias"),
            mask,
            score_mod=score_mod_of(options, reals, lambda array: array[None]),
            scale=SCALE if "scale" in options else None,
            is_causal="causal" in options,
            local_window_size=WINDOW if "window" in options else None,
            query_seq_lengths=rules.get("query-lengths"),
            key_value_seq_lengths=rules.get("key-lengths"),
            query_position=rules["query_position"],
            key_position=jnp.arange(configuration.sizes.S),
            sink=reals.get("sink"),
            implementation=implementation,
        )
    }


def through_one_head(configuration, implementation, reals, rules):
    """`attend_with_logsumexp` with `vmap` over heads and examples."""
    options, s = configuration.options, configuration.sizes

    def head(query, key, value, of_head, mask, documents):
        return attn_jax.attend_with_logsumexp(
            query,
            key,
            value,
            mask=rule(configuration, documents) if mask is None else mask,
            score_mod=score_mod_of(options, of_head, lambda array: array),
            scale=SCALE if "scale" in options else None,
            query_position=rules["query_position"],
            key_position=jnp.arange(configuration.sizes.S),
            sink=of_head.get("sink"),
            implementation=implementation,
        )

    mask, documents = rules.get("mask"), rules.get("documents")
    if mask is not None:
        mask = jnp.broadcast_to(mask, (s.B, s.N, s.T, s.S))
    of_head = {name: reals[name] for name in ("slope", "table", "sink") if name in reals}
    heads = jax.vmap(head, in_axes=(1, 1, 1, 0, 0, None), out_axes=(1, 0))
    examples = jax.vmap(heads, in_axes=(0, 0, 0, None, 0, 0))
    out, lse = examples(reals["query"], reals["key"], reals["value"], of_head, mask, documents)
    return {"out": out, "lse": lse}


def compiled(configuration, implementation):
    """Results and gradients of one draw, in one executable."""
    through = through_heads if configuration.heads else through_one_head

    @jax.jit
    def run(reals, rules, cotangents):
        attend = functools.partial(through, configuration, implementation, rules=rules)
        results, transpose = jax.vjp(lambda reals: attend(reals=reals), reals)
        cotangents = jax.tree.map(lambda c, r: c.astype(r.dtype), cotangents, results)
        (gradients,) = transpose(cotangents)
        return results | {f"d_{name}": gradient for name, gradient in gradients.items()}

    return run


def results(configuration, implementation, arrays):
    """The library's results for all draws, stacked."""
    run, dtype = compiled(configuration, implementation), configuration.dtype
    reals = {name: arrays[name].astype(dtype) for name in LEARNED if name in arrays}
    names = {"cotangent": "out", "cotangent_lse": "lse"}
    cotangents = {names[name]: arrays[name] for name in names if name in arrays}
    rest = {"mask", "documents", "query_position", "query-lengths", "key-lengths"} & set(arrays)
    rules = {name: arrays[name] for name in rest}
    out = []
    for draw in range(DRAWS):
        one = jax.tree.map(lambda array: array[draw], (reals, rules, cotangents))  # noqa: B023
        out.append(jax.device_get(run(*one)))
    assert run._cache_size() == 1
    return {name: np.stack([one[name] for one in out]) for name in out[0]}


def in_float32(given: dict) -> dict:
    return {
        name: array.astype(np.float32) if getattr(array, "dtype", None) == np.float64 else array
        for name, array in given.items()
    }


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=str)
def test_every_draw_is_as_near_to_float64_as_its_dtype_allows(configuration, implementation, tiles):
    tiles(*configuration.sizes.tile)
    arrays = draws(configuration)
    with jax.enable_x64(configuration.dtype == "float64"):
        ours = results(configuration, implementation, arrays)
    given, unmasked = definition(configuration, arrays)
    assert_near(ours, given, unmasked, configuration.dtype)


def assert_near(ours, given, unmasked, dtype):
    """Checks every result of every draw by the criterion; log-sum-exp is at least float32."""
    exact, condition = attention(given, unmasked)
    with np.errstate(invalid="ignore"):
        naive, _ = attention(in_float32(given), unmasked)
        for name, result in ours.items():
            own = "float32" if name == "lse" and dtype != "float64" else dtype
            for draw in range(len(result)):
                shape = result[draw].shape
                check(
                    name,
                    result[draw],
                    exact[name][draw].reshape(shape),
                    condition[name][draw].reshape(shape),
                    naive=naive[name][draw].reshape(shape),
                    greatest_logit=float(exact["greatest_logit"][draw].max(initial=0)),
                    dtype=own,
                )


def test_there_are_as_many_cases_as_promised():
    assert len(set(map(str, CONFIGURATIONS))) == len(CONFIGURATIONS) >= 24
    assert len(CONFIGURATIONS) * DRAWS * len(IMPLEMENTATIONS) >= 2880
