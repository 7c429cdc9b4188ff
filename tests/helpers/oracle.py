"""Attention in float64 numpy, one number at a time, by the formulas of the papers.

Vaswani et al. (2017), eq. 1; Bahdanau et al. (2014), appendix A.1.2; Luong et al. (2015), eq. 8.
It imports nothing of ours, so that no mistake can be on both sides of a comparison.
"""

import math

import numpy as np


def dot(query, key):
    """One query, one key: Σ_h q_h k_h."""
    return sum(float(q) * float(k) for q, k in zip(query, key, strict=True))


def general(query, key, *, w):
    """Σ_he q_h w_he k_e."""
    return sum(
        float(query[h]) * float(w[h][e]) * float(key[e])
        for h in range(len(query))
        for e in range(len(key))
    )


def additive(query, key, *, v):
    """Σ_a v_a tanh(q_a + k_a)."""
    return sum(float(v[a]) * math.tanh(float(query[a]) + float(key[a])) for a in range(len(v)))


def concat(query, key, *, w, v):
    """Σ_a v_a tanh(Σ_c [q; k]_c w_ca)."""
    pair = [*query, *key]
    total = 0.0
    for a in range(len(v)):
        hidden = sum(float(pair[c]) * float(w[c][a]) for c in range(len(pair)))
        total += float(v[a]) * math.tanh(hidden)
    return total


def attention(query, key, value, *, score=None, scale=None, score_mod=None, mask=None, **positions):
    """One head: output [T V], weights [T S] and log-sum-exp [T]."""
    T, S, V = len(query), len(key), value.shape[1]
    rows = positions.get("query_position", range(T))
    columns = positions.get("key_position", range(S))
    if scale is None:
        scale = 1 / math.sqrt(query.shape[1]) if score is None else 1
    out, weights = np.zeros((T, V)), np.zeros((T, S))
    logsumexp = np.full(T, -np.inf)
    for t in range(T):
        logits = {}
        for s in range(S):
            if mask is not None and not mask[t][s]:
                continue
            logit = scale * (score or dot)(query[t], key[s])
            if score_mod is not None:
                logit = score_mod(logit, int(rows[t]), int(columns[s]))
            if logit > -math.inf:
                logits[s] = logit
        if logits:
            total = math.fsum(math.exp(logit) for logit in logits.values())
            logsumexp[t] = math.log(total)
        for s, logit in logits.items():
            weights[t, s] = math.exp(logit) / total
            for v in range(V):
                out[t, v] += weights[t, s] * value[s, v]
    return out, weights, logsumexp


def plus(bias):
    """The score mod that adds the entries of a bias [T S]."""
    return lambda logit, t, s: logit + float(bias[t][s])


def attention_gradients(query, key, value, cotangent, *, scale, bias, mask):
    """One head with scaled dot products: gradients of query, key, value and bias."""
    T, S, H, V = len(query), len(key), query.shape[1], value.shape[1]
    _, weights, _ = attention(query, key, value, scale=scale, score_mod=plus(bias), mask=mask)
    grads = [np.zeros(array.shape) for array in (query, key, value, bias)]
    d_query, d_key, d_value, d_logits = grads
    for t in range(T):
        d_weights = [dot(cotangent[t], value[s]) for s in range(S)]
        mean = sum(weights[t, s] * d_weights[s] for s in range(S))
        for s in range(S):
            d_logits[t, s] = weights[t, s] * (d_weights[s] - mean)
            for v in range(V):
                d_value[s, v] += weights[t, s] * cotangent[t, v]
            for h in range(H):
                d_query[t, h] += scale * d_logits[t, s] * key[s, h]
                d_key[s, h] += scale * d_logits[t, s] * query[t, h]
    return grads


def multi_head(query, key, value, **options):
    """`attention` for every example and query head of [*B T N H], [*B S K H] and [*B S K V]."""
    out = np.zeros((*query.shape[:-1], value.shape[-1]))
    for b, n, k, bias, mask, scale in _heads(query, key, **options):
        head = query[b][:, n], key[b][:, k], value[b][:, k]
        out[b][:, n] = attention(*head, scale=scale, score_mod=plus(bias), mask=mask)[0]
    return out


def multi_head_gradients(query, key, value, cotangent, **options):
    """Gradients of query, key, value and of the bias, if given, each in the shape of its array."""
    d_query, d_key, d_value = (np.zeros(array.shape) for array in (query, key, value))
    given = options.get("bias")
    full = (*query.shape[:-3], query.shape[-2], query.shape[-3], key.shape[-3])
    d_bias = np.zeros(full)
    for b, n, k, bias, mask, scale in _heads(query, key, **options):
        head = query[b][:, n], key[b][:, k], value[b][:, k], cotangent[b][:, n]
        gradients = attention_gradients(*head, scale=scale, bias=bias, mask=mask)
        d_query[b][:, n] += gradients[0]
        d_key[b][:, k] += gradients[1]
        d_value[b][:, k] += gradients[2]
        d_bias[b][n] += gradients[3]
    if given is None:
        return d_query, d_key, d_value
    shared = tuple(axis for axis, size in enumerate(given.shape) if size != full[axis])
    return d_query, d_key, d_value, d_bias.sum(axis=shared, keepdims=True)


def _heads(query, key, *, bias=None, mask=None, scale=None, **rules):
    """Example, query head, its key head, and bias [T S], mask [T S] and scale for it."""
    *B, T, N, H = query.shape
    S, K = key.shape[-3], key.shape[-2]
    scale = 1 / math.sqrt(H) if scale is None else scale
    bias = np.broadcast_to(0.0 if bias is None else bias, (*B, N, T, S))
    mask = np.broadcast_to(True if mask is None else mask, (*B, N, T, S))
    for b in np.ndindex(*B):
        rule = np.array([[_allowed(b, t, s, B, T, S, **rules) for s in range(S)] for t in range(T)])
        for n in range(N):
            yield b, n, n // (N // K), bias[b][n], mask[b][n] & rule, scale


def _allowed(b, t, s, B, T, S, **rules):
    """Whether query t of example b attends to key s by the options of positions and lengths."""
    query_lengths, key_lengths = rules.get("query_seq_lengths"), rules.get("key_value_seq_lengths")
    if query_lengths is not None and t >= query_lengths[b]:
        return False
    if key_lengths is not None and s >= key_lengths[b]:
        return False
    i = np.broadcast_to(rules.get("query_position", np.arange(T)), (*B, T))[b][t]
    j = np.broadcast_to(rules.get("key_position", np.arange(S)), (*B, S))[b][s]
    if rules.get("is_causal") and j > i:
        return False
    window = rules.get("local_window_size")
    if window is None:
        return True
    left, right = (window, window) if isinstance(window, int) else window
    return i - left <= j <= i + right
