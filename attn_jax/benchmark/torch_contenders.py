"""PyTorch's attention, if PyTorch is installed: SDPA, and compiled FlexAttention.

Tensors are contiguous in PyTorch's order [B N T H]. PyTorch gets as many threads as JAX has cores.
"""

import dataclasses
import importlib
import importlib.util
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from attn_jax.benchmark import machine
from attn_jax.benchmark.contender import Prepared, Unsupported
from attn_jax.benchmark.inputs import Inputs, Operands
from attn_jax.benchmark.shapes import Case, Shape

type Tensors = tuple[Any, Any, Any, Any | None]  # query, key, value, bias


def is_installed() -> bool:
    """Whether PyTorch is installed."""
    return importlib.util.find_spec("torch") is not None


@dataclasses.dataclass(frozen=True)
class TorchContender:
    """A PyTorch function to time; `attention(torch, device, case)` makes it."""

    name: str
    attention: Callable[[Any, str, Case], Callable[..., Any]]

    def prepare(self, inputs: Inputs) -> Prepared:
        if not is_installed():
            raise Unsupported("torch is not installed")
        if inputs.case.shape.eager:
            raise Unsupported("is measured as decode-1k: PyTorch has no outer jit to leave out")
        torch = importlib.import_module("torch")
        torch.set_num_threads(machine.cores())
        device, case = _device(torch), inputs.case
        sets = [_tensors(torch, device, case, operands) for operands in inputs.numpy]
        step = _step(torch, self.attention(torch, device, case), case.backward)
        wait = torch.cuda.synchronize if device == "cuda" else lambda: None

        def run(i: int) -> object:
            out = step(*sets[i % len(sets)])
            wait()
            return out

        start = time.perf_counter()
        run(0)
        first = time.perf_counter() - start
        start = time.perf_counter()
        run(0)
        again = time.perf_counter() - start
        return Prepared(run, lambda: _results(step(*sets[0])), max(first - again, 0.0), None)


def _device(torch: Any) -> str:
    if not machine.on_accelerator():
        return "cpu"
    if not torch.cuda.is_available():
        raise Unsupported("torch has no CUDA device, and JAX uses an accelerator")
    return "cuda"


def _tensors(torch: Any, device: str, case: Case, operands: Operands) -> tuple[Tensors, Any]:
    """The operands of a call as tensors, and the cotangent."""
    dtype = getattr(torch, case.dtype)

    def tensor(part: Any) -> Any:
        return torch.from_numpy(part).to(device=device, dtype=dtype)

    def by_head(part: Any) -> Any:
        return tensor(part).transpose(1, 2).contiguous()

    query, key, value, bias, cotangent = operands
    tensors = (*map(by_head, (query, key, value)), None if bias is None else tensor(bias))
    for part in tensors:
        if part is not None:
            part.requires_grad_(case.backward)
    return tensors, by_head(cotangent)


def _step(torch: Any, attention: Callable[..., Any], backward: bool) -> Callable[..., tuple]:
    """The function to time: attention, with `backward` also the gradients of all operands."""

    def forward(tensors: Tensors, cotangent: Any) -> tuple:
        del cotangent
        with torch.no_grad():
            return (attention(*tensors),)

    def both(tensors: Tensors, cotangent: Any) -> tuple:
        out = attention(*tensors)
        leaves = [part for part in tensors if part is not None]
        return (out, *torch.autograd.grad(out, leaves, cotangent))

    return both if backward else forward


def _results(parts: tuple) -> list[np.ndarray]:
    """Output and gradients with the axes of `Operands`; the fifth is the gradient of the bias."""
    arrays = [part.detach().float().cpu().numpy() for part in parts]
    return [array.swapaxes(1, 2) if i < 4 else array for i, array in enumerate(arrays)]


def _sdpa(torch: Any, device: str, case: Case) -> Callable[..., Any]:
    shape = case.shape
    if shape.alibi:
        raise Unsupported("takes ALiBi only as an N·T·S bias")
    mask = _mask(torch, device, shape)

    def attention(query: Any, key: Any, value: Any, bias: Any | None) -> Any:
        biased = bias if bias is None or mask is None else bias.masked_fill(~mask, -torch.inf)
        return torch.nn.functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask if bias is None else biased,
            is_causal=shape.is_causal and mask is None,
            enable_gqa=shape.kv_heads != shape.N,
        )

    return attention


def _mask(torch: Any, device: str, shape: Shape) -> Any | None:
    """The mask beside `is_causal`: a window [T S], or padding [B 1 1 S]."""
    if shape.window is not None:
        rows = torch.arange(shape.T, device=device)
        distance = rows[:, None] - rows[None, :]
        return (distance >= 0) & (distance <= shape.window)
    if shape.padding is None:
        return None
    if shape.is_causal:
        raise Unsupported("takes padding with a causal mask only as a T·S mask")
    lengths = torch.from_numpy(shape.lengths).to(device)
    return (torch.arange(shape.keys, device=device) < lengths[:, None])[:, None, None, :]


def _flex(torch: Any, device: str, case: Case) -> Callable[..., Any]:
    shape = case.shape
    if case.backward and device == "cpu":
        raise Unsupported("FlexAttention has no gradients on a CPU")
    flex = importlib.import_module("torch.nn.attention.flex_attention")
    torch._dynamo.reset()
    compiled = torch.compile(flex.flex_attention, dynamic=False)
    block_mask = None
    if shape.is_causal or shape.padding is not None:
        B = None if shape.padding is None else shape.B
        mask_mod = _mask_mod(shape, torch.from_numpy(shape.lengths).to(device))
        block_mask = flex.create_block_mask(mask_mod, B, None, shape.T, shape.keys, device=device)
    slopes = torch.from_numpy(shape.slopes).to(device) if shape.alibi else None

    def attention(query: Any, key: Any, value: Any, bias: Any | None) -> Any:
        return compiled(
            query,
            key,
            value,
            score_mod=_score_mod(slopes, bias),
            block_mask=block_mask,
            enable_gqa=shape.kv_heads != shape.N,
        )

    return attention


def _mask_mod(shape: Shape, lengths: Any) -> Callable[..., Any]:
    window = shape.T if shape.window is None else shape.window
    if not shape.is_causal:
        return lambda b, h, i, j: j < lengths[b]
    return lambda b, h, i, j: (j <= i) & (i - j <= window) & (j < lengths[b])


def _score_mod(slopes: Any | None, bias: Any | None) -> Callable[..., Any] | None:
    if slopes is not None:
        return lambda logit, b, h, i, j: logit - slopes[h] * (i - j)
    if bias is not None:
        return lambda logit, b, h, i, j: logit + bias[0, h, i, j]
    return None


def peers() -> list[TorchContender]:
    """SDPA and FlexAttention; without PyTorch the report lists them as not installed."""
    return [TorchContender("torch SDPA", _sdpa), TorchContender("torch FlexAttention", _flex)]
