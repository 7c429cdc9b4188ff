"""A picture for a paper hatches the masked cells and no others."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from attn_jax.viewer._figure import hatch_masked

MASKS = {
    "causal": ~np.tri(4, dtype=bool),
    "two runs in a row": np.array([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], bool),
    "nothing": np.zeros((2, 3), bool),
}


@pytest.mark.parametrize("name", MASKS)
def test_the_masked_cells_are_hatched(name):
    masked, axes = MASKS[name], Figure().subplots()
    hatch_masked(axes, masked)
    (drawn,) = axes.collections
    assert drawn.get_hatch()
    for t, s in np.ndindex(*masked.shape):
        is_hatched = any(path.contains_point((s, t)) for path in drawn.get_paths())
        assert is_hatched == masked[t, s]
