"""Compiles every operation that a rule may use in a kernel, and its derivative, for a TPU.

Run by test_tpu_rules.py in a process of its own, with the TPU compiler on its path and no TPU. It
prints JSON: for each operation and rule, with its derivative where it is floating point, what the
compiler says against it, or null.
"""

import functools
import itertools
import json
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental import topologies
from jax.extend.core import primitives
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from attn_jax import masks, score_mods
from attn_jax._base import tables
from attn_jax._base.axes import unmapped
from attn_jax._engine.rules import rewritten, split
from attn_jax._engine.rules.rewrite import FORMULAS, TAKEN

SHAPE = KEYS, QUERIES = 256, 128
TOGETHER = 12  # operations in one kernel, which compile sooner than one in each
DTYPES = ("float32", "int32", "uint32", "bool")
# What jnp has for booleans, and the kernel has not, or JAX refuses when it is called.
LACKING = {("clamp", "bool"), ("add_any", "bool")}
# Operations that `jax.lax` has under another name, and those that take more than arrays.
FUNCTIONS: dict[str, Callable] = {
    "and": lax.bitwise_and,
    "or": lax.bitwise_or,
    "xor": lax.bitwise_xor,
    "not": lax.bitwise_not,
    "add_any": lambda x, y: primitives.add_jaxvals_p.bind(x, y),
    "copy": lambda x: primitives.copy_p.bind(x),
    "select_n": lambda x, y: lax.select_n(lax.lt(x, y), x, y),
    "select_n of 3 cases": lambda x, y: lax.select_n(lax.convert_element_type(x, "int32"), x, y, x),
    "integer_pow": lambda x: lax.integer_pow(x, 3),
    "integer_pow -2": lambda x: lax.integer_pow(x, -2),
    "round": lambda x: lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN),
    "round away from 0": lambda x: lax.round(x, lax.RoundingMethod.AWAY_FROM_ZERO),
    "reduce_precision": lambda x: lax.reduce_precision(x, 8, 7),
    "polynomial": lambda x: lax.polynomial(x, (0.5, 1.5, 2.5)),
    "clamp": lambda x, y: lax.clamp(x, y, x),
    "bitcast_convert_type": lambda x: lax.bitcast_convert_type(x, "int32"),
    **{
        f"convert_element_type to {dtype}": lambda x, dtype=dtype: lax.convert_element_type(
            x, dtype
        )
        for dtype in DTYPES
    },
}


def by_query(x: jax.Array) -> jax.Array:
    return lax.broadcast_in_dim(lax.reduce_sum(x, (0,)), (1, QUERIES), (1,))


def by_key(x: jax.Array) -> jax.Array:
    return lax.broadcast_in_dim(lax.reduce_sum(x, (1,)), (KEYS, 1), (0,))


def spread(x: jax.Array) -> jax.Array:
    return lax.broadcast_in_dim(x, SHAPE, (0, 1))


# Operations that change the shape, on floats and on comparisons of them.
SHAPED: dict[str, Callable] = {
    "broadcast_in_dim by query": lambda x: x + spread(by_query(x)),
    "broadcast_in_dim by key": lambda x: x + spread(by_key(x)),
    "broadcast_in_dim of one": lambda x: x + spread(lax.reduce_sum(by_query(x), (1,))[:, None]),
    "broadcast_in_dim of flags by query": lambda x: spread(lax.gt(by_query(x), by_query(-x))),
    "broadcast_in_dim of flags by key": lambda x: spread(lax.gt(by_key(x), by_key(-x))),
    "reduce_sum": lambda x: x + lax.reduce_sum(x, (0, 1)),
    "reshape": lambda x: x + spread(lax.reshape(lax.reduce_sum(x, (0,)), (1, QUERIES))),
    "squeeze": lambda x: x + lax.broadcast_in_dim(lax.squeeze(by_query(x), (0,)), SHAPE, (1,)),
}
VECTOR, ROW, SHORT = jnp.ones(QUERIES), jnp.ones(KEYS), jnp.ones(32)
IDS = jnp.zeros(KEYS, jnp.int32)
RULES = {
    "alibi and soft_cap": score_mods.alibi(jnp.float32(0.3)) >> score_mods.soft_cap(3.0),
    "relative_bias": score_mods.relative_bias(SHORT, bidirectional=True),
    "dense_bias": score_mods.dense_bias(jnp.ones((QUERIES, KEYS))),
    "vectors": lambda x, i, j: jax.nn.softplus(x * VECTOR[i] + ROW[j]),
    "gelu": lambda x, i, j: jax.nn.gelu(x, approximate=False),
    "cond": lambda x, i, j: lax.cond(x > VECTOR[i], lambda x: 2 * x, jnp.expm1, x),
    "flags": lambda x, i, j: jnp.where((ROW > 0)[j] & (VECTOR > 0)[i], x, 2 * x),
    "window and segments": masks.sliding_window(5, 0) & masks.segments(IDS[:QUERIES], IDS),
    "dilated": ~masks.dilated(9, 2, 3) | masks.prefix(jnp.int32(3)),
    "from_array": masks.from_array(jnp.ones((QUERIES, KEYS), bool)),
    "a row of flags": masks.from_array(jnp.ones((1, KEYS), bool)),
    "xor of booleans": lambda i, j: (IDS[j] == i) ^ (i * 2 < j),
}


