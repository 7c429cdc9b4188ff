"""The recurrent encoder: one recurrence for each direction, on one shared embedding."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from attn_jax.models.cells import CELLS, Cell
from attn_jax.models.encoder_decoder_config import EncoderDecoderConfig
from attn_jax.models.initializers import initializers
from attn_jax.modules.dropout import dropout


class Encoder(nnx.Module):
    r"""Computes one annotation for each source token: the states of each direction, concatenated.

    Bahdanau et al., "Neural Machine Translation by Jointly Learning to Align and Translate" (2014),
    §3.2 and appendix A.2.1, https://arxiv.org/abs/1409.0473.

      →h_j = cell(→h_{j-1}, W E x_j)    ←h_j = cell(←h_{j+1}, W' E x_j)    h_j = [→h_j ; ←h_j]

    Args:
      config: sizes and the cell; `config.directions` is the order of the annotation's parts.
      rngs: random keys of the initial parameters.

    Returns:
      A module: `encoder(source, mask)` gives the annotations and the summary, which is the last
      state of the last direction. Where the mask is False the state does not change, so padding may
      be anywhere.

    Cost:
      For each direction one matmul for all gates' inputs, then S steps of O(n²).

    Example:
      >>> from attn_jax.models import Encoder, EncoderDecoderConfig
      >>> encoder = Encoder(EncoderDecoderConfig(9, 7, 3, 2, 5, 4), rngs=nnx.Rngs(0))
      >>> source, mask = jnp.array([4, 0, 5]), jnp.array([True, False, True])
      >>> annotations, summary = encoder(source, mask)
      >>> [bool(same) for same in (annotations[0, 2:] == summary)]   # ←h_1 is the last state
      [True, True]
      >>> jnp.array_equal(annotations[::2], encoder(source[::2], mask[::2])[0]).item()
      True
    """

    def __init__(self, config: EncoderDecoderConfig, *, rngs: nnx.Rngs) -> None:
        inits, n = initializers(config), config.hidden_dim
        self.directions, self.dropout_rate = config.directions, config.dropout_rate
        shape = (config.source_vocab, config.embed_dim)
        self.embedding = nnx.Param(inits.embedding(rngs.params(), shape))
        self.cells = nnx.List(CELLS[config.cell](n, rngs=rngs) for _ in self.directions)
        self.inputs = nnx.List(
            nnx.Linear(config.embed_dim, cell.num_gates * n, kernel_init=inits.kernel, rngs=rngs)
            for cell in self.cells
        )

    def __call__(
        self,
        source: Int[Array, " S"],
        mask: Bool[Array, " S"],
        *,
        rng: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "S E"], Float[Array, " C"]]:
        embedded = jnp.take(self.embedding[...], source, axis=0)
        embedded = dropout(embedded, self.dropout_rate, rng)
        parts = [
            recur(cell, project(embedded), mask, reverse=direction == "backward")
            for direction, cell, project in zip(
                self.directions, self.cells, self.inputs, strict=True
            )
        ]
        _, summary = parts[-1]
        return jnp.concatenate([outputs for outputs, _ in parts], axis=1), summary


def recur(
    cell: Cell, drive: Float[Array, "S Gn"], mask: Bool[Array, " S"], *, reverse: bool = False
) -> tuple[Float[Array, "S n"], Float[Array, " C"]]:
    """All outputs of a cell that starts at zeros, and its last state.

    Where the mask is False the state does not change.
    """

    def step(state, inputs):
        drive_j, is_token = inputs
        state = jnp.where(is_token, cell(state, drive_j), state)
        return state, state[: cell.hidden_dim]

    initial = jnp.zeros(cell.state_dim, drive.dtype)
    last, outputs = jax.lax.scan(step, initial, (drive, mask), reverse=reverse)
    return outputs, last
