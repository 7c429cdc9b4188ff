"""Attention of many heads as numpy matrix operations, with all gradients and their condition.

It computes the definition of `oracle.py` fast enough for thousands of calls. In float32 it is the
naive implementation that errors are compared with. It imports nothing of ours.

The condition of a result is its sum with absolute values of all terms: the scale of rounding.
"""

import numpy as np

HEADS_SECOND = -3, -2  # [… L N H] and [… N L H]


def attention(given: dict, unmasked) -> tuple[dict, dict]:
    """Output, log-sum-exp, greatest logit and gradients of a call, and the condition of each.

    Any leading axes are allowed. `given` has query [… T N H], key [… S K H], value [… S K V],
    cotangent [… T N V] and, where the call has them: scale, bias [… N T S], slope [… N] with
    distance [… T S], table [… N R] with bucket [… T S], cap, sink [… N] and, of log-sum-exp,
    cotangent_lse [… N T]. `unmasked` is [… N T S].
    """
    query, key, value, cotangent = _heads_first(given)
    logit, size, slope_of_cap = _logits(given, query, key)
    unmasked = unmasked & (logit > -np.inf)
    p, p_sink, lse = _softmax(np.where(unmasked, logit, -np.inf), given.get("sink"))
    out = p @ value
    d_lse = given.get("cotangent_lse", np.zeros_like(lse))[..., None]

    d_p = cotangent @ _turned(value)
    mean = np.sum(p * d_p, axis=-1, keepdims=True)
    d_logit = p * (d_p - mean + d_lse)
    d_p_size = np.abs(cotangent) @ _turned(np.abs(value))
    mean_size = np.sum(p * d_p_size, axis=-1, keepdims=True)
    d_size = p * (d_p_size + mean_size + np.abs(d_lse))

    results = {"out": out, "lse": lse, "d_value": _turned(p) @ cotangent}
    results["greatest_logit"] = np.max(np.abs(np.where(unmasked, logit, 0)), axis=-1, initial=0)
    sizes = {
        "out": p @ np.abs(value),
        "lse": 1 + np.sum(p * size, axis=-1) + np.abs(np.where(lse > -np.inf, lse, 0)),
        "d_value": _turned(p) @ np.abs(cotangent),
    }
    if "sink" in given:
        results["d_sink"] = np.sum(p_sink * (d_lse - mean)[..., 0], axis=-1)
        sizes["d_sink"] = np.sum(p_sink * (mean_size + np.abs(d_lse))[..., 0], axis=-1)
    for into, change, arrays in (
        (results, d_logit * slope_of_cap, (query, key)),
        (sizes, d_size * slope_of_cap, (np.abs(query), np.abs(key))),
    ):
        _gradients_of_logits(into, change, arrays, given, sign=-1 if into is results else 1)
    return _in_shape(results, given), _in_shape(sizes, given)


def _in_shape(of: dict, given: dict) -> dict:
    """Results with the axes of the call; gradients of shared arrays are summed."""
    groups = given["query"].shape[-2] // given["key"].shape[-2]
    for name in ("d_key", "d_value"):
        of[name] = _sum_of_groups(of[name], groups)
    for name in ("out", "d_query", "d_key", "d_value"):
        of[name] = np.swapaxes(of[name], *HEADS_SECOND)
    for name in ("bias", "slope", "table", "sink"):
        if name in given:
            of[f"d_{name}"] = _sum_of_shared(of[f"d_{name}"], given[name])
    return of


def _heads_first(given: dict) -> list:
    """Query, key, value and cotangent as [… N L H], shared key heads repeated."""
    groups = given["query"].shape[-2] // given["key"].shape[-2]
    repeated = {"query": 1, "key": groups, "value": groups, "cotangent": 1}
    return [
        np.swapaxes(np.repeat(given[name], times, axis=-2), *HEADS_SECOND)
        for name, times in repeated.items()
    ]


def _logits(given: dict, query, key) -> tuple:
    """Scale, bias, slope, table and cap in that order; the sum of sizes; the cap's derivative."""
    scale = _scale(given)
    logit, size = scale * (query @ _turned(key)), scale * (np.abs(query) @ _turned(np.abs(key)))
    for term in _added(given):
        logit = logit + term
        size = size + np.abs(np.where(np.isfinite(term), term, 0))
    if "cap" not in given:
        return logit, size, np.ones_like(logit)
    cap = query.dtype.type(given["cap"])
    squeezed = np.tanh(logit / cap)
    return cap * squeezed, size, 1 - squeezed**2


def _added(given: dict):
    if "bias" in given:
        yield given["bias"]
    if "slope" in given:
        yield -given["slope"][..., None, None] * given["distance"][..., None, :, :]
    if "table" in given:
        rows = given["table"][..., None, :] @ _one_hot(given)
        yield rows.reshape(*rows.shape[:-2], *given["bucket"].shape[-2:])


def _softmax(logit, sink) -> tuple:
    """Weights, the sink's weight and log-sum-exp; a row of −inf has weights 0."""
    maximum = np.max(logit, axis=-1, initial=-np.inf)
    if sink is not None:
        maximum = np.maximum(maximum, sink[..., None])
    shift = np.where(maximum == -np.inf, 0, maximum).astype(logit.dtype)
    weights = np.exp(logit - shift[..., None])
    of_sink = np.zeros_like(shift) if sink is None else np.exp(sink[..., None] - shift)
    total = np.sum(weights, axis=-1) + of_sink
    with np.errstate(divide="ignore"):
        lse = shift + np.log(total)
    safe = np.where(total == 0, 1, total)
    return weights / safe[..., None], of_sink / safe, lse


def _gradients_of_logits(into: dict, d_logit, arrays, given: dict, *, sign: int) -> None:
    """Gradients of all inputs of the logits, from the gradient of the logits before the cap."""
    query, key = arrays
    into["d_query"] = _scale(given) * (d_logit @ key)
    into["d_key"] = _scale(given) * (_turned(d_logit) @ query)
    if "bias" in given:
        into["d_bias"] = d_logit
    if "slope" in given:
        into["d_slope"] = sign * np.sum(d_logit * given["distance"][..., None, :, :], axis=(-2, -1))
    if "table" in given:
        flat = d_logit.reshape(*d_logit.shape[:-2], 1, -1)
        into["d_table"] = (flat @ _turned(_one_hot(given)))[..., 0, :]


def _one_hot(given: dict):
    """[… 1 R T·S]: 1 if a pair of positions has the bucket, else 0."""
    buckets = np.arange(given["table"].shape[-1])
    flat = given["bucket"].reshape(*given["bucket"].shape[:-2], 1, 1, -1)
    return (flat == buckets[:, None]).astype(given["query"].dtype)


def _scale(given: dict):
    dtype = given["query"].dtype.type
    return dtype(given.get("scale", given["query"].shape[-1] ** -0.5))


def _turned(matrix):
    return np.swapaxes(matrix, -1, -2)


def _sum_of_shared(gradient, like):
    """The gradient of an array that was broadcast along its axes of size 1."""
    shared = tuple(axis for axis, size in enumerate(like.shape) if size == 1)
    return np.sum(gradient, axis=shared, keepdims=True)


def _sum_of_groups(array, groups: int):
    *lead, heads, length, width = array.shape
    return array.reshape(*lead, heads // groups, groups, length, width).sum(axis=-3)
