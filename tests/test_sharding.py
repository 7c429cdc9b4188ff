"""Arrays that are sharded over examples, heads or both: no array is gathered, nothing changes."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import IMPLEMENTATIONS
from draws import draw
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import attn_jax
from attn_jax import masks, score_mods

B, T, N, K, H, V = 2, 40, 4, 2, 8, 6
DOCUMENTS = jnp.asarray(np.random.default_rng(0).integers(0, 2, (B, 1, T)).cumsum(-1), jnp.int32)
OPTIONS = {
    "all": {},
    "causal": {"is_causal": True},
    "documents": {"mask": masks.segments(DOCUMENTS) & masks.causal()},
    "slopes": {"is_causal": True, "score_mod": score_mods.alibi(score_mods.alibi_slopes(N)[None])},
}
SPECS = {
    "examples": PartitionSpec("shards"),
    "heads": PartitionSpec(None, None, "shards"),
}


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_output_and_gradients_stay_where_the_inputs_are(spec, options, implementation, tiles):
    tiles(16, 16)
    mesh = jax.make_mesh((2,), ("shards",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, spec)
    shapes = (B, T, N, H), (B, T, K, H), (B, T, K, V), (B, T, N, V)
    arrays = draw(1, *shapes, dtype=jnp.float32)
    read = partial(attn_jax.dot_product_attention, implementation=implementation, **options)

    @jax.jit
    def output_and_gradients(query, key, value, cotangent):
        out, transpose = jax.vjp(read, query, key, value)
        return out, *transpose(cotangent)

    placed = jax.device_put(arrays, sharding)
    compiled = output_and_gradients.lower(*placed).compile()
    assert not re.findall(r"\ball-gather(?:-start)?\(", compiled.as_text())
    for got, wanted in zip(compiled(*placed), output_and_gradients(*arrays), strict=True):
        assert got.sharding.is_equivalent_to(sharding, got.ndim)
        scale = jnp.max(jnp.abs(wanted))
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-6 * scale)
