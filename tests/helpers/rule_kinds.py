"""Kinds of options of attention calls: as the library takes them, and in numpy.

An option has learned arrays, fixed arrays (both drawn), what it gives to the call, and which pairs
it leaves or what it adds to the logits. Pairs have axes [B N T S].
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from attn_jax import score_mods
from tests.helpers.rule_oracle import Term


class Sizes(NamedTuple):
    """Sizes by the letters of docs/conventions.md."""

    B: int
    T: int
    S: int
    N: int
    K: int
    H: int
    V: int


class Pairs(NamedTuple):
    """The sizes of a call, its positions [B 1 T 1] and [B 1 1 S], and indices of every axis."""

    sizes: Sizes
    i: np.ndarray
    j: np.ndarray

    @property
    def b(self):
        return np.arange(self.sizes.B)[:, None, None, None]

    @property
    def n(self):
        return np.arange(self.sizes.N)[:, None, None]

    @property
    def t(self):
        return np.arange(self.sizes.T)[:, None]

    @property
    def s(self):
        return np.arange(self.sizes.S)


def nothing(*_: Any) -> dict:
    return {}


@dataclasses.dataclass(frozen=True)
class Option:
    """`draw(sizes, rng)` gives learned arrays (of reals) and fixed ones (the others) by name.

    `call(arrays, sizes)` gives keyword arguments, of which `mask` and `score_mod` combine with
    those of other options. `unmasked(arrays, pairs)` and `term(arrays, pairs)` say the same in
    numpy.
    """

    call: Callable[[dict, Sizes], dict]
    draw: Callable[[Sizes, Any], dict] = nothing
    unmasked: Callable[[dict, Pairs], Any] | None = None
    term: Callable[[dict, Pairs], Term] | None = None


def rule(mask: Callable, unmasked: Callable, draw: Callable = nothing) -> Option:
    """A mask that is a function of positions."""
    return Option(lambda a, s: {"mask": mask(a)}, draw, unmasked)


def array(*axes: str) -> Option:
    """A mask given as an array with some of the axes B N T."""

    def draw(s, rng):
        shape = *(getattr(s, x) if x in axes else 1 for x in "BNT"), s.S
        return {"pairs": rng.random(shape) < 0.7}

    return Option(lambda a, s: {"mask": a["pairs"]}, draw, lambda a, p: a["pairs"])


def bias(*axes: str) -> Option:
    """A learned bias with some of the axes B N T."""

    def draw(s, rng):
        return {"bias": rng.normal(size=(*(getattr(s, x) if x in axes else 1 for x in "BNT"), s.S))}

    def term(a, p):
        index = np.arange(a["bias"].size).reshape(a["bias"].shape)
        return Term(a["bias"], {"bias": (index, np.ones(()))})

    return Option(lambda a, s: {"bias": a["bias"]}, draw, term=term)


def hidden_bias() -> Option:
    """A bias that is −inf at some pairs, and for all keys of a query."""

    def draw(s, rng):
        numbers = rng.normal(size=(1, s.N, s.T, s.S))
        numbers[rng.random(numbers.shape) < 0.3] = -np.inf
        numbers[:, 0, 3] = -np.inf
        return {"bias": numbers}

    return dataclasses.replace(bias("N", "T"), draw=draw)


def slopes(shape: Callable[[Sizes], tuple], lead: Callable) -> Option:
    """ALiBi; `lead` gives the slopes the leading axes of the call."""

    def term(a, p):
        gap = np.abs(p.i - p.j)
        index = p.n if a["slope"].ndim else np.zeros((), int)
        value = -a["slope"].ravel()[index] * gap
        return Term(value.astype(a["slope"].dtype), {"slope": (index, -gap)})

    return Option(
        lambda a, s: {"score_mod": score_mods.alibi(lead(a["slope"]))},
        lambda s, rng: {"slope": rng.uniform(0.01, 0.1, size=shape(s))},
        term=term,
    )


def table(bidirectional: bool, per_head: bool) -> Option:
    """T5's bias of 8 buckets up to a distance of 100."""

    def call(a, s):
        own = a["table"][None] if per_head else a["table"]
        mod = score_mods.relative_bias(own, bidirectional=bidirectional, max_distance=100)
        return {"score_mod": mod}

    def term(a, p):
        found = bucket(p.j - p.i, bidirectional=bidirectional)
        index = p.n * 8 + found if per_head else found
        return Term(a["table"].ravel()[index], {"table": (index, np.ones(()))})

    return Option(
        call, lambda s, rng: {"table": rng.normal(size=(s.N, 8) if per_head else (8,))}, term=term
    )


