"""Rows that are fully masked have exact results, and NaN in them reaches nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.fused_cases import SIZES, Case, compiled, draw
from tests.helpers.tolerance import assert_equal

pytestmark = pytest.mark.usefixtures("interpreted")
OPTIONS = "key lengths", "query lengths", "scale", "slopes", "cap"
POISONED = {"query": "query", "cotangent": "query", "key": "key", "value": "key"}


def lengths_of(case):
    _, fixed = draw(case)
    return {"query": fixed["query_seq_lengths"], "key": fixed["key_value_seq_lengths"]}


def masked(lengths, L):
    return np.arange(L) >= lengths[:, None]


def run(case, poison):
    """The results of a case with some of its masked rows replaced by NaN."""
    learned, fixed = draw(case)
    for name, side in POISONED.items():
        rows = masked(lengths_of(case)[side], learned[name].shape[1])
        learned[name] = np.where(rows[..., None, None] & poison, np.nan, learned[name])
    reals = {name: jnp.asarray(array, case.dtype) for name, array in learned.items()}
    cotangents = reals.pop("cotangent"), reals.pop("cotangent_lse").astype(jnp.float32)
    fixed = jax.tree.map(jnp.asarray, fixed)
    return compiled(case.sizes, case.options, "mosaic_tpu")(reals, fixed, cotangents)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nan_in_masked_rows_changes_no_bit_of_any_result(dtype):
    case = Case("square", OPTIONS, dtype=dtype)
    for ours, clean in zip(*(run(case, poison).values() for poison in (True, False)), strict=True):
        assert not np.isnan(np.asarray(ours, np.float32)).any()
        assert_equal(ours, clean)


def test_fully_masked_rows_have_the_output_zero_and_gradients_of_exactly_zero():
    case = Case("square", OPTIONS)
    found, lengths = run(case, True), lengths_of(case)
    s = SIZES[case.sizes]
    no_keys = (lengths["key"] == 0)[:, None] & np.ones((s.B, s.T), bool)
    queries = masked(lengths["query"], s.T) | no_keys
    assert 0 < queries.sum() < queries.size
    assert not np.asarray(found["out"])[queries].any()
    assert (np.asarray(found["lse"])[queries] == -np.inf).all()
    assert not np.asarray(found["d_query"])[queries].any()
    keys = masked(lengths["key"], s.S)
    for name in ("d_key", "d_value"):
        assert not np.asarray(found[name])[keys].any()
        assert np.asarray(found[name])[~keys].any()
