"""Strict JAX settings for every test; fixtures for float64, eager and jit, tiles, type checks."""

import os

import jax
import jaxtyping
import pytest

from attn_jax._base.grid import TileShape
from attn_jax._engine import tile_shape

# No test uses the tiles that the user has measured, and none can be stored in this place.
os.environ["ATTN_JAX_CACHE_DIR"] = os.path.join(os.devnull, "none")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture
def x64():
    """float64 for one test: comparisons with the oracle need it, users should not."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=["eager", "jit"])
def run(request):
    """The identity and `jax.jit`: what holds for a function must hold for both."""
    return jax.jit if request.param == "jit" else lambda function: function


@pytest.fixture
def tiles(monkeypatch):
    """Sets the shape of tiles, which the library chooses larger than the sizes of tests."""

    def use(queries: int, keys: int) -> None:
        monkeypatch.setattr(tile_shape, "choose", lambda *_, **__: TileShape(queries, keys))
        jax.clear_caches()

    yield use
    jax.clear_caches()


@pytest.fixture
def no_type_hook():
    """Switches jaxtyping's hook off, whose own error would come before ours."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
