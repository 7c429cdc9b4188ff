"""A rule cut in two computes what it computes on all pairs, with the same gradients."""

import jax
import jax.numpy as jnp
import pytest

from attn_jax import masks, score_mods
from attn_jax._base import tables
from attn_jax._base.axes import Axes, in_front, map_levels
from attn_jax._engine.call import TableMask
from attn_jax._engine.rules import Refused, rewritten, split
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_close, assert_equal

T, S, INNER, OUTER = 5, 7, 3, 2
SIZES = INNER, OUTER
VECTOR, ROW, SHORT, TABLE = draw(0, (T,), (S,), (4,), (T, S), dtype=jnp.float32)
IDS = jnp.array([0, 0, 1, 2, 2, 2, -1], jnp.int32)
LENGTH = jnp.int32(3)
SLOPE, CAP = jnp.float32(0.3), jnp.float32(1.7)
FLAGS = jnp.array([True, False, True, True, False, True, False])


@jax.custom_jvp
def half_squared(x):
    return x * x


half_squared.defjvp(lambda x, dx: (half_squared(*x), x[0] * dx[0]))


@jax.custom_vjp
def clipped_gradient(x):
    return 2 * x


clipped_gradient.defvjp(lambda x: (2 * x, x), lambda x, dy: (jnp.clip(dy, -0.1, 0.1) * x,))


def real(i):
    return i.astype(jnp.float32)


