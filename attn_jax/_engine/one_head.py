"""Attention of one head: its arguments are checked, then a kernel computes the call."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Key

from attn_jax._base import checks, numerics
from attn_jax._base.log import compiles
from attn_jax._base.sharding import axes_of, on_automatic_axes
from attn_jax._base.tables import is_table
from attn_jax._engine import dispatch
from attn_jax._engine.attention import attention
from attn_jax._engine.call import Call, prepare
from attn_jax._engine.dispatch import Implementation
from attn_jax._engine.kernels import reference


def checked_call(
    query: Float[Array, "T H"],
    key: Float[Array, "S E"],
    value: Float[Array, "S V"],
    *,
    sink: Float[Array, ""] | float | None = None,
    dropout_rate: float = 0.0,
    dropout_rng: Key[Array, ""] | None = None,
    implementation: Implementation | None = None,
    **options: Any,
) -> tuple[Call, Float[Array, ""] | None]:
    """The arguments of `attend`, checked, as a call and a sink."""
    checks.check_one_head(query=(query, "T H"), key=(key, "S E"), value=(value, "S V"))
    checks.check_floating(query=query, key=key, value=value)
    dispatch.check_name(implementation)
    checks.check_dropout(dropout_rate, dropout_rng)
    dropout = (dropout_rng, dropout_rate) if dropout_rate else None
    call = prepare(query, key, value, dropout=dropout, **options)
    if sink is not None:
        if jnp.ndim(sink) != 0:
            raise ValueError(f"sink must be one number; got shape {list(jnp.shape(sink))}")
        sink = jnp.asarray(sink, call.operands.scale.dtype)
    return call, sink


def compute(
    call: Call, sink: Float[Array, ""] | None, *, implementation: Implementation | None
) -> tuple[Float[Array, "T V"], Float[Array, " T"]]:
    """Output and log-sum-exp of a call, with the sink in the denominator."""
    if dispatch.choice(call, implementation) == "reference":
        out, logsumexp = reference.attend(call)
    else:
        out, logsumexp = (table.values for table in attention(call, implementation))
        out = out.astype(call.operands.query.values.dtype)
    if sink is None:
        return out, logsumexp
    parts = jnp.stack([logsumexp, jnp.broadcast_to(sink, logsumexp.shape)], axis=-1)
    shares, with_sink = numerics.masked_softmax(parts, None)
    return (shares[:, :1] * out.astype(shares.dtype)).astype(out.dtype), with_sink


def _specs(call: Call, _: Any) -> tuple[PartitionSpec, PartitionSpec]:
    query, value = call.operands.query.values, call.operands.value.values
    return axes_of((query, 0), (value, 1)), axes_of((query, 0))


@functools.partial(jax.jit, static_argnames="implementation")
@on_automatic_axes(_specs)
def compute_jitted(
    call: Call, sink: Float[Array, ""] | None, *, implementation: Implementation | None
) -> tuple[Float[Array, "T V"], Float[Array, " T"]]:
    """`compute`, compiled once for all calls of the same types and functions."""
    parts = (vars(call.operands) | vars(call.pairs)).items()
    arrays = {name: part.values if is_table(part) else part for name, part in parts}
    compiles("attention of one head", **arrays, sink=sink, implementation=implementation)
    return compute(call, sink, implementation=implementation)


@functools.partial(jax.jit, static_argnames="implementation")
def output_jitted(
    call: Call, sink: Float[Array, ""] | None, *, implementation: Implementation | None
) -> Float[Array, "T V"]:
    """The output alone, so that a kernel need not compute log-sum-exp."""
    return compute_jitted(call, sink, implementation=implementation)[0]
