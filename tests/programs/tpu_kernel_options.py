"""The option classes for which compile_tpu_kernel.py compiles the fused TPU kernel."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import ShapeDtypeStruct

import attn_jax
from attn_jax import masks, score_mods

B, N, K = 2, 4, 2


@dataclasses.dataclass(frozen=True)
class Case:
    """An attention call: T and S tokens, `trained` arrays that get a gradient, `fixed` ones.

    `options(*trained, *fixed)` are the options of the call.
    """

    T: int
    S: int
    options: Callable[..., dict[str, Any]]
    trained: tuple[ShapeDtypeStruct, ...] = ()
    fixed: tuple[ShapeDtypeStruct, ...] = ()
    key_heads: int = K


def floats(*shape: int) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(shape, jnp.float32)


def integers(*shape: int) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(shape, jnp.int32)


def option_classes(T: int, dtype: Any) -> dict[str, Case]:
    """The case of each option class; T is a multiple of 512, at least 1024."""
    return _masks(T) | _score_mods(T) | _biases(T, dtype) | _others(T)


def _masks(T: int) -> dict[str, Case]:
    causal = masks.causal()
    bools = ShapeDtypeStruct((B, 1, T, T), jnp.bool_)
    return {
        "full": Case(T, T, lambda: {}),
        "causal": Case(T, T, lambda: {"is_causal": True}),
        "window": Case(T, T, lambda: {"is_causal": True, "local_window_size": (500, 0)}),
        "dilated": Case(T, T, lambda: {"mask": masks.dilated(8, 0, 4)}),
        "prefix": Case(T, T, lambda n: {"mask": masks.prefix(n)}, fixed=(integers(B, 1),)),
        "lengths": Case(T, T, lambda n: {"key_value_seq_lengths": n}, fixed=(integers(B),)),
        "documents": Case(
            T, T, lambda ids: {"mask": masks.segments(ids) & causal}, fixed=(integers(B, 1, T),)
        ),
        "mask array": Case(T, T, lambda array: {"mask": array}, fixed=(bools,)),
        "block mask": Case(
            T, T, lambda: {"mask": attn_jax.block_mask(causal, T, T, tile=(256, 512))}
        ),
    }


def _score_mods(T: int) -> dict[str, Case]:
    def vectors(by_query: Any, by_key: Any) -> dict[str, Any]:
        return {"score_mod": lambda logit, i, j: logit + by_query[i] * jnp.cos(by_key[j])}

    def square_root(weight: Any) -> dict[str, Any]:
        def score_mod(logit: Any, i: Any, j: Any) -> Any:
            return logit - weight * jnp.sqrt((i - j).astype(jnp.float32))

        return {"mask": lambda i, j: j < i, "score_mod": score_mod}

    def relative(table: Any) -> dict[str, Any]:
        return {
            "is_causal": True,
            "score_mod": score_mods.relative_bias(table, bidirectional=False),
        }

    def alibi(slopes: Any) -> dict[str, Any]:
        return {"is_causal": True, "score_mod": score_mods.alibi(slopes[None])}

    def soft_cap(cap: Any) -> dict[str, Any]:
        return {"is_causal": True, "score_mod": score_mods.soft_cap(cap)}

    return {
        "vectors by query and key": Case(T, T, vectors, (floats(T), floats(T))),
        "ALiBi slopes": Case(T, T, alibi, (floats(N),)),
        "soft cap": Case(T, T, soft_cap, (floats(),)),
        "T5 relative bias": Case(T, T, relative, (floats(1, N, 32),)),
        "square root of distance": Case(T, T, square_root, (floats(),)),
    }


def _biases(T: int, dtype: Any) -> dict[str, Case]:
    def biased(*shape: int) -> Case:
        bias = ShapeDtypeStruct(shape, dtype)
        return Case(T, T, lambda bias: {"is_causal": True, "bias": bias}, (bias,))

    return {
        "bias per head": biased(1, N, T, T),
        "shared bias": biased(1, 1, T, T),
        "bias by key": biased(B, 1, 1, T),
    }


def _others(T: int) -> dict[str, Case]:
    def dropped() -> dict[str, Any]:
        return {"is_causal": True, "dropout_rate": 0.3, "dropout_rng": jax.random.key(1)}

    def placed(query: Any, key: Any) -> dict[str, Any]:
        return {"mask": masks.causal(), "query_position": query, "key_position": key}

    ragged = T - 48
    return {
        "scale": Case(T, T, lambda scale: {"is_causal": True, "scale": scale}, (floats(),)),
        "dropout": Case(T, T, dropped),
        "sinks": Case(T, T, lambda sink: {"is_causal": True, "sink": sink}, (floats(N),)),
        "a key head per query head": Case(T, T, lambda: {"is_causal": True}, key_heads=N),
        "positions": Case(T - 512, T, placed, fixed=(integers(B, T - 512), integers(B, T))),
        "ragged sizes": Case(ragged, ragged, lambda: {"is_causal": True}),
    }
