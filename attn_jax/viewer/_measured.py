"""Other quantities beside the weights, each with what it means and how far it agrees with them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from attn_jax.viewer._arrays import as_numbers
from attn_jax.viewer._pack import pack
from attn_jax.viewer._reading import Reading
from attn_jax.viewer.measures import agreement, rollout

MEANINGS = {
    "rollout": "How much of a token arrives, followed through all layers and the ways around them.",
    "gradient × input": "How much the output would change, to first order, with the length of the "
    "token's vector. Signed.",
    "leave-one-out": "How much log-probability the output loses when the token may not be read. "
    "Signed.",
}
WEIGHTS = "How much of each token is read."
LONGEST = 256  # tokens of which rollout and agreement are computed


def beside(reading: Reading, measures: Mapping[str, Any] | None) -> Reading:
    """The reading with its measures; rollout is always one where there are layers to follow."""
    T, S = len(reading.queries), len(reading.keys)
    L, N = reading.sizes
    if max(T, S) > LONGEST:
        if measures:
            raise ValueError(f"measures are for up to {LONGEST} tokens; got T={T} and S={S}")
        return reading
    given = dict(measures or {})
    if L > 1 and reading.is_self and reading.content["normalised"]:
        layers = np.stack([[reading.weights(i, n) for n in range(N)] for i in range(L)])
        given.setdefault("rollout", rollout(layers))
    if not given:
        return reading
    last = np.mean([reading.weights(L - 1, head) for head in range(N)], axis=0)
    meaning = WEIGHTS if L * N == 1 else f"{WEIGHTS[:-1]} by the last layer, heads averaged."
    listed: list[dict[str, Any]] = [
        {"name": "weights", "meaning": meaning, "values": pack(last, "f32")}
    ]
    for name, values in given.items():
        found = as_numbers(f"measures[{name!r}]", values)
        if found.shape != (T, S):
            raise ValueError(f"measures[{name!r}] must be [T S] = [{T}, {S}]; got {found.shape}")
        listed.append(
            {
                "name": name,
                "meaning": MEANINGS.get(name, ""),
                "values": pack(found, "f32"),
                "agreement": agreement(found, last),
            }
        )
    return dataclasses.replace(reading, measures=tuple(listed))
