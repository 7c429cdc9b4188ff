"""Wrong calls: for each the wrong argument, the call, the error and its message."""

from typing import Any, NamedTuple

import jax.numpy as jnp

import attn_jax
from attn_jax import masks, positions, scores
from tests.helpers.cases import B, H, K, N, S, T, V


class Mistake(NamedTuple):
    """`function(**arguments)` raises `error`, which names `argument` and matches `message`."""

    argument: str
    function: Any
    arguments: dict[str, Any]
    error: type[Exception]
    message: str


def zeros(*shape, dtype=jnp.float32):
    return jnp.zeros(shape, dtype)


def mistake(function, good, argument, bad, error, message, **others) -> Mistake:
    """A valid call with one argument replaced, and other arguments if the mistake needs them."""
    return Mistake(argument, function, {**good, **others, argument: bad}, error, message)


HEADS = {"query": zeros(B, T, N, H), "key": zeros(B, S, K, H), "value": zeros(B, S, K, V)}
ONE = {"query": zeros(T, H), "key": zeros(S, H), "value": zeros(S, V)}
TOKENS = {"x": zeros(T, 4), "w_query": zeros(4, 3), "w_key": zeros(4, 3), "w_value": zeros(4, 6)}
EACH = {
    "x": zeros(T, 4),
    "w_query": zeros(4, 2, 3),
    "w_key": zeros(4, 2, 3),
    "w_value": zeros(4, 2, 6),
}
PAIR = {"query": zeros(T, 2), "key": zeros(S, 3)}


def heads(*row, **others):
    return mistake(attn_jax.dot_product_attention, HEADS, *row, **others)


def one(*row, **others):
    return mistake(attn_jax.attend, ONE, *row, **others)


def mask(*shape):
    return zeros(*shape, dtype=bool)


SHAPES = {
    "B1 mask [B, S]": heads(
        "mask",
        mask(B, S),
        ValueError,
        r"mask must be 4-D \(B\|1, N\|1, T\|1, S\); got \(2, 7\).*mask\[:, None, None, :\]",
    ),
    "B1 mask [B, S] that could be [T, S]": mistake(
        attn_jax.dot_product_attention,
        {name: zeros(8, 8, 4, 2) for name in ("query", "key", "value")},
        *("mask", mask(8, 8), ValueError, r"mask must be 4-D .*got \(8, 8\)"),
    ),
    "B1 mask [N, T, S]": heads("mask", mask(N, T, S), ValueError, r"mask must be 4-D"),
    "B1 mask of five axes": heads("mask", mask(1, B, N, T, S), ValueError, r"mask must be 4-D"),
    "B1 mask [S] for one head": one("mask", mask(S), ValueError, r"must be 2-D .*mask\[None, :\]"),
    "B1 mask that leaves out the keys": heads(
        "mask", mask(B, N, T, 1), ValueError, r"mask axis 3 \(S\) must be 7; got 1"
    ),
    "B1 mask for other queries": one(
        "mask", mask(2, S), ValueError, r"mask axis 0 \(T\) must be 1 or 5; got 2"
    ),
    "B1 bias [T, S]": heads("bias", zeros(T, S), ValueError, r"bias must be 4-D"),
    "B5 mask for some heads": heads(
        "mask", mask(B, 2, T, S), ValueError, r"mask axis 1 \(N\) must be 1 or 4; got 2"
    ),
    "B6 heads that do not divide": heads(
        "key",
        zeros(B, S, 3, H),
        ValueError,
        r"query heads \(4\) must be a multiple of key/value heads \(3\)",
        value=zeros(B, S, 3, V),
    ),
    "B6 no key heads": heads(
        "key",
        zeros(B, S, 0, H),
        ValueError,
        r"query heads \(4\) must be a multiple of key/value heads \(0\)",
        value=zeros(B, S, 0, V),
    ),
    "B12 heads without width": heads(
        "query",
        zeros(B, T, N, 0),
        ValueError,
        r"query must have a head width H of at least 1; got 0",
        key=zeros(B, S, K, 0),
    ),
    "key of another width": heads(
        "key", zeros(B, S, K, 3), ValueError, r"key must have .* H = 8 .*got \[2, 7, 2, 3\]"
    ),
    "key of another batch": heads(
        "key", zeros(3, S, K, H), ValueError, r"key must have .* \*B = 2, .*got \[3, 7, 2, 8\]"
    ),
    "key of another width for one head": one(
        "key", zeros(S, 3), ValueError, r"key must be as wide as query, H = 8; got 3; .*score="
    ),
    "fewer values than keys": one(
        "value", zeros(2, V), ValueError, r"value must have .*S = 7 .*got \[2, 3\]"
    ),
    "batch for one head": one("query", zeros(B, T, H), ValueError, r"query must have shape"),
}

