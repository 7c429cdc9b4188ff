"""One head's read: arguments of `attend`, checked, and computed by the backend that takes them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Key

from attn_jax._base import checks, numerics
from attn_jax._base.log import compiles
from attn_jax._base.sharding import axes_of, on_automatic_axes
from attn_jax._engine import dispatch
from attn_jax._engine.call import Call, prepare
from attn_jax._engine.dispatch import Implementation


def checked(
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
    """The arguments of `attend` as a call, checked, and the sink beside it."""
    checks.check_one_head(query=(query, "T H"), key=(key, "S E"), value=(value, "S V"))
    checks.check_floating(query=query, key=key, value=value)
    dispatch.check_name(implementation)
    checks.check_dropout(dropout_rate, dropout_rng)
    dropout = (dropout_rng, dropout_rate) if dropout_rate else None
    call = prepare(query, key, value, dropout=dropout, **options)
    if sink is not None:
        if jnp.ndim(sink) != 0:
            raise ValueError(f"sink must be one number; got shape {list(jnp.shape(sink))}")
        sink = jnp.asarray(sink, call.scale.dtype)
    return call, sink


def _specs(call: Call, _: Any) -> tuple[PartitionSpec, PartitionSpec]:
    return axes_of((call.query, 0), (call.value, 1)), axes_of((call.query, 0))


@functools.partial(jax.jit, static_argnames="implementation")
@on_automatic_axes(_specs)
def read(
    call: Call, sink: Float[Array, ""] | None, *, implementation: Implementation | None
) -> tuple[Float[Array, "T V"], Float[Array, " T"]]:
    """The call by the backend that takes it, and the sink's share after that."""
    compiles("a read of one head", **vars(call), sink=sink, implementation=implementation)
    out, logsumexp = dispatch.backend(call, implementation).attend(call)
    if sink is None:
        return out, logsumexp
    parts = jnp.stack([logsumexp, jnp.broadcast_to(sink, logsumexp.shape)], axis=-1)
    shares, with_sink = numerics.masked_softmax(parts, None)
    return (shares[:, :1] * out.astype(shares.dtype)).astype(out.dtype), with_sink


@functools.partial(jax.jit, static_argnames="implementation")
def read_out(
    call: Call, sink: Float[Array, ""] | None, *, implementation: Implementation | None
) -> Float[Array, "T V"]:
    """`read` without log-sum-exp, which a backend may then leave out."""
    return read(call, sink, implementation=implementation)[0]
