"""The contenders that JAX compiles: this library, `jax.nn`, flax and a plain einsum."""

import dataclasses
import importlib
import time
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import attn_jax
from attn_jax import score_mods
from attn_jax._attend import Implementation
from attn_jax.benchmark import machine
from attn_jax.benchmark.contender import Prepared, Unsupported
from attn_jax.benchmark.inputs import Inputs
from attn_jax.benchmark.shapes import Shape

type Attention = Callable[..., Array]  # (query, key, value, bias | None) -> output


@dataclasses.dataclass(frozen=True)
class JaxContender:
    """A JAX function to time; `attention` makes it for a shape."""

    name: str
    attention: Callable[[Shape], Attention]

    def prepare(self, inputs: Inputs) -> Prepared:
        case, sets = inputs.case, inputs.jax
        step = _step(self.attention(case.shape), case.backward)
        jitted = jax.jit(step)
        start = time.perf_counter()
        try:
            compiled = jitted.lower(*sets[0]).compile()
        except NotImplementedError as error:
            raise Unsupported(str(error).splitlines()[0]) from error
        compile_seconds = time.perf_counter() - start
        memory = compiled.memory_analysis()
        temp_bytes = None if memory is None else memory.temp_size_in_bytes
        machine.check_memory(temp_bytes)
        call = step if case.shape.eager else jitted

        def run(i: int) -> object:
            return jax.block_until_ready(call(*sets[i % len(sets)]))

        def results() -> list[np.ndarray]:
            return [np.asarray(part.astype(jnp.float32)) for part in call(*sets[0])]

        return Prepared(run, results, compile_seconds, temp_bytes)


def temp_bytes(attention: Attention, shape: Shape, dtype: str, backward: bool) -> int | None:
    """Temporary memory of the compiled call, from shapes alone: the call is not run."""
    query = jax.ShapeDtypeStruct((shape.B, shape.T, shape.N, shape.H), jnp.dtype(dtype))
    key = jax.ShapeDtypeStruct((shape.B, shape.keys, shape.kv_heads, shape.H), jnp.dtype(dtype))
    step = jax.jit(_step(attention, backward))
    memory = step.lower(query, key, key, None, query).compile().memory_analysis()
    return None if memory is None else memory.temp_size_in_bytes


def _step(attention: Attention, backward: bool) -> Callable[..., Sequence[Array]]:
    """The function to time: attention, with `backward` also the gradients of all operands."""

    def forward(query, key, value, bias, cotangent):
        del cotangent
        return (attention(query, key, value, bias),)

    def both(query, key, value, bias, cotangent):
        out, vjp = jax.vjp(attention, query, key, value, bias)
        return (out, *jax.tree.leaves(vjp(cotangent)))

    return both if backward else forward


def _ours(implementation: str | None) -> Callable[[Shape], Attention]:
    def attention(shape: Shape) -> Attention:
        options: dict = {"is_causal": shape.is_causal, "implementation": implementation}
        if shape.window is not None:
            options["local_window_size"] = (shape.window, 0)
        options |= _padding_options(shape)
        if shape.alibi:
            options["score_mod"] = score_mods.alibi(jnp.asarray(shape.slopes)[None])
        return lambda query, key, value, bias: attn_jax.dot_product_attention(
            query, key, value, bias, **options
        )

    return attention


def _jax_nn(implementation: Literal["cudnn"] | None) -> Callable[[Shape], Attention]:
    def attention(shape: Shape) -> Attention:
        _refuse_alibi(shape)
        window = None if shape.window is None else (shape.window, 0)
        return lambda query, key, value, bias: jax.nn.dot_product_attention(
            query,
            key,
            value,
            bias,
            is_causal=shape.is_causal,
            local_window_size=window,
            implementation=implementation,
            mask=_padding_options(shape).get("mask"),
            key_value_seq_lengths=_padding_options(shape).get("key_value_seq_lengths"),
        )

    return attention


def _flax(shape: Shape) -> Attention:
    _refuse_alibi(shape)
    if shape.kv_heads != shape.N:
        raise Unsupported("takes as many key/value heads as query heads")
    if shape.window is not None:
        raise Unsupported("takes a window only as a T·S mask")
    if shape.padding == "lengths":
        raise Unsupported("takes lengths only as a mask")
    attend = importlib.import_module("flax.nnx").dot_product_attention
    return lambda query, key, value, bias: attend(
        query, key, value, bias, is_causal=shape.is_causal, **_padding_options(shape)
    )


def _einsum(shape: Shape) -> Attention:
    """Attention written by hand: two matmuls around a softmax; masked logits are −1e30."""
    _refuse_alibi(shape)

    def attention(query, key, value, bias):
        key, value = (jnp.repeat(part, shape.N // shape.kv_heads, axis=2) for part in (key, value))
        logits = jnp.einsum("btnh,bsnh->bnts", query, key) * shape.H**-0.5
        logits = logits.astype(jnp.float32) + (0 if bias is None else bias)
        if shape.is_causal or shape.padding is not None:
            logits = jnp.where(_mask(shape), logits, -1e30)
        weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
        return jnp.einsum("bnts,bsnh->btnh", weights, value)

    return attention


def _mask(shape: Shape) -> Array:
    """True where a query may attend to a key, [B 1 T|1 S]."""
    rows, keys = jnp.arange(shape.T)[:, None], jnp.arange(shape.keys)[None, :]
    padding = (keys < jnp.asarray(shape.lengths)[:, None])[:, None, None, :]
    if not shape.is_causal:
        return padding
    reach = shape.T if shape.window is None else shape.window
    return padding & ((keys <= rows) & (rows - keys <= reach))[None, None]


def _padding_options(shape: Shape) -> dict[str, Array]:
    """Lengths or a mask, as arguments of `dot_product_attention` here, in `jax.nn` and in flax."""
    if shape.padding is None:
        return {}
    if shape.padding == "lengths":
        return {"key_value_seq_lengths": jnp.asarray(shape.lengths)}
    return {"mask": jnp.asarray(shape.key_mask)}


def _refuse_alibi(shape: Shape) -> None:
    if shape.alibi:
        raise Unsupported("takes ALiBi only as an N·T·S bias")


# A call without `implementation`: the claims are about it.
DEFAULT = JaxContender("attn_jax", _ours(None))


def ours() -> list[JaxContender]:
    """One contender for each implementation of `attend`."""
    names = get_args(Implementation.__value__)
    return [JaxContender(f"attn_jax {name}", _ours(name)) for name in names]


def peers() -> list[JaxContender]:
    """`jax.nn`, on a GPU also with cuDNN's kernel, flax, and plain `einsum`."""
    cudnn = [JaxContender("jax.nn cudnn", _jax_nn("cudnn"))]
    return [
        JaxContender("jax.nn", _jax_nn(None)),
        *(cudnn if jax.default_backend() == "gpu" else []),
        JaxContender("flax.nnx", _flax),
        JaxContender("einsum", _einsum),
    ]
