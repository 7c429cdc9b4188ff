"""Named calls that the fused kernels must compute like the float64 oracle.

Tiles are 128×128 in these tests, so most calls have several of them on both sides, and the last
ones are cut off. A case is its sizes, the names of its options (`rule_options.py`), where its
positions are, its dtype and its seed.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import attn_jax
from attn_jax import score_mods
from tests.helpers.criterion import check
from tests.helpers.rule_kinds import Pairs, Sizes, dropout_rngs
from tests.helpers.rule_options import MASKS, OPTIONS, RATE, SCORE_MODS
from tests.helpers.rule_oracle import Rules, attention

SIZES = {
    "square": Sizes(2, 200, 200, 4, 2, 16, 8),
    "wide": Sizes(3, 150, 290, 2, 1, 8, 24),
    "tall": Sizes(1, 270, 140, 6, 3, 12, 5),
    "whole tiles": Sizes(2, 256, 256, 3, 3, 8, 16),
    "one tile": Sizes(2, 96, 96, 3, 1, 4, 7),
    "one query": Sizes(3, 1, 300, 4, 2, 16, 32),
    "one key": Sizes(2, 140, 1, 2, 2, 8, 3),
    "width 1": Sizes(1, 140, 150, 2, 1, 1, 1),
    "width 64": Sizes(1, 130, 140, 2, 2, 64, 32),
    "width 80": Sizes(1, 140, 130, 2, 1, 80, 96),
    "width 256": Sizes(1, 130, 150, 2, 1, 256, 130),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One call; `positions` is None where the call gives none."""

    sizes: str
    options: tuple[str, ...] = ()
    positions: str | None = None
    dtype: str = "float32"
    seed: int = 0

    def __str__(self) -> str:
        named = [self.sizes, *(self.options or ("plain",)), self.positions, self.dtype]
        return ", ".join(filter(None, [*named, f"draw {self.seed}" if self.seed else None]))


def positions(kind: str | None, s: Sizes) -> tuple[np.ndarray, np.ndarray]:
    """The positions of queries [b T] and of keys [b S], with b = 1 where examples share them."""
    i, j = np.arange(s.T)[None], np.arange(s.S)[None]
    if kind == "at the end":
        i = i + s.S - s.T
    if kind == "keys moved":
        i, j = i + max(s.S - s.T, 0), np.roll(j, s.S // 3, axis=-1)
    if kind == "each its own":
        i = i + np.arange(s.B)[:, None] * 20
    return i.astype(np.int32), j.astype(np.int32)


def draw(case: Case) -> tuple[dict, dict]:
    """The arrays of a call: learned ones in float64, as numbers of its dtype, and the others."""
    s, rng = SIZES[case.sizes], np.random.default_rng(case.seed + 1)
    shapes = {
        "query": (s.B, s.T, s.N, s.H),
        "key": (s.B, s.S, s.K, s.H),
        "value": (s.B, s.S, s.K, s.V),
        "cotangent": (s.B, s.T, s.N, s.V),
        "cotangent_lse": (s.B, s.T, s.N),
    }
    arrays: dict[str, Any] = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    for name in case.options:
        arrays |= OPTIONS[name].draw(s, rng)
    learned, fixed = {}, {}
    for name, array in arrays.items():
        if array.dtype == np.float64:
            own = "float32" if name == "cotangent_lse" else case.dtype
            learned[name] = np.asarray(array, own).astype(np.float64)
        else:
            fixed[name] = array
    if case.positions is not None:
        fixed["query_position"], fixed["key_position"] = positions(case.positions, s)
    return learned, fixed


def options_of(names: tuple[str, ...], arrays: dict, s: Sizes) -> dict:
    """Keyword arguments of the library; masks are combined with `&`, score mods chained."""
    options: dict[str, Any] = {
        n: arrays[n] for n in ("query_position", "key_position") if n in arrays
    }
    for name in [n for table in (MASKS, SCORE_MODS) for n in table if n in names]:
        for key, value in OPTIONS[name].call(arrays, s).items():
            options[key] = _combined(key, options[key], value) if key in options else value
    for name in names:
        if name not in MASKS and name not in SCORE_MODS:
            options |= OPTIONS[name].call(arrays, s)
    return options


def _combined(key: str, first: Any, then: Any) -> Any:
    if key == "mask":
        return first & then
    assert key == "score_mod", f"two options give {key}"
    chain = first if isinstance(first, score_mods.ScoreMod) else None
    if chain is not None:
        return chain >> then
    return lambda logit, i, j: then(first(logit, i, j), i, j)


def rules_of(case: Case, learned: dict, fixed: dict) -> Rules:
    """The same in numpy."""
    s, arrays = SIZES[case.sizes], learned | fixed
    i, j = positions(case.positions, s)
    pairs = Pairs(s, i[:, None, :, None], j[:, None, None, :])
    unmasked, terms = np.ones((1, 1, 1, 1), bool), []
    for name in case.options:
        option = OPTIONS[name]
        if option.unmasked is not None:
            unmasked = unmasked & option.unmasked(arrays, pairs)
        if option.term is not None:
            terms.append(option.term(arrays, pairs))
    return Rules(unmasked, terms, kept(s) if "dropout" in case.options else None)


def kept(s: Sizes) -> np.ndarray:
    """The weights that dropout keeps [B N T S], each divided by the probability to be kept."""

    def of_head(rng):
        return attn_jax.dropout_mask(rng, RATE, jnp.arange(s.T), jnp.arange(s.S))

    return np.asarray(jax.vmap(jax.vmap(of_head))(dropout_rngs(s.B, s.N))) / (1 - RATE)


@functools.cache
def compiled(sizes: str, names: tuple[str, ...], implementation: str):
    """Output, log-sum-exp and all gradients of a call, in one executable."""

    def call(learned: dict, fixed: dict) -> tuple:
        arrays = dict(learned)
        operands = [arrays.pop(name) for name in ("query", "key", "value")]
        return attn_jax.dot_product_attention_with_logsumexp(
            *operands,
            **options_of(names, arrays | fixed, SIZES[sizes]),
            implementation=implementation,
        )

    @jax.jit
    def run(learned: dict, fixed: dict, cotangents: tuple) -> dict:
        (out, lse), pull = jax.vjp(functools.partial(call, fixed=fixed), learned)
        (gradients,) = pull(cotangents)
        return {"out": out, "lse": lse} | {f"d_{name}": g for name, g in gradients.items()}

    return run


def results(case: Case, implementation: str) -> dict:
    """What the library computes for a case."""
    learned, fixed = draw(case)
    lse = jnp.asarray(learned.pop("cotangent_lse"), jnp.float32)
    reals = {name: jnp.asarray(array, case.dtype) for name, array in learned.items()}
    out = reals.pop("cotangent")
    run = compiled(case.sizes, case.options, implementation)
    with jax.default_matmul_precision("highest"):
        found = run(reals, jax.tree.map(jnp.asarray, fixed), (out, lse))
    return jax.device_get(found)


def assert_near(case: Case, ours: dict) -> None:
    """Checks every result by the criterion of its dtype."""
    learned, fixed = draw(case)
    exact, condition = attention(learned, rules_of(case, learned, fixed))
    single = {name: array.astype(np.float32) for name, array in learned.items()}
    naive, _ = attention(single, rules_of(case, single, fixed))
    for name, result in ours.items():
        check(
            name,
            result,
            exact[name],
            condition[name],
            naive=naive[name],
            greatest_logit=float(exact["greatest_logit"]),
            dtype="float32" if name == "lse" else case.dtype,
        )
