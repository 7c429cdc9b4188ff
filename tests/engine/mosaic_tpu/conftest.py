"""The fused kernel interpreted on a CPU, with tiles small enough for several in one call."""

import jax
import pytest

from attn_jax._engine import dispatch, tpu_tiles
from attn_jax._engine.kernels.mosaic_tpu import MosaicTpu
from tests.helpers import fused_cases

SIDE = 128


def interpreted_by(patch: pytest.MonkeyPatch, interpret) -> None:
    """Makes "mosaic_tpu" an interpreted kernel with tiles of 128×128."""
    row = dispatch.Candidate(MosaicTpu(interpret=interpret), "it is interpreted")
    patch.setitem(dispatch._CANDIDATES, "mosaic_tpu", row)
    patch.setattr(tpu_tiles, "_UNKNOWN", tpu_tiles._UNKNOWN._replace(side=SIDE))


def clear_caches() -> None:
    """Forgets everything that was compiled for another kernel or other tiles."""
    fused_cases.compiled.cache_clear()
    jax.clear_caches()


@pytest.fixture(scope="module")
def interpreted():
    """The kernel as it is, for all tests of a file, which share what they compile."""
    clear_caches()
    with pytest.MonkeyPatch.context() as patch:
        interpreted_by(patch, True)
        yield
    clear_caches()
