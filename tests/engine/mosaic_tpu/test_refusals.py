"""Each reason of the fused kernel against a call, by name, in the message of the error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.export import symbolic_shape

import attn_jax
from attn_jax import masks, score_mods
from attn_jax._engine import dispatch
from attn_jax._engine.kernels.mosaic_tpu import MosaicTpu
from tests.engine.mosaic_tpu.conftest import clear_caches
from tests.helpers.draws import draw

T, S, H, V = 130, 130, 8, 5
SEGMENT = np.arange(T, dtype=np.int32) // 40

REFUSED = {
    "wide rows": ({"H": 513}, "query and value are 513 and 5 wide, and it takes 1 to 512"),
    "float16": ({"dtype": jnp.float16}, "the dtype is float16, and it takes float32 or bfloat16"),
    "a score": (
        {"score": lambda query, key: query @ key.T},
        "score is given, and it knows the dot product alone",
    ),
    "small tiles": (
        {"mask": lambda: attn_jax.block_mask(masks.causal(), T, S, tile=(128, 64))},
        "the block mask has tiles of 128×64, and it takes multiples of 128",
    ),
    "precision": (
        {"precision": "tensorfloat32"},
        "the matmul precision is 'tensorfloat32', and it takes None, default, bfloat16, highest, "
        "float32",
    ),
    "operation": (
        {"score_mod": lambda x, i, j: x + jax.lax.lgamma(x)},
        "score_mod uses lgamma, which the TPU kernel has not",
    ),
    "lookup by the logit": (
        {"score_mod": lambda x, i, j: x + jnp.arange(9.0)[x.astype(jnp.int32)]},
        "score_mod looks an array up by more than one of query, key and logit",
    ),
    "lookup by query and key": (
        {"mask": lambda: lambda i, j: (jnp.arange(400) % 3 > 0)[i + j]},
        "mask looks an array up by more than one of query, key and logit; the TPU kernel takes",
    ),
    "lookup by entries of two sides": (
        {
            "score_mod": lambda x, i, j: (
                x + jnp.ones((4, 4))[jnp.asarray(SEGMENT)[i], jnp.asarray(SEGMENT)[j]]
            )
        },
        "score_mod looks an array up by more than one of query, key and logit",
    ),
    "lookup by a distance of given positions": (
        {
            "score_mod": score_mods.relative_bias(np.ones(8, np.float32), bidirectional=True),
            "query_position": jnp.arange(T) + 9,
            "key_position": jnp.arange(S),
        },
        "array[f(i - j)] where query_position and key_position are left out",
    ),
    "a vector a pair": (
        {"score_mod": lambda x, i, j: x + jnp.sum(jnp.cos(x * np.ones(3, np.float32)))},
        "score_mod computes with an array of shape [3] for each pair",
    ),
    "narrow numbers": (
        {"score_mod": lambda x, i, j: x + jnp.sin(x.astype(jnp.float16)).astype(x.dtype)},
        "of dtype float16, which the TPU kernel has not",
    ),
    "tolerance": (
        {
            "score_mod": lambda x, i, j: jax.lax.exp(
                x, accuracy=jax.lax.Tolerance(atol=1e-3, rtol=0.0, ulps=0)
            )
        },
        "score_mod uses exp of a chosen tolerance, which the TPU kernel has not",
    ),
}


def call(H=H, dtype=jnp.float32, precision=None, mask=None, **options):
    rows = draw(0, (T, H), (S, H), (S, V), dtype=jnp.float32)
    query, key, value = (array.astype(dtype) for array in rows)
    if mask is not None:
        options["mask"] = mask()
    with jax.default_matmul_precision(precision):
        return attn_jax.attend(query, key, value, **options, implementation="mosaic_tpu")


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_says_what_the_kernel_lacks(options, message):
    with pytest.raises(NotImplementedError) as error:
        call(**options)
    assert "implementation 'mosaic_tpu' cannot take this call: " in str(error.value)
    assert message in str(error.value)
    assert "use implementation=None or 'blockwise'" in str(error.value)


@pytest.mark.usefixtures("interpreted")
def test_two_reasons_are_both_named():
    with pytest.raises(NotImplementedError, match=r"513 and 5 wide.*; the dtype is float16"):
        call(H=513, dtype=jnp.float16)


@pytest.mark.usefixtures("interpreted")
def test_a_score_mod_without_a_derivative_is_refused():
    @jax.custom_jvp
    def broken(x):
        return x * 2

    @broken.defjvp
    def _(primals, tangents):
        raise TypeError("no rule today")

    with pytest.raises(NotImplementedError, match=r"score_mod has no derivative \(no rule today\)"):
        call(score_mod=lambda x, i, j: broken(x))


@pytest.mark.usefixtures("interpreted", "no_type_hook")
def test_a_size_that_is_a_symbol_is_refused():
    (t,) = symbolic_shape("t")
    query = jax.ShapeDtypeStruct((t, H), jnp.float32)
    key = jax.ShapeDtypeStruct((S, H), jnp.float32)

    def attend(query, key):
        return attn_jax.attend(query, key, key, implementation="mosaic_tpu")

    with pytest.raises(NotImplementedError, match=r"a size is a symbol of jax\.export"):
        jax.export.export(jax.jit(attend))(query, key)


def test_on_a_cpu_it_is_refused_where_it_is_not_interpreted(monkeypatch):
    row = dispatch.Candidate(MosaicTpu(), "it is not interpreted")
    monkeypatch.setitem(dispatch._CANDIDATES, "mosaic_tpu", row)
    clear_caches()
    with pytest.raises(NotImplementedError, match="the platform is cpu, and it needs a TPU"):
        call()
