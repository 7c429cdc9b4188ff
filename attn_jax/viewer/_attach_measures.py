"""Adds other quantities to a record, each with its meaning and its agreement with the weights."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from attn_jax.viewer._arrays import as_numbers
from attn_jax.viewer._json_arrays import array_to_json
from attn_jax.viewer._record import AttentionRecord
from attn_jax.viewer.measures import agreement, rollout

MEANINGS = {
    "rollout": "The share of each input token in each output, through all layers and their "
    "residual connections.",
    "gradient × input": "The first-order change of the output as the token's vector grows. Signed.",
    "leave-one-out": "The log-probability that the output loses when the token is masked. Signed.",
}
WEIGHTS = "The attention weight of each key"
LONGEST = 256  # most tokens for which rollout and agreement are computed


def with_measures(record: AttentionRecord, measures: Mapping[str, Any] | None) -> AttentionRecord:
    """The record with the given measures, and with rollout if it has several layers.

    Raises:
      ValueError: a measure is not [T S], or there are too many tokens.
    """
    T, S = len(record.queries), len(record.keys)
    L, N = record.sizes
    if max(T, S) > LONGEST:
        if measures:
            raise ValueError(
                f"measures can have at most {LONGEST} tokens; got T={T} and S={S}; view fewer "
                f"tokens, or leave measures out"
            )
        return record
    given = dict(measures or {})
    if L > 1 and record.is_self and record.content["normalised"]:
        layers = np.stack([[record.weights(i, n) for n in range(N)] for i in range(L)])
        given.setdefault("rollout", rollout(layers))
    if not given:
        return record
    last = np.mean([record.weights(L - 1, head) for head in range(N)], axis=0)
    meaning = f"{WEIGHTS}." if L * N == 1 else f"{WEIGHTS} in the last layer, averaged over heads."
    listed: list[dict[str, Any]] = [
        {"name": "weights", "meaning": meaning, "values": array_to_json(last, "f32")}
    ]
    for name, values in given.items():
        numbers = as_numbers(f"measures[{name!r}]", values)
        if numbers.shape != (T, S):
            raise ValueError(f"measures[{name!r}] must be [T S] = [{T}, {S}]; got {numbers.shape}")
        listed.append(
            {
                "name": name,
                "meaning": MEANINGS.get(name, ""),
                "values": array_to_json(numbers, "f32"),
                "agreement": agreement(numbers, last),
            }
        )
    return dataclasses.replace(record, measures=tuple(listed))