def functions() -> Iterator[tuple[str, str, Callable, int]]:
    """Name of the operation, name of the case, function and number of operands."""
    named = {name: getattr(lax, name) for name in TAKEN | set(FORMULAS) if hasattr(lax, name)}
    for case, function in sorted({**named, **FUNCTIONS, **SHAPED}.items()):
        for dtype in ("float32",) if case in SHAPED else DTYPES:
            for count in (1, 2):
                types = [jax.ShapeDtypeStruct(SHAPE, dtype)] * count
                try:
                    result = jax.eval_shape(function, *types)
                except (TypeError, ValueError, AttributeError):
                    continue
                if result.shape == SHAPE and (case, dtype) not in LACKING:
                    yield case.split(" ")[0], f"{case}, {dtype}", of_floats(function, dtype), count


def of_floats(function: Callable, dtype: str) -> Callable:
    """The function of float tiles that converts them to a dtype, and its result back."""

    def converted(*tiles: jax.Array) -> jax.Array:
        if dtype == "bool":
            operands = [lax.gt(x, lax.full_like(x, 0)) for x in tiles]
        elif dtype == "float32":
            operands = list(tiles)
        else:
            operands = [lax.bitcast_convert_type(x, dtype) for x in tiles]
        result = function(*operands)
        if result.dtype in (jnp.int32, jnp.uint32):
            return lax.bitcast_convert_type(result, jnp.float32)
        return result.astype(jnp.float32)

    return converted


def derivative(function: Callable) -> Callable:
    """Result and derivative of a function of float tiles."""

    def both(*tiles: jax.Array) -> list[jax.Array]:
        result, pull = jax.vjp(function, *tiles)
        return [result, *pull(result)]

    return both


@functools.cache
def one_chip() -> Mesh:
    chips = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices
    return Mesh(np.array(chips[:1]), ("chip",))


def error_of(function: Callable, types: list[jax.ShapeDtypeStruct]) -> str | None:
    """What the compiler says against a function of tiles, rewritten; None where it takes it."""
    results = jax.tree.leaves(jax.eval_shape(function, *types))

    def kernel(*refs) -> None:
        operands = [ref[...] for ref in refs[: len(types)]]
        values = jax.tree.leaves(rewritten(function)(*operands))
        for ref, value in zip(refs[len(types) :], values, strict=True):
            ref[...] = value

    sharding = NamedSharding(one_chip(), PartitionSpec())
    types = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding) for x in types]
    try:
        with jax.sharding.use_abstract_mesh(one_chip().abstract_mesh):
            jax.jit(pl.pallas_call(kernel, out_shape=results)).lower(*types).compile()
    except Exception as error:  # any failure of the compiler is what this program looks for
        return f"{type(error).__name__}: {str(error)[:300]}"
    return None


def on_tile(rule, *, takes_logit: bool) -> tuple[Callable, list[jax.ShapeDtypeStruct]]:
    """The code of a rule as a function of float tiles and others, and their types."""
    rule = score_mods.as_pytree(rule, jnp.float32) if takes_logit else masks.as_pytree(rule)
    rule = tables.order(rule, tables.Rows(QUERIES, KEYS))
    name = "score_mod" if takes_logit else "mask"
    code = split(rule, unmapped(rule), name=name, takes_logit=takes_logit, in_order=True).code
    shapes = {"scalar": (1, 1), "query": (1, QUERIES), "key": (KEYS, 1)}
    types = [jax.ShapeDtypeStruct(SHAPE, jnp.float32)] * takes_logit
    types += [jax.ShapeDtypeStruct((1, QUERIES), jnp.int32)]
    types += [jax.ShapeDtypeStruct((KEYS, 1), jnp.int32)]
    count = len(types)
    types += [jax.ShapeDtypeStruct(shapes.get(p.kind, SHAPE), p.dtype_on_tile) for p in code.parts]
    floats = [n for n, x in enumerate(types) if x.dtype == jnp.float32]

    def both(*arrays: jax.Array):
        def of_floats(*given: jax.Array) -> jax.Array:
            every = dict(enumerate(arrays)) | dict(zip(floats, given, strict=True))
            tiles = list(every.values())
            result = code.on_tile(tuple(tiles[:count]), tiles[count:])
            return jnp.broadcast_to(result.astype(jnp.float32), SHAPE)

        if not takes_logit:
            return of_floats(*(arrays[n] for n in floats))
        result, pull = jax.vjp(of_floats, *(arrays[n] for n in floats))
        return result, *pull(result)

    return both, types


def errors_of(functions: list[tuple[Callable, int]]) -> list[str | None]:
    """What the compiler says against each function; all in one kernel, where it takes that."""
    tile = jax.ShapeDtypeStruct(SHAPE, jnp.float32)

    def together(*tiles: jax.Array) -> list:
        return [function(*tiles[:count]) for function, count in functions]

    if error_of(together, [tile] * 2) is None:
        return [None] * len(functions)
    return [error_of(function, [tile] * count) for function, count in functions]


def main() -> None:
    operations = {}
    for cases in itertools.batched(functions(), TOGETHER):
        compiled = [
            (derivative(function) if case.endswith("float32") else function, count)
            for _, case, function, count in cases
        ]
        for (name, case, *_), error in zip(cases, errors_of(compiled), strict=True):
            operations.setdefault(name, {})[case] = error
    rules = {}
    for name, rule in RULES.items():
        takes_logit = isinstance(rule, score_mods.ScoreMod) or (
            not isinstance(rule, masks.Mask) and rule.__code__.co_argcount == 3
        )
        rules[name] = error_of(*on_tile(rule, takes_logit=takes_logit))
    print(json.dumps({"operations": operations, "rules": rules}))


if __name__ == "__main__":
    main()