def bucket(distance: np.ndarray, *, bidirectional: bool) -> np.ndarray:
    """T5's bucket of a distance, key after query, for 8 buckets up to 100."""
    one_way = 4 if bidirectional else 8
    exact = one_way // 2
    n = np.abs(distance) if bidirectional else np.maximum(-distance, 0)
    growth = np.log(np.maximum(n, exact) / exact) / np.log(100 / exact)
    far = np.minimum(exact + np.floor(growth * (one_way - exact)), one_way - 1)
    return np.where(n < exact, n, far).astype(int) + one_way * (bidirectional & (distance > 0))


def lookup(size: Callable[[Sizes], tuple], mod: Callable, term: Callable, more=nothing) -> Option:
    """A plain callable with a learned array `w`; `mod(arrays, sizes)` is the score mod."""
    return Option(
        lambda a, s: {"score_mod": mod(a | in_float32(a, "w", "u"), s)},
        lambda s, rng: {"w": rng.normal(size=size(s))} | more(s, rng),
        term=term,
    )


def in_float32(a: dict, *names: str) -> dict:
    """Some arrays in the dtype of logits."""
    return {name: a[name].astype(jnp.float32) for name in names if name in a}


def entry(index: Callable[[dict, Pairs], np.ndarray]) -> Callable:
    """The term that is the entry of `w` at an index."""

    def term(a, p):
        at = index(a, p)
        return Term(a["w"].ravel()[at], {"w": (at, np.ones(()))})

    return term


def product_term(a, p):
    w, u = a["w"][p.t], a["u"][p.s]
    by = {"w": (p.t, np.cos(u)), "u": (p.s, -w * np.sin(u))}
    return Term(w * np.cos(u), by)


def root_term(a, p):
    root = np.sqrt(np.maximum(p.i - p.j, 0).astype(a["w"].dtype))
    return Term(-a["w"] * root, {"w": (np.zeros((), int), -root)})


def documents(s: Sizes, rng: Any) -> dict:
    """Eight documents or so for each example, and padding at the end."""
    L = max(s.T, s.S)
    ids = np.cumsum(rng.random((s.B, 1, L)) < 8 / L, axis=-1)
    ids[..., -L // 10 :] = -1
    return {"ids": ids.astype(np.int32)}


def in_one_document(a, p):
    one, other = a["ids"][:, :, : p.sizes.T, None], a["ids"][:, :, None, : p.sizes.S]
    return (one == other) & (one >= 0)


def lengths(name: str, axis: str) -> Option:
    """How many queries or keys of an example are real: one example has none."""

    def draw(s, rng):
        L = getattr(s, axis)
        return {name: np.resize([L * 2 // 3, 0, L], s.B).astype(np.int32)}

    def unmasked(a, p):
        return (p.t if axis == "T" else p.s) < a[name][:, None, None, None]

    return Option(lambda a, s: {name: a[name]}, draw, unmasked)


def segment(s: Sizes, rng: Any) -> dict:
    return {"segment": rng.integers(0, 5, size=max(s.T, s.S)).astype(np.int32)}


def dropout_rngs(B: int, N: int) -> jax.Array:
    return jax.random.split(jax.random.key(7), (B, N))
