"""A picture for a paper hatches the cells that may not be read, and no other."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from attn_jax.viewer._figure import hatch

MASKS = {
    "causal": ~np.tri(4, dtype=bool),
    "two runs in a row": np.array([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], bool),
    "nothing": np.zeros((2, 3), bool),
}


@pytest.mark.parametrize("name", MASKS)
def test_the_cells_that_may_not_be_read_are_hatched(name):
    hidden, axes = MASKS[name], Figure().subplots()
    hatch(axes, hidden)
    (drawn,) = axes.collections
    assert drawn.get_hatch()
    for t, s in np.ndindex(*hidden.shape):
        is_hatched = any(path.contains_point((s, t)) for path in drawn.get_paths())
        assert is_hatched == hidden[t, s]
