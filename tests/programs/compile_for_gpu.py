"""Compiles attention's gradient for two H100 with the real compiler, on a machine without a GPU.

Run by `make test-gpu-compile`, with NVIDIA's compiler on its path and no GPU. Prints a line a case;
an assertion that fails is a case that went wrong.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
from jax._src.cudnn import fused_attention_stablehlo
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import attn_jax
from attn_jax._engine.kernels import cudnn

# XLA's GpuTargetConfigProto, with the numbers of NVIDIA's data sheet and CUDA's tables for 9.0.
H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84942979072
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 1 patch: 1 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
KERNEL = re.compile(r'custom_call_target="__cudnn\$(\w+)"')
COLLECTIVE = re.compile(
    r"\b(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
)
B, N, K, H = 2, 8, 2, 128
BY = {"batch": PartitionSpec("gpus"), "heads": PartitionSpec(None, None, "gpus")}


def pretend() -> None:
    """Replaces the queries of jax and the library to the missing device."""
    cudnn._capability = lambda platform: 9
    fused_attention_stablehlo.check_compute_capability = lambda _: True
    fused_attention_stablehlo.is_cuda_compute_capability_equal = lambda version: version == "9.0"


def compiled(implementation: str, T: int, mesh: Mesh, spec: PartitionSpec):
    """Output and gradients of causal attention with grouped heads, split over the GPUs."""
    sharding = NamedSharding(mesh, spec)

    def both(query, key, value, cotangent):
        def attention(*arrays):
            return attn_jax.dot_product_attention(
                *arrays, is_causal=True, implementation=implementation
            )

        out, pull = jax.vjp(attention, query, key, value)
        return out, pull(cotangent)

    wide, narrow = (
        jax.ShapeDtypeStruct((B, T, heads, H), jnp.bfloat16, sharding=sharding) for heads in (N, K)
    )
    return jax.jit(both).lower(wide, narrow, narrow, wide).compile()


def report(implementation: str, T: int, mesh: Mesh, split: str) -> int:
    """Prints and checks one case; returns the temporary bytes on each GPU."""
    program = compiled(implementation, T, mesh, BY[split])
    text = program.as_text()
    kernels = sorted(KERNEL.findall(text))
    temporary = program.memory_analysis().temp_size_in_bytes
    print(
        f"{implementation:10} T={T:<6} split by {split:6} {temporary / 2**20:8.1f} MiB a GPU  "
        f"kernels: {', '.join(kernels) or 'none'}",
        flush=True,
    )
    assert COLLECTIVE.findall(text) == [], "something moves between the GPUs"
    wanted = ["fmhaSoftmax", "fmhaSoftmaxBackward"] if implementation == "cudnn" else []
    assert kernels == wanted, f"{implementation} calls {kernels}"
    assert implementation != "cudnn" or " while(" not in text, "a log-sum-exp that nothing uses"
    assert (f"{T},{T}]" in text) == (implementation == "reference"), "T×T numbers"
    return temporary


def main() -> None:
    topology = topologies.get_topology_desc(
        platform="cuda", topology_name="", target_config=H100, topology="1x1x2"
    )
    mesh = Mesh(np.array(topology.devices), ("gpus",))
    pretend()
    print(f"{topology.devices[0].device_kind}, jax {jax.__version__}, B={B} N={N} K={K} H={H}")
    for implementation in ("blockwise", "cudnn"):
        for split in BY:
            short, long = (report(implementation, T, mesh, split) for T in (8192, 32768))
            assert long < 4.4 * short, "memory grows faster than T"
    report("reference", 2048, mesh, "batch")


if __name__ == "__main__":
    main()
