"""Eager calls work under `jax.transfer_guard` and with arrays that span processes."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn_jax
from attn_jax import caches, masks, score_mods
from attn_jax._base import concrete
from tests.helpers.draws import draw

B, T, N, H = 2, 5, 4, 8
LENGTHS = jnp.array([3, 5])
OPTIONS = {
    "plain": {},
    "a number as scale": {"scale": 0.3},
    "NumPy's scale": {"scale": np.float32(0.3)},
    "an array as scale": {"scale": jnp.float32(0.3)},
    "lengths": {"key_value_seq_lengths": LENGTHS},
    "a mask of a number": {"mask": masks.key_padding(3) | masks.causal()},
    "a score mod of a number": {"score_mod": score_mods.alibi(0.5)},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_an_eager_call_makes_no_implicit_transfer(options):
    (rows,) = draw(0, (B, T, N, H), dtype=jnp.float32)
    expected = attn_jax.dot_product_attention(rows, rows, rows, **options)
    with jax.transfer_guard("disallow"):
        got = attn_jax.dot_product_attention(rows, rows, rows, **options)
    assert (got == expected).all()


@pytest.fixture
def no_array_can_be_fetched(monkeypatch):
    """Makes fetching an array from the device an error; on a CPU a guard cannot detect it."""

    def asarray(value):
        if isinstance(value, jax.Array):
            raise jax.errors.JaxRuntimeError("INVALID_ARGUMENT: Disallowed device-to-host transfer")
        return np.asarray(value)

    monkeypatch.setattr(concrete, "np", types.SimpleNamespace(**vars(np) | {"asarray": asarray}))


@pytest.mark.usefixtures("no_array_can_be_fetched")
def test_arrays_that_cannot_be_fetched_are_not_checked():
    (rows,) = draw(1, (B, T, N, H), dtype=jnp.float32)
    attn_jax.dot_product_attention(
        rows, rows, rows, scale=jnp.float32(-1), key_value_seq_lengths=LENGTHS + T
    )
    with pytest.raises(ValueError, match="scale must be a finite number"):
        attn_jax.dot_product_attention(rows, rows, rows, scale=-1.0)


@pytest.mark.usefixtures("no_array_can_be_fetched")
def test_an_overflow_that_cannot_be_fetched_is_flagged():
    (rows,) = draw(2, (B, T, N, H), dtype=jnp.float32)
    cache = caches.contiguous(B, T - 1, N, H, dtype=jnp.float32)
    cache, _ = cache.append(rows, rows)
    assert jax.jit(jnp.all)(cache.overflowed).item()
