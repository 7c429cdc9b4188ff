"""Compiles what test_tpu_kernel.py asserts of the fused TPU kernel; prints a report in JSON.

It is run in a process of its own, with the TPU compiler on its path and no TPU.
"""

import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
from jax import ShapeDtypeStruct
from jax.sharding import Mesh

import attn_jax
from tests.programs import compile_tpu_kernel as table
from tests.programs.tpu_kernel_options import option_classes

# For each case a chip, an option class, H and a dtype: every chip, width and dtype is there.
CASES = {
    "causal": ("v5e", "causal", 128, "bfloat16"),
    "documents": ("v6e", "documents", 64, "bfloat16"),
    "ALiBi slopes": ("tpu7x", "ALiBi slopes", 256, "bfloat16"),
    "T5 relative bias": ("v6e", "T5 relative bias", 64, "float32"),
    "dropout": ("tpu7x", "dropout", 128, "float32"),
    "positions": ("v5e", "positions", 256, "float32"),
    "mask array": ("v5e", "mask array", 64, "bfloat16"),
    "bias per head": ("v6e", "bias per head", 128, "bfloat16"),
    "shared bias": ("v5e", "shared bias", 128, "bfloat16"),
}
LENGTHS = (2**15, 2**17)


def long_attention(mesh: Mesh, T: int) -> dict[str, Any]:
    """Forward and backward pass of causal attention with one head."""
    attend = functools.partial(
        attn_jax.dot_product_attention, is_causal=True, implementation="mosaic_tpu"
    )

    def gradients(d_out: Any, *arrays: Any) -> Any:
        out, pull = jax.vjp(attend, *arrays)
        return out, pull(d_out)

    array = ShapeDtypeStruct((1, T, 1, 128), jnp.bfloat16)
    return table.compiled(mesh, gradients, (array,) * 4, (T, T))


def case(chip: str, option: str, H: int, dtype: str) -> dict[str, Any]:
    """The gradient of one case of the table."""
    width = jnp.dtype(dtype)
    one = option_classes(table.TOKENS, width)[option]
    return table.compile_case(table.one_chip(chip), one, H, width, "gradient")


def main() -> None:
    v5e = table.one_chip("v5e")
    reports = {
        "cases": {name: case(*of) for name, of in CASES.items()},
        "long": {T: long_attention(v5e, T) for T in LENGTHS},
        "a million tokens": long_attention(v5e, 2**20),
    }
    print(json.dumps(reports))


if __name__ == "__main__":
    main()
