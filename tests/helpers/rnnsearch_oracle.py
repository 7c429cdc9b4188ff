"""RNNsearch in float64 numpy, by the formulas of the paper, one vector at a time.

Bahdanau et al. (2014), appendix A. It imports nothing of ours; names are the paper's letters.
"""

from typing import NamedTuple

import numpy as np


class Gate(NamedTuple):
    """W, U, C and b of one gate; C is None in the encoder."""

    w: np.ndarray
    u: np.ndarray
    b: np.ndarray
    c: np.ndarray | None = None


class Unit(NamedTuple):
    """A gated hidden unit: update, reset and candidate."""

    z: Gate
    r: Gate
    candidate: Gate


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def preactivation(gate, state, word, context):
    total = word @ gate.w + state @ gate.u + gate.b
    return total if gate.c is None else total + context @ gate.c


def gated_unit(unit, state, word, context=None):
    """A.1.1: the reset gate acts on the state before the product with U."""
    z = sigmoid(preactivation(unit.z, state, word, context))
    r = sigmoid(preactivation(unit.r, state, word, context))
    candidate = np.tanh(preactivation(unit.candidate, r * state, word, context))
    return (1 - z) * state + z * candidate


def encode(forward, backward, embedding, source):
    """A.2.1: one row [→h_j ; ←h_j] for each word."""
    words = [embedding[word] for word in source]
    n = forward.z.u.shape[0]
    ahead, state = [], np.zeros(n)
    for word in words:
        state = gated_unit(forward, state, word)
        ahead.append(state)
    back, state = [], np.zeros(n)
    for word in reversed(words):
        state = gated_unit(backward, state, word)
        back.insert(0, state)
    return np.array([np.concatenate(pair) for pair in zip(ahead, back, strict=True)])


def first_state(annotations, w_s, b_s):
    """A.2.2: s_0 = tanh(W_s ←h_1)."""
    n = annotations.shape[1] // 2
    return np.tanh(annotations[0, n:] @ w_s + b_s)


def alignment_scores(state, annotations, w_a, u_a, v_a):
    """A.1.2: e_ij for one i."""
    return np.array([v_a @ np.tanh(state @ w_a + h @ u_a) for h in annotations])


def softmax(scores):
    exp = np.exp(scores)
    return exp / exp.sum()


def readout_logits(state, word, context, u_o, v_o, c_o, b_o, w_o):
    """A.2.2: maxout over neighbouring pairs, then W_o."""
    pieces = state @ u_o + word @ v_o + context @ c_o + b_o
    maxout = [max(pieces[2 * j], pieces[2 * j + 1]) for j in range(pieces.size // 2)]
    return np.array(maxout) @ w_o