MODS = {
    "alibi": score_mods.alibi(SLOPE),
    "soft_cap": score_mods.soft_cap(CAP),
    "chain": score_mods.alibi(0.5) >> score_mods.soft_cap(3.0) >> (lambda x, i, j: x + ROW[j]),
    "relative_bias": score_mods.relative_bias(SHORT, bidirectional=True, max_distance=3),
    "decoder's relative_bias": score_mods.relative_bias(SHORT, bidirectional=False, max_distance=5),
    "dense_bias": score_mods.dense_bias(TABLE),
    "dense_bias of one row": score_mods.dense_bias(ROW[None]),
    "dense_bias of one column": score_mods.dense_bias(VECTOR[:, None]),
    "dense_bias of one number": score_mods.dense_bias(SLOPE[None, None]),
    "by query": lambda x, i, j: x + VECTOR[i],
    "by key": lambda x, i, j: x * ROW[j],
    "by bucket of the distance": lambda x, i, j: x + SHORT[jnp.clip(i - j, 0, 3)],
    "by bucket of the other sign": lambda x, i, j: x + SHORT[jnp.minimum(jnp.abs(j - i), 3)],
    "through an index": lambda x, i, j: x + SHORT[jnp.abs(IDS[j])],
    "by pair": lambda x, i, j: x + TABLE[i, j],
    "by pair in two steps": lambda x, i, j: x + TABLE[i][j],
    "of the distance": lambda x, i, j: x + jnp.sqrt(jnp.abs(real(i - j))),
    "softplus": lambda x, i, j: jax.nn.softplus(x) * SLOPE,
    "logaddexp": lambda x, i, j: jnp.logaddexp(x, ROW[j]),
    "relu": lambda x, i, j: jax.nn.relu(x - SLOPE),
    "where": lambda x, i, j: jnp.where(i > j + LENGTH, x, SLOPE * x),
    "clip": lambda x, i, j: jnp.clip(x, -CAP, CAP),
    "a sum of an array": lambda x, i, j: x * jnp.sum(SHORT * SHORT) + jnp.max(ROW),
    "lgamma of the key": lambda x, i, j: x + jax.lax.lgamma(real(j) + 1.5),
    "lgamma of the distance": lambda x, i, j: x + SLOPE * jax.lax.lgamma(real(abs(i - j)) + 1.5),
    "sines of a vector": lambda x, i, j: x + jnp.sum(jnp.sin(SHORT * real(i))),
    "several": lambda x, i, j: SLOPE * x + VECTOR[i] * ROW[j] + SHORT[(i + 1) % 4],
    "own derivative": lambda x, i, j: half_squared(VECTOR[i]) + clipped_gradient(x * SLOPE),
    "cond": lambda x, i, j: jax.lax.cond(x > 0, lambda x: x * SLOPE, jnp.expm1, x),
    "gelu": lambda x, i, j: jax.nn.gelu(x * CAP, approximate=False),
    "half precision": lambda x, i, j: x + ROW.astype(jnp.bfloat16)[j].astype(jnp.float32),
    "flags": lambda x, i, j: jnp.where(FLAGS[j], x, SLOPE),
    "the logit": lambda x, i, j: x,
    "a captured number": lambda x, i, j: SLOPE,
}
MASKS = {
    "causal": masks.causal(),
    "sliding_window": masks.sliding_window(2, 1),
    "dilated": masks.dilated(2, 1, 2),
    "prefix": masks.prefix(LENGTH),
    "key_padding": masks.key_padding(LENGTH) & ~masks.causal(),
    "segments": masks.segments(IDS[:T], IDS) | masks.sliding_window(1, 0),
    "from_array": masks.from_array(TABLE > 0),
    "from_array of one row": masks.from_array(FLAGS[None]),
    "array of one column": TableMask(tables.Table(FLAGS[:T, None], "pair")),
    "callable": lambda i, j: (IDS[j] == IDS[i]) ^ (i * 2 < j),
    "random blocks": lambda i, j: jnp.array([[1, 0, 1], [1, 1, 0]], bool)[i // 3, j // 3],
    "a key's flag": lambda i, j: FLAGS[j],
}


def prepared(rule, takes_logit):
    """The rule as in a call, with arrays mapped over differing levels, and their axes."""
    rule = score_mods.as_pytree(rule, jnp.float32) if takes_logit else masks.as_pytree(rule)
    leaves, tree = jax.tree.flatten(tables.order(rule, tables.Rows(T, S)))
    some = [mapped(leaf, n) for n, leaf in enumerate(leaves)]
    return tree.unflatten(x for x, _ in some), tree.unflatten(axes for _, axes in some)


def mapped(leaf, n):
    """An array with entries of its own in none, one or both of two levels."""
    inner = n % 4 in (0, 2)
    outer = n % 4 in (1, 2)
    axes = Axes().mapped(leaf.ndim if inner else None).mapped(0 if outer else None)
    if inner:
        leaf = jnp.stack([changed(leaf, m) for m in range(INNER)], axis=-1)
    if outer:
        leaf = jnp.stack([changed(leaf, m) for m in range(OUTER)], axis=0)
    return leaf, axes


def changed(leaf, m):
    if jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf * (1 + 0.25 * m)
    return leaf + m if leaf.ndim == 0 else jnp.roll(leaf, m, axis=0)


def dense(rule, axes, logit, positions, position_axes):
    """The rule on every pair of every head: [outer inner T S]."""

    def one_head(rule, logit, i, j):
        tiles = (i[:, None], j[None, :])
        arguments = tiles if logit is None else (logit, *tiles)
        result = tables.on_pairs(rule, *arguments)
        return jnp.broadcast_to(result, (T, S))

    logit_axes = None if logit is None else in_front(2)
    inputs = axes, logit_axes, *position_axes
    return map_levels(one_head, inputs, in_front(2), SIZES)(rule, logit, *positions)


def in_two(cut, rule, logit, positions, position_axes):
    """The same of the rule cut in two."""
    distances = jnp.arange(1 - S, T, dtype=jnp.int32)
    parts = cut.outside(rule, *positions, position_axes, distances, SIZES)
    i, j = map(of_every_head, positions, position_axes)
    tiles = [i[..., None, :], j[..., :, None]]
    arguments = tiles if logit is None else [jnp.swapaxes(logit, -1, -2), *tiles]
    placed = map(on_tiles, cut.code.parts, parts)
    heads = [jnp.broadcast_to(x, (OUTER, INNER, *x.shape[-2:])) for x in (*arguments, *placed)]

    def on_tile(*arrays):
        return cut.code.on_tile(arrays[: len(arguments)], arrays[len(arguments) :])

    result = jax.vmap(jax.vmap(on_tile))(*heads)
    return jnp.broadcast_to(jnp.swapaxes(result, -1, -2), (OUTER, INNER, T, S))


def of_every_head(array, axes):
    return map_levels(lambda x: x, (axes,), in_front(2), SIZES)(array)


def on_tiles(part, values):
    """A part as the tile of all pairs takes it, with keys before queries."""
    assert str(values.dtype) == part.dtype
    if part.kind == "distance":
        return values[..., 0, jnp.arange(T)[None, :] - jnp.arange(S)[:, None] + S - 1]
    return values if part.kind == "query" else jnp.swapaxes(values, -1, -2)


IN_ORDER = (jnp.arange(T), jnp.arange(S)), (Axes((None, None)), Axes((None, None)))
GIVEN = (
    (jnp.array([[4, 6, 1], [0, 1, 3], [2, 2, 0], [5, 3, 4], [6, 4, 2]]), jnp.arange(S)[::-1]),
    (Axes((1, None)), Axes((None, None))),
)


def cut_in_two(rule, takes_logit, *, in_order=True):
    """The rule in two, the rule with mapped arrays, and their axes."""
    rule, axes = prepared(rule, takes_logit)
    name = "score_mod" if takes_logit else "mask"
    return split(rule, axes, name=name, takes_logit=takes_logit, in_order=in_order), rule, axes


@pytest.mark.parametrize("positions", [IN_ORDER, GIVEN], ids=["in order", "given"])
@pytest.mark.parametrize("name", MASKS)
def test_a_mask_in_two_masks_the_same_pairs(name, positions):
    cut, rule, axes = cut_in_two(MASKS[name], False, in_order=positions is IN_ORDER)
    expected = dense(rule, axes, None, *positions)
    assert_equal(in_two(cut, rule, None, *positions), expected)
    assert expected.any()
    assert not expected.all()


@pytest.mark.parametrize("name", MODS)
def test_a_score_mod_in_two_has_the_same_results_and_gradients(name):
    cut, rule, axes = cut_in_two(MODS[name], True)
    logit, cotangent = draw(5, (OUTER, INNER, T, S), (OUTER, INNER, T, S), dtype=jnp.float32)
    expected, pull = jax.vjp(lambda rule, x: dense(rule, axes, x, *IN_ORDER), rule, logit)
    actual, pull_in_two = jax.vjp(lambda rule, x: in_two(cut, rule, x, *IN_ORDER), rule, logit)
    assert_close(actual, expected)
    compare_gradients(pull_in_two(cotangent), pull(cotangent))


def compare_gradients(actual, expected):
    """Compares all gradients; integers have none."""
    for ours, theirs in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        if theirs.dtype != jax.dtypes.float0:
            assert_close(ours, theirs, gradient=True)


@pytest.mark.parametrize("name", MODS)
def test_the_rewritten_derivative_on_a_tile_is_the_derivative(name):
    cut, *_ = cut_in_two(MODS[name], True)
    shapes = {"scalar": (1, 1), "query": (1, T), "key": (S, 1)}
    kinds = [shapes.get(part.kind, (S, T)) for part in cut.code.parts]
    logit, cotangent, *floats = draw(6, (S, T), (S, T), *kinds, dtype=jnp.float32)
    pairs = zip(floats, cut.code.parts, strict=True)
    parts = [jnp.abs(x).astype(part.dtype) for x, part in pairs]
    trained = [n for n, part in enumerate(cut.code.parts) if part.has_gradient]
    i, j = jnp.arange(T)[None, :], jnp.arange(S)[:, None]

    def derivative(logit, cotangent, *parts):
        def of_floats(logit, *floats):
            given = dict(zip(trained, floats, strict=True))
            every = [given.get(n, part) for n, part in enumerate(parts)]
            return jnp.broadcast_to(cut.code.on_tile((logit, i, j), every), (S, T))

        return jax.vjp(of_floats, logit, *(parts[n] for n in trained))[1](cotangent)

    expected = derivative(logit, cotangent, *parts)
    compare_gradients(rewritten(derivative)(logit, cotangent, *parts), expected)


@pytest.mark.parametrize(
    ("mod", "message"),
    [
        (lambda x, i, j: jax.lax.lgamma(x), "score_mod uses lgamma, which the TPU kernel has not"),
        (lambda x, i, j: x + SHORT[(i + j) % 4], "looks an array up by more than one of query"),
        (lambda x, i, j: x + SHORT[x.astype(jnp.int32)], "looks an array up by more than one"),
        (lambda x, i, j: x + TABLE[IDS[i], IDS[j]], "looks an array up by more than one of"),
        (lambda x, i, j: jnp.sum(x * ROW), r"an array of shape \[7\] for each pair"),
        (lambda x, i, j: x + jnp.sort(jnp.stack([x, SLOPE]))[0], "uses stack"),
        (lambda x, i, j: jax.lax.fori_loop(0, 3, lambda _, y: y * y, x), "uses scan"),
        (lambda x, i, j: jax.lax.while_loop(lambda y: y < 9, lambda y: 2 * y + 1, x), "uses while"),
        (lambda x, i, j: jnp.tanh(x.astype(jnp.bfloat16)).astype(jnp.float32), "bfloat16"),
        (lambda x, i, j: jnp.where(IDS.astype(jnp.int8)[j] > i.astype(jnp.int8), x, 0), "int8"),
        (
            lambda x, i, j: x + jax.random.uniform(jax.random.fold_in(jax.random.key(0), i * j)),
            "uses random_fold_in",
        ),
    ],
)
def test_what_a_kernel_cannot_compute_is_refused_by_name(mod, message):
    with pytest.raises(Refused, match=message):
        cut_in_two(mod, True)


@pytest.mark.parametrize("name", ["relative_bias", "by bucket of the distance"])
def test_a_table_by_distance_is_refused_where_positions_are_given(name):
    with pytest.raises(Refused, match="where query_position and key_position are left out"):
        cut_in_two(MODS[name], True, in_order=False)


def test_parts_say_what_they_have_entries_for_and_whether_they_are_trained():
    mod = score_mods.alibi(SLOPE) >> (
        lambda x, i, j: jnp.where(FLAGS[j], x + VECTOR[i] + SHORT[jnp.abs(i - j) % 4], TABLE[i, j])
    )
    cut, rule, _ = cut_in_two(mod, True)
    parts = cut.outside(rule, *IN_ORDER[0], IN_ORDER[1], jnp.arange(1 - S, T), SIZES)
    trained = {(part.kind, part.dtype): part.has_gradient for part in cut.code.parts}
    assert trained == {
        ("scalar", "float32"): True,
        ("query", "float32"): True,
        ("key", "int32"): False,
        ("distance", "float32"): True,
        ("pair", "float32"): True,
    }
    sizes = {"scalar": (1, 1), "query": (1, T), "key": (1, S), "distance": (1, T + S - 1)}
    for part, values in zip(cut.code.parts, parts, strict=True):
        assert values.shape[2:] == sizes.get(part.kind, (T, S))


def test_a_part_has_full_size_only_at_levels_where_it_is_mapped():
    rule = score_mods.as_pytree(score_mods.alibi(SLOPE) >> score_mods.dense_bias(TABLE), "float32")
    rule = tables.order(rule, tables.Rows(T, S))
    slope, table = jax.tree.leaves(rule)
    rule = jax.tree.unflatten(jax.tree.structure(rule), [jnp.stack([slope] * INNER), table])
    axes = jax.tree.unflatten(jax.tree.structure(rule), [Axes((0, None)), Axes((None, None))])
    cut = split(rule, axes, name="score_mod", takes_logit=True, in_order=True)
    parts = cut.outside(rule, *IN_ORDER[0], IN_ORDER[1], jnp.arange(1 - S, T), SIZES)
    shapes = {part.kind: x.shape for part, x in zip(cut.code.parts, parts, strict=True)}
    assert shapes == {"scalar": (1, INNER, 1, 1), "pair": (1, 1, T, S)}


def test_what_depends_on_one_side_stays_a_vector():
    i, j = jnp.arange(T)[None, :], jnp.arange(S)[:, None]
    assert cut_in_two(lambda i, j: i % 2 == 0, False)[0].code.on_tile((i, j), ()).shape == (1, T)
    assert cut_in_two(lambda i, j: j % 2 == 0, False)[0].code.on_tile((i, j), ()).shape == (S, 1)


def test_codes_are_equal_where_they_compute_the_same():
    def code(number, factor):
        cut, *_ = cut_in_two(lambda x, i, j: x * number + factor * real(i - j), True)
        return cut.code

    one, same, other = code(SLOPE, 2), code(CAP, 2), code(SLOPE, 3)
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