DTYPES = {
    "B3 additive mask": heads(
        "mask",
        zeros(B, N, T, S),
        TypeError,
        r"mask must be bool \(True = may attend\); got float32; pass an additive mask as bias=",
    ),
    "B3 additive mask for one head": one("mask", zeros(T, S), TypeError, r"mask must be bool"),
    "B3 boolean bias": heads(
        "bias", mask(B, N, T, S), TypeError, r"bias must be floating point; got bool"
    ),
    "a mask where the bias belongs": heads(
        "bias", masks.causal(), TypeError, r"bias must be an array; got _Causal"
    ),
    "B4 mask of integers": heads(
        "mask",
        zeros(B, N, T, S, dtype=jnp.int32),
        TypeError,
        r"mask must be bool .*got int32; write mask\.astype\(bool\)",
    ),
    "B7 mixed dtypes": heads(
        "query",
        zeros(B, T, N, H, dtype=jnp.bfloat16),
        TypeError,
        r"query and key and value must share a dtype; got query bfloat16, key float32",
    ),
    "B7 mixed dtypes for one head": one(
        "value", zeros(S, V, dtype=jnp.float16), TypeError, r"share a dtype; .*value float16"
    ),
    "B8 integers": heads(
        "query",
        zeros(B, T, N, H, dtype=jnp.int32),
        TypeError,
        r"query must be floating point; got int32",
    ),
    "B8 complex numbers": one(
        "key", zeros(S, H, dtype=jnp.complex64), TypeError, r"key must be floating .*complex64"
    ),
    "B8 booleans": one("value", mask(S, V), TypeError, r"value must be floating point; got bool"),
}

OPTIONS = {
    **{
        f"B9 window {window}": heads(
            "local_window_size", window, ValueError, r"local_window_size must be two ints >= 0"
        )
        for window in ((-3, 0), -1, (1.5, 0), (1, 2, 3))
    },
    "B9 negative sliding window": mistake(
        masks.sliding_window,
        {"left": 2},
        *("right", -1, ValueError, r"window must be two ints >= 0 .*got \(2, -1\)"),
    ),
    "B10 more keys than there are": heads(
        "key_value_seq_lengths",
        jnp.array([3, 100]),
        ValueError,
        r"key_value_seq_lengths\[1\] must be between 0 and 7; got 100",
    ),
    "B10 fewer queries than none": heads(
        "query_seq_lengths",
        jnp.array([-1, 3]),
        ValueError,
        r"query_seq_lengths\[0\] must be between 0 and 5; got -1",
    ),
    "B10 lengths of other examples": heads(
        "query_seq_lengths",
        jnp.array([1, 2, 3]),
        ValueError,
        r"query_seq_lengths must have one entry an example",
    ),
    "B10 lengths in floats": heads(
        "key_value_seq_lengths",
        jnp.array([3.0, 4.0]),
        TypeError,
        r"key_value_seq_lengths must be integers; got float32",
    ),
    **{
        f"B11 scale {scale} {call.__name__}": call(
            "scale", scale, ValueError, rf"scale must be a finite number > 0; got {scale}"
        )
        for scale in (float("nan"), float("inf"), 0.0, -1.0)
        for call in (heads, one)
    },
    "B11 a scale for each head": heads("scale", jnp.ones(N), ValueError, r"scale must be a finite"),
    "B16 a backend that cannot": heads(
        "implementation",
        "cudnn",
        NotImplementedError,
        r"'cudnn' cannot take this call: .*dtype is float32.*; use implementation=None or",
    ),
    "B16 a backend that cannot, for one head": one(
        "implementation",
        "cudnn",
        NotImplementedError,
        r"'cudnn' cannot take this call: .*values are 3 wide and queries 8.*; use impl.*blockwise",
    ),
    "B16 a backend that cannot, explained": mistake(
        attn_jax.explain,
        HEADS,
        *("implementation", "cudnn", NotImplementedError, r"'cudnn' cannot take this call"),
    ),
    "B17 unknown implementation": heads(
        "implementation", "flash", ValueError, r"'flash' is unknown; choose from reference"
    ),
    "B17 unknown implementation for one head": one(
        "implementation", "flash", ValueError, r"'flash' is unknown; choose from reference"
    ),
    "B17 unknown implementation, explained": mistake(
        attn_jax.explain,
        ONE,
        *("implementation", "flash", ValueError, r"'flash' is unknown; choose from .*cudnn"),
    ),
    "B17 unknown argument, explained": mistake(
        attn_jax.explain, ONE, *("is_causal", True, TypeError, r"is_causal")
    ),
    "a sink for each query": one(
        "sink", zeros(T), ValueError, r"sink must be one number; got shape \[5\]"
    ),
    "sinks for other heads": heads(
        "sink", zeros(3), ValueError, r"sink must have one entry a head, \[4\]; got \[3\]"
    ),
    "a rate of one": one(
        "dropout_rate", 1.0, ValueError, r"dropout_rate must be a number in \[0, 1\); got 1.0"
    ),
    "dropout without a key": heads(
        "dropout_rate", 0.5, ValueError, r"dropout_rng is needed with dropout_rate=0.5"
    ),
    "B17 unknown argument": heads("dropout", 0.1, TypeError, r"dropout"),
    "positions of other queries": one(
        "query_position", jnp.arange(3), ValueError, r"query_position must .*\[5\], .*got \[3\]"
    ),
    "positions of other keys": heads(
        "key_position", jnp.arange(T), ValueError, r"key_position must .*\[7\]; got \[5\]"
    ),
}

