"""The forward pass: output and log-sum-exp of each query, by online softmax over a row of tiles.

Milakov & Gimelshein (2018), https://arxiv.org/abs/1805.02867; Dao et al., "FlashAttention" (2022),
algorithm 1, https://arxiv.org/abs/2205.14135.
"""

import functools
from typing import Any

import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, DTypeLike, Float

from attn_jax._engine.kernels.mosaic_tpu import tile
from attn_jax._engine.kernels.mosaic_tpu.arrays import Prepared
from attn_jax._engine.kernels.mosaic_tpu.launch import Launch, Output, Step, launch
from attn_jax._engine.kernels.mosaic_tpu.tile import LOG2_E, Inputs, Program
from attn_jax._engine.kernels.mosaic_tpu.visits import FIRST, FULL, LAST, PARTIAL, visits


def forward(
    prepared: Prepared, how: Launch, dtype: DTypeLike
) -> tuple[Float[Array, "*L T V"], Float[Array, "*L 1 T"]]:
    """Output and log-sum-exp of all heads, with padded queries."""
    program, inputs = prepared.program, prepared.inputs
    (T, _), (t, _) = program.padded_sizes, program.tile
    V = inputs.value.values.shape[-1]
    alone = (False,) * len(how.sizes)
    outputs = Output("query rows", (T, V), dtype), Output("query", (1, T), jnp.float32)
    scratch = [pltpu.VMEM(shape, jnp.float32) for shape in ((1, t), (1, t), (V, t))]
    rows = visits(prepared.kinds, "row", how.sizes, alone)
    kernel = functools.partial(_forward, program, inputs)
    return launch("forward", kernel, how, alone, rows, inputs, outputs, scratch)


def _forward(program: Program, given: Inputs, step: Step, refs: Inputs, outputs: Any, sums: Any):
    visit, (out, logsumexp), (maximum, total, weighted) = step.visit, outputs, sums

    @pl.when(visit.has(FIRST))
    def _():
        maximum[...] = jnp.full_like(maximum, -jnp.inf)
        total[...] = jnp.zeros_like(total)
        weighted[...] = jnp.zeros_like(weighted)

    def add(*, is_partial: bool) -> None:
        inputs = tile.loaded(program, given, refs, visit)
        here = tile.look(program, inputs, visit, is_partial=is_partial)
        logit = tile.logits(program, tile.scores(program, here), here)
        old = maximum[...]
        new = jnp.maximum(old, jnp.max(logit, axis=0, keepdims=True))
        shift = jnp.where(new == -jnp.inf, 0.0, new)
        weights = jnp.exp2(logit - shift)
        fade = jnp.exp2(old - shift)
        maximum[...] = new
        total[...] = fade * total[...] + jnp.sum(weights, axis=0, keepdims=True)
        value = tile.kept(inputs.value, here, 1)
        kept = tile.after_dropout(program, weights, tile.not_dropped(program, here))
        own = tile.product(program, value, kept, 0, 0)
        weighted[...] = fade * weighted[...] + own

    pl.when(visit.has(FULL))(functools.partial(add, is_partial=False))
    pl.when(visit.has(PARTIAL))(functools.partial(add, is_partial=True))

    @pl.when(visit.has(LAST))
    def _():
        nothing = total[...] == 0
        safe = jnp.where(nothing, 1.0, total[...])
        out[...] = jnp.transpose(weighted[...] / safe).astype(out.dtype)
        # −inf + log2(1) where all keys are masked
        logsumexp[...] = (maximum[...] + jnp.log2(safe)) * (1 / LOG2_E)
