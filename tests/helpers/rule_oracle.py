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
    dtype = query.dtype
    scale = dtype.type(given.get("scale", query.shape[-1] ** -0.5))
    gain = given.get("gain", np.ones(key.shape[-2], dtype))
    raw = query @ _turned(key)
    with np.errstate(invalid="ignore"):
        plain = scale * gain * raw + sum((term.value for term in rules.terms), np.zeros((), dtype))
    size = scale * gain * (np.abs(query) @ _turned(np.abs(key)))
    for term in rules.terms:
        size = size + np.abs(np.where(np.isfinite(term.value), term.value, 0))
    bent, slope, d_cap = _capped(plain, given.get("cap"))
    unmasked = np.broadcast_to(rules.unmasked, raw.shape) & (bent > -np.inf)
    p, p_sink, lse = _softmax(np.where(unmasked, bent, -np.inf), given.get("sink"))
    keep = np.ones((), dtype) if rules.keep is None else rules.keep.astype(dtype)
    d_lse = np.swapaxes(given["cotangent_lse"], 1, 2)[..., None]
    d_p = keep * (cotangent @ _turned(value))
    d_p_size = keep * (np.abs(cotangent) @ _turned(np.abs(value)))
    mean, mean_size = (np.sum(p * x, axis=-1, keepdims=True) for x in (d_p, d_p_size))

    results = {"out": (p * keep) @ value, "lse": lse, "d_value": _turned(p * keep) @ cotangent}
    results["greatest_logit"] = np.max(np.abs(np.where(unmasked, bent, 0)), initial=0)
    sizes = {
        "out": (p * keep) @ np.abs(value),
        "lse": 1 + np.sum(p * size, axis=-1) + np.abs(np.where(lse > -np.inf, lse, 0)),
        "d_value": _turned(p * keep) @ np.abs(cotangent),
    }
    turn = p * (d_p - mean + d_lse), p * (d_p_size + mean_size + np.abs(d_lse))
    if "sink" in given:
        results["d_sink"] = np.sum(p_sink * (d_lse - mean)[..., 0], axis=(0, 2))
        sizes["d_sink"] = np.sum(p_sink * (mean_size + np.abs(d_lse))[..., 0], axis=(0, 2))
    for into, d_logit, change in ((results, turn[0], np.asarray), (sizes, turn[1], np.abs)):
        d_logit = np.where(unmasked, d_logit, 0)
        d_plain = d_logit * slope
        if "cap" in given:
            into["d_cap"] = np.sum(d_logit * change(d_cap))
        into["d_scale"] = np.sum(d_plain * change(gain * raw))
        into["d_gain"] = np.sum(d_plain * change(scale * raw), axis=(0, 1, 2))
        into["d_query"] = scale * (d_plain * gain) @ change(key)
        into["d_key"] = scale * _turned(d_plain * gain) @ change(query)
        for term in rules.terms:
            for name, (index, derivative) in term.by.items():
                shape = given[name].shape
                found = _by_entry(index, d_plain, change(derivative), unmasked, shape)
                into[f"d_{name}"] = found.astype(dtype)
    return _in_shape(results, given), _in_shape(sizes, given)


def _by_entry(index, d_plain, derivative, unmasked, shape):
    """The sums over all pairs that read each entry of an array."""
    shares = d_plain * np.where(unmasked, derivative, 0)
    flat = np.broadcast_to(index, shares.shape).ravel()
    return np.bincount(flat, shares.ravel(), int(np.prod(shape))).reshape(shape)


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
