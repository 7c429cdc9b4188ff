"""Attention calls inside a score or a score mod: different inner calls are not mixed up."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn_jax
from attn_jax import masks, score_mods
from attn_jax._engine.operation import Primitive
from tests.helpers import oracle
from tests.helpers.primitives import primitives
from tests.helpers.tolerance import assert_close, assert_differs

T, S, L, H = 3, 4, 5, 2
QUERY, KEY, NOTES = (
    np.random.default_rng(seed).normal(size=(rows, H)) for seed, rows in enumerate((T, S, L))
)
AT = 2  # position of the inner query

# The masks of the inner call, and the notes that it attends to.
INNER = {
    "causal": (masks.causal(), [0, 1, 2]),
    "the rest": (~masks.causal(), [3, 4]),
    "window": (masks.sliding_window(1, 0), [1, 2]),
    "function": (lambda i, j: j == i, [2]),
    "another function": (lambda i, j: j > i, [3, 4]),
}


def score_by_inner_attention(mask, notes):
    """A score with an inner attention call: key · attend(query, notes, notes)."""

    def score(query, key):
        place = {"query_position": jnp.array([AT]), "key_position": jnp.arange(len(notes))}
        options = {"mask": mask, "implementation": "blockwise"}
        return attn_jax.attend(query, notes, notes, **options, **place) @ key.T

    return score


def expected(attended: list[int]) -> np.ndarray:
    def score(query, key):
        notes = NOTES[attended]
        return oracle.dot(oracle.attention(query[None], notes, notes)[0][0], key)

    return oracle.attention(QUERY, KEY, KEY, score=score)[0]


@pytest.mark.parametrize("implementation", ["reference", "blockwise"])
def test_scores_that_differ_in_the_mask_of_an_inner_call_are_different_programs(implementation):
    query, key, notes = (jnp.asarray(x, jnp.float32) for x in (QUERY, KEY, NOTES))
    outs = []
    for mask, attended in INNER.values():
        score = score_by_inner_attention(mask, notes)
        out = attn_jax.attend(query, key, key, score=score, implementation=implementation)
        assert_close(out, expected(attended), dtype=jnp.float32)
        outs.append(out)
    assert_differs(outs[0], outs[1])


def operations(mask, dtype=jnp.float32) -> list[Primitive]:
    """Our operations in a blockwise call with this mask and in its first and second derivative."""

    def total(query):
        out = attn_jax.attend(query, query, query, mask=mask, implementation="blockwise")
        return out.astype(jnp.float32).sum()

    def derivatives(query):
        gradient = jax.grad(total)
        return jax.jvp(gradient, (query,), (query,))

    return primitives(jax.make_jaxpr(derivatives)(jnp.ones((T, H), dtype)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AlsoCausal(masks.Mask):
    """Has as many fields as the library's own causal mask: none."""

    def __call__(self, query_position, key_position):
        return key_position <= query_position


def test_our_primitives_are_equal_if_and_only_if_trees_and_types_of_their_operands_are():
    ours = operations(masks.causal())
    assert {type(op).__name__ for op in ours} >= {"_Attention", "_Vjp", "_TileSum"}
    assert operations(masks.causal()) == ours
    assert list(map(hash, operations(masks.causal()))) == list(map(hash, ours))
    others = (
        (~masks.causal(), jnp.float32),
        (masks.causal(), jnp.float16),
        (AlsoCausal(), jnp.float32),
    )
    for other in (operations(*arguments) for arguments in others):
        assert len(other) == len(ours)
        assert not any(one == two for one, two in zip(ours, other, strict=True))


def test_score_mods_that_differ_in_an_inner_call_are_different_programs():
    notes = jnp.asarray(NOTES, jnp.float32)
    outs = []
    for inner in (score_mods.soft_cap(0.5), score_mods.alibi(0.5), lambda logit, i, j: -logit):
        options = {"score_mod": inner, "implementation": "blockwise"}

        def score_mod(logit, i, j, options=options):
            return logit * attn_jax.attend(notes, notes, notes, **options)[0, 0]

        outs.append(attn_jax.attend(notes, notes, notes, score_mod=score_mod))
    assert_differs(outs[0], outs[1])
    assert_differs(outs[0], outs[2])
    assert_differs(outs[1], outs[2])
