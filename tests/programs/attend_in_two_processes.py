"""One of two processes that call attention on sharded arrays; process 0 compares with one device.

Run by test_two_processes.py; the arguments are the process number and the port of the coordinator.
"""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import attn_jax
from attn_jax import masks

B, T, N, K, H, V = 4, 24, 6, 2, 8, 5
DOCUMENTS = np.random.default_rng(0).integers(0, 2, (B, 1, T)).cumsum(-1)


def output_and_gradients(query, key, value, cotangent):
    mask = masks.segments(jnp.asarray(DOCUMENTS, jnp.int32)) & masks.causal()
    attention = functools.partial(
        attn_jax.dot_product_attention, mask=mask, implementation="blockwise"
    )
    out, transpose = jax.vjp(attention, query, key, value)
    return out, *transpose(cotangent)


def attend_without_jit(query, key, value, lengths):
    """An eager call checks its scale and lengths; no process here holds all of the lengths."""
    return attn_jax.dot_product_attention(
        query, key, value, scale=jnp.float32(0.3), key_value_seq_lengths=lengths
    )


def assert_as_on_one_device(got, arrays) -> None:
    for one, other in zip(got, jax.jit(output_and_gradients)(*arrays), strict=True):
        assert np.max(np.abs(one - other)) <= 1e-6 * np.max(np.abs(other))


def compare_arrays_that_span_processes(placed, arrays, by_example) -> None:
    lengths = np.arange(B, dtype=np.int32) + T - B
    spanning = jax.make_array_from_callback((B,), by_example, lambda part: lengths[part])
    assert not spanning.is_fully_addressable
    got = multihost_utils.process_allgather(attend_without_jit(*placed[:3], spanning), tiled=True)
    expected = attend_without_jit(*arrays[:3], jnp.asarray(lengths))
    assert np.max(np.abs(got - expected)) <= 1e-6 * np.max(np.abs(expected))


def main(process: int, port: str) -> None:
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=process)
    assert (len(jax.local_devices()), len(jax.devices())) == (2, 4)
    rng = np.random.default_rng(1)
    shapes = (B, T, N, H), (B, T, K, H), (B, T, K, V), (B, T, N, V)
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((2, 2), ("data", "heads"), axis_types=(kind, kind))
        sharding = NamedSharding(mesh, PartitionSpec("data", None, "heads"))
        placed = [
            jax.make_array_from_callback(a.shape, sharding, lambda part, a=a: a[part])
            for a in arrays
        ]
        got = jax.jit(output_and_gradients)(*placed)
        assert all(array.sharding.is_equivalent_to(sharding, 4) for array in got)
        got = multihost_utils.process_allgather(got, tiled=True)
        if process == 0:
            assert_as_on_one_device(got, arrays)
        compare_arrays_that_span_processes(
            placed, arrays, NamedSharding(mesh, PartitionSpec("data"))
        )
    print("agree")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
