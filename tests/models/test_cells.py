import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from attn_jax.models import GRU, LSTM, GatedUnit
from attn_jax.models.cells import CELLS, Cell
from tests.helpers.draws import draw
from tests.helpers.tiny_models import drawn
from tests.helpers.tolerance import assert_close, assert_differs

pytestmark = pytest.mark.usefixtures("x64")

N, M = 4, 3


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def papers_gated_unit(state, drive, u_z, u_r, u):
    """Bahdanau et al. (2014), A.1.1, with W e + b of each gate given."""
    z = sigmoid(drive[:N] + state @ u_z)
    r = sigmoid(drive[N : 2 * N] + state @ u_r)
    candidate = np.tanh(drive[2 * N :] + (r * state) @ u)
    return (1 - z) * state + z * candidate


def kernels(unit: GatedUnit):
    u_z, u_r = np.split(np.asarray(unit.gate_kernel[...]), 2, axis=1)
    return u_z, u_r, np.asarray(unit.candidate_kernel[...])


def flax_gru_like(unit: GatedUnit) -> GRU:
    """Flax's GRU on the same matrices: gates in the order r, z, n."""
    u_z, u_r, u = kernels(unit)
    gru = drawn(GRU(N, rngs=nnx.Rngs(0)), dtype=jnp.float64)
    gru.cell.dense_h.kernel[...] = jnp.concatenate([u_r, u_z, u], axis=1)
    gru.cell.dense_h.bias[...] = jnp.zeros(3 * N)
    return gru


def step_of_flax_gru(gru, state, drive):
    """One step with the drive [z, r, candidate] of the gated unit, whose z is Flax's 1 − z."""
    z, r, candidate = jnp.split(drive, 3)
    return gru(state, jnp.concatenate([r, -z, candidate]))


def negate_update_kernel(gru):
    r, z, candidate = jnp.split(gru.cell.dense_h.kernel[...], 3, axis=1)
    gru.cell.dense_h.kernel[...] = jnp.concatenate([r, -z, candidate], axis=1)
    return gru


def test_the_gated_unit_is_the_papers():
    unit = drawn(GatedUnit(N, rngs=nnx.Rngs(0)), dtype=jnp.float64)
    state, drive = draw(1, (N,), (3 * N,))
    expected = papers_gated_unit(np.asarray(state), np.asarray(drive), *kernels(unit))
    assert_close(unit(state, drive), expected)


def test_d12_the_papers_gated_unit_is_not_flax_gru_however_z_is_read():
    unit = drawn(GatedUnit(N, rngs=nnx.Rngs(0)), dtype=jnp.float64)
    state, drive = draw(2, (N,), (3 * N,))
    gru = flax_gru_like(unit)
    z, r, candidate = jnp.split(drive, 3)
    assert_differs(gru(state, jnp.concatenate([r, z, candidate])), unit(state, drive))
    gru = negate_update_kernel(gru)
    assert_differs(step_of_flax_gru(gru, state, drive), unit(state, drive))


def test_d13_where_the_candidates_matrix_is_diagonal_they_are_one():
    unit = drawn(GatedUnit(N, rngs=nnx.Rngs(0)), dtype=jnp.float64)
    unit.candidate_kernel[...] = jnp.diag(unit.candidate_kernel[0])
    state, drive = draw(3, (N,), (3 * N,))
    gru = negate_update_kernel(flax_gru_like(unit))
    assert_close(step_of_flax_gru(gru, state, drive), unit(state, drive))


def test_the_gru_is_flax_gru_with_its_input_product_taken_out():
    flax_cell = drawn(nnx.GRUCell(M, N, rngs=nnx.Rngs(0)), dtype=jnp.float64)
    ours = drawn(GRU(N, rngs=nnx.Rngs(0)), dtype=jnp.float64)
    ours.cell.dense_h.kernel[...] = flax_cell.dense_h.kernel[...]
    ours.cell.dense_h.bias[...] = jnp.zeros(3 * N)  # Flax has none
    state, x = draw(4, (N,), (M,))
    expected, _ = flax_cell(state, x)
    assert_close(ours(state, flax_cell.dense_i(x)), expected)


def test_the_lstm_is_flax_lstm_with_its_input_product_taken_out():
    flax_cell = drawn(nnx.LSTMCell(M, N, rngs=nnx.Rngs(0)), dtype=jnp.float64)
    gates_i = [flax_cell.ii, flax_cell.if_, flax_cell.ig, flax_cell.io]
    gates_h = [flax_cell.hi, flax_cell.hf, flax_cell.hg, flax_cell.ho]
    ours = drawn(LSTM(N, rngs=nnx.Rngs(0)), dtype=jnp.float64)
    dense_h = ours.cell.dense_h
    dense_h.kernel[...] = jnp.concatenate([gate.kernel[...] for gate in gates_h], axis=1)
    dense_h.bias[...] = jnp.concatenate([gate.bias[...] for gate in gates_h])
    h, c, x = draw(5, (N,), (N,), (M,))
    (new_c, new_h), _ = flax_cell((c, h), x)
    drive = jnp.concatenate([gate(x) for gate in gates_i])
    assert_close(ours(jnp.concatenate([h, c]), drive), jnp.concatenate([new_h, new_c]))


@pytest.mark.parametrize("name", CELLS)
def test_every_recurrent_matrix_starts_orthogonal_and_every_bias_at_zero(name):
    cell = CELLS[name](N, rngs=nnx.Rngs(7))
    assert isinstance(cell, Cell)
    parameters = jax.tree.leaves(nnx.state(cell, nnx.Param))
    matrices = [
        m for leaf in parameters if leaf.ndim == 2 for m in jnp.split(leaf, leaf.shape[1] // N, 1)
    ]
    assert len(matrices) == cell.num_gates
    for matrix in matrices:
        assert_close(matrix.T @ matrix + 1, jnp.eye(N, dtype=matrix.dtype) + 1)
    assert_differs(matrices[0], matrices[-1])
    for bias in (leaf for leaf in parameters if leaf.ndim == 1):
        assert not bias.any()
