"""The shipped table of tiles: which side each chip gets, and what makes it smaller."""

import jax
import pytest

from attn_jax._base.grid import TileShape
from attn_jax._engine import measured_tiles, tpu_tiles

WIDE = {"head_dim": 128, "value_dim": 128, "dtype": "bfloat16"}
CHIPS = ["v5e", "v6e", "tpu7x", "v5p", "v4"]


@pytest.mark.parametrize("chip", [*CHIPS, None])
@pytest.mark.parametrize("head_dim", [32, 64, 96, 256])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_sides_are_multiples_of_128_and_no_longer_than_the_sequence(chip, head_dim, dtype):
    tile = tpu_tiles.tile_of(chip, head_dim=head_dim, value_dim=64, dtype=dtype, T=300, S=5000)
    assert tile.queries % 128 == tile.keys % 128 == 0
    assert 128 <= tile.queries <= 384
    assert 128 <= tile.keys <= 1024


def test_v6e_has_larger_tiles_than_v5e_and_asks_for_the_memory():
    of = {chip: tpu_tiles.tile_of(chip, **WIDE, T=8192, S=4096) for chip in [*CHIPS, None]}
    assert of["v6e"] == (1024, 1024)
    assert of["v5e"] == of[None] == (512, 512)
    assert tpu_tiles.vmem_limit_bytes("v6e") == 64 * 2**20
    assert tpu_tiles.vmem_limit_bytes("v5e") is tpu_tiles.vmem_limit_bytes(None) is None


def test_a_wide_head_halves_the_side_until_the_arrays_fit():
    narrow = tpu_tiles.tile_of("v5e", head_dim=256, value_dim=256, dtype="float32", T=4096, S=2048)
    wide = tpu_tiles.tile_of("v5e", head_dim=1024, value_dim=256, dtype="float32", T=4096, S=2048)
    assert narrow == (512, 512)
    assert wide == (256, 256)


@pytest.mark.parametrize(("T", "S", "tile"), [(1, 129, (128, 256)), (700, 64, (512, 128))])
def test_short_sequences_are_rounded_up_to_128(T, S, tile):
    assert tpu_tiles.tile_of("v5e", **WIDE, T=T, S=S) == tile


KINDS = {"TPU v5 lite": "v5e", "TPU v6 lite": "v6e", "TPU7x": "tpu7x", "TPU v9": None}


@pytest.mark.parametrize("kind", KINDS)
def test_the_chip_is_that_of_the_program_also_if_it_is_absent(kind):
    assert tpu_tiles.present_chip() is None
    with _compiling_for(kind):
        assert tpu_tiles.present_chip() == KINDS[kind]


def test_a_measured_tile_comes_before_the_table(monkeypatch, tmp_path):
    monkeypatch.setenv("ATTN_JAX_CACHE_DIR", str(tmp_path))
    with _compiling_for("TPU v6 lite"):
        with measured_tiles.trying(None) as asked:
            assert tpu_tiles.tile_of("v6e", **WIDE, T=8000, S=4000) == (1024, 1024)
        measured_tiles.store(dict.fromkeys(asked, TileShape(256, 2048)))
        assert tpu_tiles.tile_of("v6e", **WIDE, T=8192, S=4096) == (256, 2048)
        assert tpu_tiles.tile_of("v6e", **WIDE, T=8192, S=9000) == (1024, 1024)
        assert tpu_tiles.shipped_tile("v6e", **WIDE, T=8192, S=4096) == (1024, 1024)
    assert tpu_tiles.tile_of("v6e", **WIDE, T=8192, S=4096) == (1024, 1024)


def _compiling_for(kind: str):
    device = jax.sharding.AbstractDevice(device_kind=kind, num_cores=1, platform="tpu")
    mesh = jax.sharding.AbstractMesh((1,), ("x",), abstract_device=device)
    return jax.sharding.use_abstract_mesh(mesh)