PARTS = {
    "general without a way to the key": mistake(
        scores.general,
        PAIR,
        *(
            "kernel",
            zeros(3, 2),
            ValueError,
            r"kernel must have shape \[H E\] with H = 2, E = 3 .*\[3, 2\]",
        ),
    ),
    "additive without projections": mistake(
        scores.additive,
        PAIR,
        *("key", zeros(S, 3), ValueError, r"key must have .* A = 2 .*got \[7, 3\]"),
        out_kernel=zeros(2),
    ),
    "concat of other widths": mistake(
        scores.concat,
        PAIR,
        *("kernel", zeros(4, 6), ValueError, r"kernel must have H \+ E = 2 \+ 3 rows; got 4"),
        out_kernel=zeros(6),
    ),
    "weights for other tokens": mistake(
        attn_jax.self_attention,
        TOKENS,
        *("w_query", zeros(5, 3), ValueError, r"w_query must have .* D = 4 .*got \[5, 3\]"),
    ),
    "keys that do not fit the queries": mistake(
        attn_jax.causal_self_attention,
        TOKENS,
        *("w_key", zeros(4, 2), ValueError, r"w_key must have .* D = 4, H = 3 .*got \[4, 2\]"),
    ),
    "weights without heads": mistake(
        attn_jax.multi_head_self_attention,
        EACH,
        *("w_query", zeros(4, 3), ValueError, r"w_query must have shape \[D N H\]"),
    ),
    "an output matrix for other heads": mistake(
        attn_jax.multi_head_self_attention,
        EACH,
        *("w_out", zeros(2, 5, 4), ValueError, r"w_out must .* N = 2, V = 6 .*got \[2, 5, 4\]"),
    ),
    "a batch of tokens": mistake(
        attn_jax.simplified_self_attention,
        {},
        *("x", zeros(2, 3, 4), ValueError, r"x must have shape \[T D\]; got \[2, 3, 4\]"),
    ),
    "an odd width of positions": mistake(
        positions.sinusoidal,
        {"position": jnp.arange(3)},
        *("dim", 5, ValueError, r"dim must be even and at least 2.*got 5"),
    ),
    "a table without rows": mistake(
        positions.learned,
        {"position": jnp.arange(3)},
        *("table", zeros(3), ValueError, r"table must have shape \[P D\]; got \[3\]"),
    ),
}

MISTAKES = SHAPES | DTYPES | OPTIONS | PARTS
