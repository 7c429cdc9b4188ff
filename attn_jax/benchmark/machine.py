"""Facts about the machine: its versions and processor, its matmul rate and memory bandwidth."""

import datetime
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from attn_jax.benchmark.contender import Unsupported

MATMUL = "matmul"
_PACKAGES = ("jax", "jaxlib", "flax", "torch", "numpy")
_USABLE_SHARE = 0.8  # of the free memory, for one call


def on_accelerator() -> bool:
    """Whether JAX's default device is not a CPU."""
    return jax.default_backend() != "cpu"


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def matmul(dtype: str, size: int | None = None) -> tuple[Callable[[int], object], int]:
    """A runner of XLA's matmul of two square matrices, and its number of operations."""
    size = (8192 if on_accelerator() else 1024) if size is None else size
    rngs = jax.random.split(jax.random.key(0), 4)
    operands = [jax.random.normal(rng, (size, size), jnp.dtype(dtype)) for rng in rngs]
    product = jax.jit(jnp.matmul)

    def run(i: int) -> object:
        return product(operands[i % 3], operands[3]).block_until_ready()

    return run, 2 * size**3


def bandwidth(megabytes: int | None = None) -> float:
    """Bytes read and written a second when an array larger than the caches is negated in place."""
    megabytes = (1024 if on_accelerator() else 256) if megabytes is None else megabytes
    negate = jax.jit(jnp.negative, donate_argnums=0)
    numbers = negate(jnp.ones(megabytes * 2**18, jnp.float32)).block_until_ready()
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        numbers = negate(numbers).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * numbers.nbytes / sorted(seconds)[3]


def check_memory(temp_bytes: int | None) -> None:
    """Raises `Unsupported` if a call needs more than 80 % of the free memory."""
    free = free_bytes()
    if temp_bytes is not None and free is not None and temp_bytes > _USABLE_SHARE * free:
        raise Unsupported(
            f"needs {temp_bytes / 1e9:.1f} GB of temporary memory; {free / 1e9:.1f} GB are free"
        )


def free_bytes() -> int | None:
    """Free memory of JAX's default device; None if unknown."""
    if on_accelerator():
        stats = jax.devices()[0].memory_stats() or {}
        limit, used = stats.get("bytes_limit"), stats.get("bytes_in_use", 0)
        return None if limit is None else limit - used
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    return None


def environment() -> dict[str, object]:
    """Date, platform, processor, device and versions: the circumstances of the numbers."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": cores(),
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "versions": {name: _version(name) for name in ("attn-jax", *_PACKAGES)},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """The model name of the CPU: on Linux from /proc/cpuinfo, else from `platform`."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
