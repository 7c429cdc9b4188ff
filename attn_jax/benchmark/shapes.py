"""Named shapes of attention calls in known models: sizes, mask and bias, and their FLOPs.

FLOPs are counted as in the FlashAttention benchmarks (Dao 2023, section 4.1,
https://arxiv.org/abs/2307.08691): forward is two matmuls of 2·H operations for each unmasked pair,
and the gradients are five more. Masked pairs count nothing.
"""

import dataclasses
from typing import Literal

import numpy as np

FORWARD_MATMULS = 2
BACKWARD_MATMULS = 5


@dataclasses.dataclass(frozen=True)
class Shape:
    """One attention call: its sizes, in the letters of docs/conventions.md, and its options.

    Attributes:
      name: the name on the command line.
      T: queries.
      N: query heads.
      H: width of a head.
      B: batch examples.
      K: key/value heads; as many as query heads by default.
      S: keys; as many as queries by default.
      is_causal: whether attention is causal.
      window: how many positions before its own a query may attend to; needs `is_causal`.
      padding: each batch example has the number of keys in `lengths`, passed as "lengths" or as a
        "mask" [B 1 1 S]; "shared" is one mask [1 1 1 S] of the mean length.
      pair_bias: whether a trained bias [1 N T S] is added.
      alibi: whether ALiBi's bias is added.
      eager: whether the call has no outer `jax.jit`.
    """

    name: str
    T: int
    N: int
    H: int
    B: int = 1
    K: int | None = None
    S: int | None = None
    is_causal: bool = False
    window: int | None = None
    padding: Literal["lengths", "mask", "shared"] | None = None
    pair_bias: bool = False
    alibi: bool = False
    eager: bool = False

    @property
    def kv_heads(self) -> int:
        """Key/value heads."""
        return self.N if self.K is None else self.K

    @property
    def keys(self) -> int:
        """How many keys there are, padding included."""
        return self.T if self.S is None else self.S

    @property
    def lengths(self) -> np.ndarray:
        """How many keys of each batch example are not padding.

        The numbers go from half of the keys to all, in even steps; for "shared" all are the mean.
        """
        if self.padding is None:
            return np.full(self.B, self.keys, np.int32)
        steps = np.linspace(self.keys // 2, self.keys, self.B).astype(np.int32)
        return np.full(self.B, steps.mean(), np.int32) if self.padding == "shared" else steps

    @property
    def key_mask(self) -> np.ndarray | None:
        """True for unmasked keys, [B|1 1 1 S]; None unless padding is passed as a mask."""
        if self.padding not in ("mask", "shared"):
            return None
        lengths = self.lengths[: 1 if self.padding == "shared" else None]
        return (np.arange(self.keys) < lengths[:, None])[:, None, None, :]

    @property
    def pairs(self) -> int:
        """How many (query, key) pairs are unmasked, in one head of all batch examples."""
        reach = np.full(self.T, self.keys)
        if self.is_causal:
            reach = np.arange(1, self.T + 1)
        if self.window is not None:
            reach = np.minimum(reach, self.window + 1)
        return int(np.minimum(reach, self.lengths[:, None]).sum())

    @property
    def slopes(self) -> np.ndarray:
        """ALiBi's slopes, 2^(-8 n / N) for head n from 1 (https://arxiv.org/abs/2108.12409)."""
        return (2.0 ** (-8.0 * np.arange(1, self.N + 1) / self.N)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Case:
    """A shape in one dtype, forward alone or with its gradients."""

    shape: Shape
    dtype: str
    backward: bool

    @property
    def direction(self) -> str:
        """What is timed: the forward pass, or forward and gradients."""
        return "forward+backward" if self.backward else "forward"

    @property
    def flops(self) -> int:
        """Operations of one call; masked pairs count nothing."""
        shape = self.shape
        matmuls = FORWARD_MATMULS + (BACKWARD_MATMULS if self.backward else 0)
        return matmuls * 2 * shape.N * shape.H * shape.pairs

    @property
    def least_bytes(self) -> int:
        """Bytes that must move: every operand is read once and every result written once."""
        shape = self.shape
        rows = 2 * shape.T * shape.N + 2 * shape.keys * shape.kv_heads
        numbers = shape.B * rows * shape.H
        if shape.pair_bias:
            numbers += shape.N * shape.T * shape.keys
        if self.backward:
            numbers *= 2
        return numbers * (4 if self.dtype == "float32" else 2)


def _reference(T: int) -> list[Shape]:
    name = f"reference-{T // 1024}k"
    sizes = {"T": T, "N": 8, "H": 64}
    return [Shape(f"{name}-full", **sizes), Shape(f"{name}-causal", **sizes, is_causal=True)]


def _long(T: int) -> Shape:
    return Shape(f"long-{T // 1024}k", T=T, N=8, H=64, K=2, is_causal=True)


_ALL = [
    # Radford et al. 2019: 12 heads of 64 over 1024 tokens.
    Shape("gpt2", T=1024, N=12, H=64, is_causal=True),
    # Llama 3, https://arxiv.org/abs/2407.21783, table 3: 32 heads of 128, 8 key/value heads.
    Shape("llama-8b", T=4096, N=32, K=8, H=128, is_causal=True),
    # Mistral 7B, https://arxiv.org/abs/2310.06825, table 1: a query attends to 4096 keys.
    Shape("mistral-7b", T=8192, N=32, K=8, H=128, is_causal=True, window=4095),
    # T5 base, https://arxiv.org/abs/1910.10683: 12 heads of 64, a trained bias for each distance.
    Shape("t5-base", T=512, N=12, H=64, pair_bias=True),
    # AlphaFold 2, suppl. algorithm 7: 128 sequences of 256 residues, 8 heads of 32, one pair bias.
    Shape("alphafold-rows", B=128, T=256, N=8, H=32, pair_bias=True),
    # The same with few short sequences and with padding: training on crops.
    Shape("alphafold-192", B=8, T=192, N=4, H=16, pair_bias=True, padding="mask"),
    # Rombach et al. 2022, https://arxiv.org/abs/2112.10752: 32×32 pixels attend to 77 text tokens.
    Shape("cross-77", B=2, T=1024, S=77, N=8, H=80),
    # 64 queries on padded memories; then padding that differs by example, and padding for all.
    Shape("queries-64-lengths", B=4, T=64, S=1024, N=8, H=64, padding="lengths"),
    Shape("queries-64-mask", B=4, T=64, S=1024, N=8, H=64, padding="mask"),
    Shape("padded-1k-lengths", B=4, T=1024, N=8, H=64, padding="lengths"),
    Shape("padded-1k-shared", B=4, T=1024, N=8, H=64, padding="shared"),
    *(shape for T in (1024, 4096, 8192) for shape in _reference(T)),
    Shape("window-8k", T=8192, N=8, H=64, is_causal=True, window=512),
    Shape("alibi-8k", T=8192, N=8, H=64, is_causal=True, alibi=True),
    *map(_long, (8192, 16384, 32768, 65536)),
    Shape("decode-1k", T=1, S=1024, N=8, H=64),
    Shape("decode-1k-eager", T=1, S=1024, N=8, H=64, eager=True),
]

SHAPES = {shape.name: shape for shape in _ALL}
QUICK = ("decode-1k", "reference-1k-causal", "gpt2", "t5-base", "reference-1k-full")
