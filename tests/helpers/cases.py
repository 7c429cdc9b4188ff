"""Named calls of `dot_product_attention` that every implementation must compute like the oracle."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

IMPLEMENTATIONS = ("reference", "blockwise")  # a new implementation is one more name
ROUNDINGS = {
    "reference": 1,
    "blockwise": 2,
}  # in narrow dtypes: of the output only, or of the weights too

B, T, S, N, K, H, V = 2, 5, 7, 4, 2, 8, 3


@dataclasses.dataclass(frozen=True)
class Case:
    """Options of a call, and sizes that differ from the usual ones."""

    options: dict[str, Any]
    batch: tuple[int, ...] = (B,)
    keys: int = S
    key_heads: int = K

    def operands(self, seed: int = 0) -> list[np.ndarray]:
        """Query, key and value, and a cotangent of the output, in float64."""
        rng = np.random.default_rng(seed)
        shapes = (
            (T, N, H),
            (self.keys, self.key_heads, H),
            (self.keys, self.key_heads, V),
            (T, N, V),
        )
        return [rng.normal(size=(*self.batch, *shape)) for shape in shapes]


def in_dtype(value: Any, dtype) -> Any:
    """An option converted for a call: reals to `dtype`; positions and booleans unchanged."""
    if not isinstance(value, np.ndarray):
        return value
    return jnp.asarray(value, dtype if np.issubdtype(value.dtype, np.floating) else None)


def _numbers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def _booleans(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < 0.6


def _mask_with_a_fully_masked_query() -> np.ndarray:
    mask = _booleans(5, B, N, T, S)
    mask[0, 1, 3] = False
    return mask


AT_THE_END = np.arange(S - T, S)
EACH_ITS_OWN = np.array([[0, 1, 2, 3, 4], [2, 6, 3, 5, 4]])

CASES = {
    "plain": Case({}),
    "scale": Case({"scale": 0.9}),
    "mask": Case({"mask": _booleans(1, B, N, T, S)}),
    "mask for keys": Case({"mask": _booleans(2, B, 1, 1, S)}),
    "mask for heads": Case({"mask": _booleans(3, 1, N, T, S)}),
    "mask for all": Case({"mask": _booleans(4, 1, 1, T, S)}),
    "mask that leaves a query nothing": Case({"mask": _mask_with_a_fully_masked_query()}),
    "bias": Case({"bias": _numbers(6, B, N, T, S)}),
    "bias for heads and keys": Case({"bias": _numbers(7, 1, N, 1, S)}),
    "bias for examples": Case({"bias": _numbers(8, B, 1, T, S)}),
    "bias that hides": Case({"bias": np.where(_booleans(9, B, N, T, S), 0, -np.inf)}),
    "causal": Case({"is_causal": True}, keys=T),
    "causal at the end": Case(
        {"is_causal": True, "query_position": AT_THE_END, "key_position": np.arange(S)}
    ),
    "causal, each its own": Case(
        {"is_causal": True, "query_position": EACH_ITS_OWN, "key_position": np.arange(S)}
    ),
    "causal, keys moved": Case(
        {"is_causal": True, "query_position": AT_THE_END, "key_position": np.arange(S)[::-1].copy()}
    ),
    "window": Case({"local_window_size": 1}, keys=T),
    "window of a pair": Case(
        {"local_window_size": (2, 0), "query_position": AT_THE_END, "key_position": np.arange(S)}
    ),
    "causal window": Case(
        {
            "is_causal": True,
            "local_window_size": (1, 2),
            "query_position": AT_THE_END,
            "key_position": np.arange(S),
        }
    ),
    "query lengths": Case({"query_seq_lengths": np.array([3, 5])}),
    "key lengths": Case({"key_value_seq_lengths": np.array([7, 4])}),
    "no keys for one": Case({"key_value_seq_lengths": np.array([0, 6])}),
    "everything": Case(
        {
            "bias": _numbers(10, B, N, T, S),
            "mask": _booleans(11, B, N, T, S),
            "scale": 0.5,
            "is_causal": True,
            "query_seq_lengths": np.array([5, 4]),
            "key_value_seq_lengths": np.array([6, 7]),
            "local_window_size": (3, 1),
            "query_position": EACH_ITS_OWN + 1,
            "key_position": np.arange(S)[None],
        }
    ),
    "one key head": Case({"bias": _numbers(12, 1, N, T, S)}, key_heads=1),
    "a key head each": Case({"mask": _booleans(13, B, N, T, S)}, key_heads=N),
    "no batch": Case({"mask": _booleans(14, N, 1, T), "is_causal": True}, batch=(), keys=T),
    "two batch axes": Case(
        {"bias": _numbers(15, 3, 1, N, 1, S), "mask": _booleans(16, 1, B, 1, T, S)}, batch=(3, B)
    ),
}
