"""Recurrent cells whose input projection is computed before the recurrence.

A gate is σ(W x + U h + b). W x + b needs no state, so it is one matmul over all steps before the
recurrence; a cell takes it as `drive` and adds only the term of its state.
"""

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from attn_jax.models.initializers import orthogonal_blocks


@runtime_checkable
class Cell(Protocol):
    """The interface of a cell with G gates and an output h of width n."""

    hidden_dim: int
    state_dim: int
    num_gates: int

    def __call__(self, state: Float[Array, " C"], drive: Float[Array, " Gn"]) -> Float[Array, " C"]:
        """The state after one step. Its first n entries are the output, h."""
        ...


class GatedUnit(nnx.Module):
    """Bahdanau's gated hidden unit, which resets the state before the recurrent product.

    Bahdanau et al., "Neural Machine Translation by Jointly Learning to Align and Translate" (2014),
    appendix A.1.1, https://arxiv.org/abs/1409.0473; Cho et al. (2014),
    https://arxiv.org/abs/1406.1078. Flax's and PyTorch's GRU reset after the product, which is
    another function unless U is diagonal.

      z, r = σ(drive[:2n] + state @ [U_z U_r])
      h̃    = tanh(drive[2n:] + (r ∘ state) @ U)
      out  = (1 − z) ∘ state + z ∘ h̃

    Args:
      hidden_dim: width n of the state.
      rngs: random keys of the initial U, U_z and U_r, which are orthogonal.

    Returns:
      A cell: `cell(state, drive)`, with drive = [W_z x + b_z, W_r x + b_r, W x + b].

    Example:
      >>> from attn_jax.models import GatedUnit
      >>> unit = GatedUnit(1, rngs=nnx.Rngs(0))
      >>> closed = jnp.array([-100.0, 0.0, 5.0])          # z = 0: the state stays
      >>> float(unit(jnp.array([0.25]), closed)[0])
      0.25
    """

    num_gates = 3

    def __init__(self, hidden_dim: int, *, rngs: nnx.Rngs) -> None:
        self.hidden_dim = self.state_dim = hidden_dim
        shape = (hidden_dim, 2 * hidden_dim)
        self.gate_kernel = nnx.Param(orthogonal_blocks(rngs.params(), shape))
        self.candidate_kernel = nnx.Param(
            orthogonal_blocks(rngs.params(), (hidden_dim, hidden_dim))
        )

    def __call__(self, state: Float[Array, " n"], drive: Float[Array, " Gn"]) -> Float[Array, " n"]:
        gate_drive, candidate_drive = jnp.split(drive, [2 * self.hidden_dim])
        z, r = jnp.split(nnx.sigmoid(gate_drive + state @ self.gate_kernel[...]), 2)
        candidate = jnp.tanh(candidate_drive + (r * state) @ self.candidate_kernel[...])
        return (1 - z) * state + z * candidate


class _Identity(nnx.Module):
    """Replaces the input projection of Flax's cells, which is computed before the recurrence."""

    def __call__(self, drive: Float[Array, "*T Gn"]) -> Float[Array, "*T Gn"]:
        return drive


def _sigmoid(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """A plain function, which can be pickled; the jitted one of Flax's cells cannot."""
    return jax.nn.sigmoid(x)


def _tanh(x: Float[Array, "..."]) -> Float[Array, "..."]:
    return jnp.tanh(x)


class GRU(nnx.Module):
    """Flax's `nnx.GRUCell` without its input projection: reset after the recurrent product.

    Cho et al. (2014) in the form of cuDNN, PyTorch and Keras, https://arxiv.org/abs/1406.1078. Its
    update gate is 1 − z of the paper. Unlike Flax's it has the recurrent bias b, PyTorch's
    `bias_hh`, so it can hold PyTorch's weights. The bias of r and z could be part of the drive; the
    bias of ñ is multiplied by the reset gate.

      hidden = state @ U + b
      r, z   = σ(drive[:2n] + hidden[:2n])
      ñ      = tanh(drive[2n:] + r ∘ hidden[2n:])
      out    = (1 − z) ∘ ñ + z ∘ state

    Args:
      hidden_dim: width n of the state.
      rngs: random keys of the initial recurrent kernel, three orthogonal blocks.

    Returns:
      A cell: `cell(state, drive)`, with drive = W x + b of the gates r, z, ñ.

    Example:
      >>> from attn_jax.models import GRU
      >>> closed = jnp.array([0.0, 100.0, 5.0])           # z = 1: the state stays
      >>> float(GRU(1, rngs=nnx.Rngs(0))(jnp.array([0.25]), closed)[0])
      0.25
    """

    num_gates = 3

    def __init__(self, hidden_dim: int, *, rngs: nnx.Rngs) -> None:
        self.hidden_dim = self.state_dim = hidden_dim
        init = orthogonal_blocks
        cell: Any = nnx.GRUCell(1, hidden_dim, recurrent_kernel_init=init, rngs=rngs)
        cell.dense_i = _Identity()
        cell.dense_h = nnx.Linear(hidden_dim, 3 * hidden_dim, kernel_init=init, rngs=rngs)
        cell.gate_fn, cell.activation_fn = _sigmoid, _tanh
        self.cell = cell

    def __call__(self, state: Float[Array, " n"], drive: Float[Array, " Gn"]) -> Float[Array, " n"]:
        return self.cell(state, drive)[0]


class LSTM(nnx.Module):
    """Flax's `nnx.OptimizedLSTMCell` without its input projection; the state is [h ; c].

    Hochreiter & Schmidhuber, "Long Short-Term Memory" (1997), with a forget gate; `nnx.LSTMCell`
    has the formula.

    Args:
      hidden_dim: width n of the output h and of the memory c.
      rngs: random keys of the initial recurrent kernel, four orthogonal blocks.

    Returns:
      A cell: `cell(state, drive)`, with drive = W x + b of the gates i, f, g, o.

    Example:
      >>> from attn_jax.models import LSTM
      >>> keep = jnp.array([-100.0, 100.0, 5.0, 100.0])   # i = 0, f = 1, o = 1
      >>> h, c = LSTM(1, rngs=nnx.Rngs(0))(jnp.array([0.0, 0.25]), keep)
      >>> (float(c), bool(h == jnp.tanh(0.25)))
      (0.25, True)
    """

    num_gates = 4

    def __init__(self, hidden_dim: int, *, rngs: nnx.Rngs) -> None:
        self.hidden_dim, self.state_dim = hidden_dim, 2 * hidden_dim
        init = orthogonal_blocks
        cell: Any = nnx.OptimizedLSTMCell(1, hidden_dim, recurrent_kernel_init=init, rngs=rngs)
        cell.dense_i = _Identity()
        cell.gate_fn, cell.activation_fn = _sigmoid, _tanh
        self.cell = cell

    def __call__(self, state: Float[Array, " C"], drive: Float[Array, " Gn"]) -> Float[Array, " C"]:
        h, c = jnp.split(state, 2)
        (c, h), _ = self.cell((c, h), drive)
        return jnp.concatenate([h, c])


CELLS = {"gated": GatedUnit, "gru": GRU, "lstm": LSTM}
