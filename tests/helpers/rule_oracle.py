"""Attention of many heads in numpy, with the gradients of all arrays that a score mod captures.

As `dense_oracle.py`, for any score mod that adds terms to the logits, multiplies them by one number
a pair, or bounds them. In float32 it is the naive implementation that errors are compared with. It
imports nothing of ours. All arrays have axes [B N T S], or [B L heads width].

The condition of a result is its sum with absolute values of all terms: the scale of rounding.
"""

from typing import NamedTuple

import numpy as np


class Term(NamedTuple):
    """What a score mod adds to the logits, [B N T S] after broadcasting.

    `by` has for each learned array which entry of it (in its flat order) a pair reads, and the
    derivative of the term by that entry.
    """

    value: np.ndarray
    by: dict[str, tuple[np.ndarray, np.ndarray]]


class Rules(NamedTuple):
    """The options of a call: unmasked pairs, terms, and the weights that dropout keeps, scaled."""

    unmasked: np.ndarray
    terms: list[Term]
    keep: np.ndarray | None = None


def attention(given: dict, rules: Rules) -> tuple[dict, dict]:
    """Output, log-sum-exp, greatest logit and gradients of a call, and the condition of each.

    `given` has query, key, value, cotangent and cotangent_lse [B T N], and where the call has them
    scale, cap, sink [N] and gain [S], which multiplies the scaled logits of a key.
    """
    query, key, value, cotangent = _heads_first(given)
    raw = query @ _turned(key)
    plain, size = _logits(given, rules, raw, np.abs(query) @ _turned(np.abs(key)))
    bent, slope, d_cap = _capped(plain, given.get("cap"))
    unmasked = np.broadcast_to(rules.unmasked, raw.shape) & (bent > -np.inf)
    p, p_sink, lse = _softmax(np.where(unmasked, bent, -np.inf), given.get("sink"))
    keep = 1 if rules.keep is None else rules.keep.astype(query.dtype)
    d_lse = np.swapaxes(given["cotangent_lse"], 1, 2)[..., None]
    results: dict = {"lse": lse, "greatest_logit": np.max(np.abs(bent), initial=0, where=unmasked)}
    sizes: dict = {
        "lse": 1 + np.sum(p * size, axis=-1) + np.abs(np.where(lse > -np.inf, lse, 0)),
    }
    for into, change, sign in ((results, np.asarray, -1), (sizes, np.abs, 1)):
        into["out"] = (p * keep) @ change(value)
        into["d_value"] = _turned(p * keep) @ change(cotangent)
        d_p = keep * (change(cotangent) @ _turned(change(value)))
        mean = np.sum(p * d_p, axis=-1, keepdims=True)
        d_logit = np.where(unmasked, p * (d_p + sign * mean + change(d_lse)), 0)
        if "sink" in given:
            into["d_sink"] = np.sum(p_sink * (sign * mean + change(d_lse))[..., 0], axis=(0, 2))
        if "cap" in given:
            into["d_cap"] = np.sum(d_logit * change(d_cap))
        _gradients_of_logits(into, change, d_logit * slope, (raw, query, key), given)
        for term in rules.terms:
            for name, (index, derivative) in term.by.items():
                shares = d_logit * slope * np.where(unmasked, change(derivative), 0)
                into[f"d_{name}"] = _by_entry(index, shares, given[name])
    return _in_shape(results, given), _in_shape(sizes, given)


def _logits(given: dict, rules: Rules, raw, raw_size) -> tuple:
    """The logits before the cap, and the sum of the sizes of their terms."""
    factor = _scale(given) * _gain(given)
    logit, size = factor * raw, factor * raw_size
    for term in rules.terms:
        logit = logit + term.value
        size = size + np.abs(np.where(np.isfinite(term.value), term.value, 0))
    return logit, size


def _gradients_of_logits(into: dict, change, d_plain, arrays, given: dict) -> None:
    """Gradients of all that the logits come from but terms, by the logits before the cap."""
    raw, query, key = (change(array) for array in arrays)
    scale, gain = _scale(given), _gain(given)
    into["d_scale"] = np.sum(d_plain * gain * raw)
    into["d_gain"] = np.sum(d_plain * scale * raw, axis=(0, 1, 2))
    into["d_query"] = scale * (d_plain * gain) @ key
    into["d_key"] = scale * _turned(d_plain * gain) @ query


def _scale(given: dict):
    dtype = given["query"].dtype.type
    return dtype(given.get("scale", given["query"].shape[-1] ** -0.5))


def _gain(given: dict):
    return given.get("gain", np.ones(given["key"].shape[1], given["key"].dtype))


def _by_entry(index, shares, array):
    """The sums over all pairs that read each entry of an array."""
    flat = np.broadcast_to(index, shares.shape).ravel()
    found = np.bincount(flat, shares.ravel(), array.size)
    return found.reshape(array.shape).astype(array.dtype)


def _capped(plain, cap):
    """The logits, their derivative by the logits before the cap, and by the cap."""
    if cap is None:
        return plain, np.ones_like(plain), None
    squeezed = np.tanh(plain / cap)
    slope = 1 - squeezed**2
    return cap * squeezed, slope, squeezed - plain / cap * slope


def _softmax(logit, sink):
    """Weights, the sink's weight and log-sum-exp; a row of −inf has weights 0."""
    maximum = np.max(logit, axis=-1, initial=-np.inf)
    if sink is not None:
        maximum = np.maximum(maximum, sink[:, None])
    shift = np.where(maximum == -np.inf, 0, maximum).astype(logit.dtype)
    weights = np.exp(logit - shift[..., None])
    of_sink = np.zeros_like(shift) if sink is None else np.exp(sink[:, None] - shift)
    total = np.sum(weights, axis=-1) + of_sink
    with np.errstate(divide="ignore"):
        lse = shift + np.log(total)
    safe = np.where(total == 0, 1, total)
    return weights / safe[..., None], of_sink / safe, lse


def _heads_first(given: dict) -> list:
    """Query, key, value and cotangent as [B N L width], shared key heads repeated."""
    groups = given["query"].shape[-2] // given["key"].shape[-2]
    repeated = {"query": 1, "key": groups, "value": groups, "cotangent": 1}
    return [np.swapaxes(np.repeat(given[n], k, axis=2), 1, 2) for n, k in repeated.items()]


def _in_shape(of: dict, given: dict) -> dict:
    """Results with the axes of the call; gradients of shared key heads are summed."""
    B, S, K, _ = given["key"].shape
    for name in ("d_key", "d_value"):
        of[name] = of[name].reshape(B, K, -1, S, of[name].shape[-1]).sum(axis=2)
    for name in ("out", "lse", "d_query", "d_key", "d_value"):
        of[name] = np.swapaxes(of[name], 1, 2)
    return of


def _turned(matrix):
    return np.swapaxes(matrix, -1, -2)
