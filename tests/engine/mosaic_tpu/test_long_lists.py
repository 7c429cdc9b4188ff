"""Lists that are cut into chunks give the same results: one chunk for each row or column."""

import pytest

from attn_jax._engine.kernels.mosaic_tpu import visits
from tests.engine.mosaic_tpu.conftest import clear_caches, interpreted_by
from tests.helpers.fused_cases import Case, assert_near, results

CASES = [
    Case("square", ("causal", "slopes", "by distance")),
    Case("wide", ("documents", "dropout", "slope"), "each its own"),
    Case("tall", ("array", "bias of heads", "sink")),
]


@pytest.fixture
def chunks(monkeypatch):
    """The numbers of chunks of all lists that are made."""
    clear_caches()
    interpreted_by(monkeypatch, True)
    monkeypatch.setattr(visits, "MOST_ENTRIES", 1)
    found, chunked = [], visits._chunked

    def counted(flags, chunks, held):
        found.append(chunks)
        return chunked(flags, chunks, held)

    monkeypatch.setattr(visits, "_chunked", counted)
    yield found
    clear_caches()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_chunks_of_lists_give_the_same_results(case, chunks):
    assert_near(case, results(case, "mosaic_tpu"))
    assert min(chunks) > 1
