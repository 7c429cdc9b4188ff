"""The tensors of each family's files, and how they map to parameters."""

import math
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Array

from attn_jax.models.decoder_config import DecoderConfig

type Form = Literal["same", "transposed", "minus one"]


class Tensor(NamedTuple):
    """A tensor of a file and the parameters it holds, concatenated along the last axis.

    Attributes:
      name: of the tensor in the file.
      paths: of the parameters in the model's state.
      form: "transposed" for PyTorch's linear layers, whose output axis comes first; "minus one" for
        Gemma's norms, where a tensor w holds the scale 1 + w.
    """

    name: str
    paths: tuple[str, ...]
    form: Form = "same"


def _gpt2_block(layer: int) -> list[Tensor]:
    """The tensors of one block of GPT-2."""
    prefix, block = f"transformer.h.{layer}", f"blocks.{layer}"
    heads = ("query", "key", "value")
    plain = {
        "ln_1.weight": "attention_residual.norm.scale",
        "ln_1.bias": "attention_residual.norm.bias",
        "attn.c_proj.weight": "attention.w_out",
        "attn.c_proj.bias": "attention.b_out",
        "ln_2.weight": "feed_forward_residual.norm.scale",
        "ln_2.bias": "feed_forward_residual.norm.bias",
        "mlp.c_fc.weight": "feed_forward.w_up",
        "mlp.c_fc.bias": "feed_forward.b_up",
        "mlp.c_proj.weight": "feed_forward.w_down",
        "mlp.c_proj.bias": "feed_forward.b_down",
    }
    fused = {"weight": "w", "bias": "b"}
    return [
        *(Tensor(f"{prefix}.{name}", (f"{block}.{path}",)) for name, path in plain.items()),
        *(
            Tensor(
                f"{prefix}.attn.c_attn.{name}",
                tuple(f"{block}.attention.{letter}_{head}" for head in heads),
            )
            for name, letter in fused.items()
        ),
    ]


def _llama_block(layer: int, config: DecoderConfig, norm: Form) -> list[Tensor]:
    """The tensors of one block of the other families; `norm` is the form of its norms."""
    prefix, block = f"model.layers.{layer}", f"blocks.{layer}"
    linear = {
        "self_attn.q_proj": "attention.w_query",
        "self_attn.k_proj": "attention.w_key",
        "self_attn.v_proj": "attention.w_value",
        "self_attn.o_proj": "attention.w_out",
        "mlp.gate_proj": "feed_forward.w_gate",
        "mlp.up_proj": "feed_forward.w_up",
        "mlp.down_proj": "feed_forward.w_down",
    }
    norms = {"input_layernorm": "attention_residual.norm"}
    if config.placement == "both":
        norms |= {
            "post_attention_layernorm": "attention_residual.norm_after",
            "pre_feedforward_layernorm": "feed_forward_residual.norm",
            "post_feedforward_layernorm": "feed_forward_residual.norm_after",
        }
    else:
        norms |= {"post_attention_layernorm": "feed_forward_residual.norm"}
    if config.qk_norm:
        norms |= {
            "self_attn.q_norm": "attention.query_norm",
            "self_attn.k_norm": "attention.key_norm",
        }
    return [
        *(
            Tensor(f"{prefix}.{a}.weight", (f"{block}.{b}",), "transposed")
            for a, b in linear.items()
        ),
        *(Tensor(f"{prefix}.{a}.weight", (f"{block}.{b}.scale",), norm) for a, b in norms.items()),
    ]


def tensors(family: str, config: DecoderConfig) -> list[Tensor]:
    """The tensors that a checkpoint of this family and configuration has."""
    layers = range(config.num_layers)
    if family == "gpt2":
        named = [
            Tensor("transformer.wte.weight", ("embedding.table",)),
            Tensor("transformer.wpe.weight", ("position.table",)),
            Tensor("transformer.ln_f.weight", ("norm.scale",)),
            Tensor("transformer.ln_f.bias", ("norm.bias",)),
            *(tensor for layer in layers for tensor in _gpt2_block(layer)),
        ]
    else:
        norm: Form = "minus one" if family == "gemma2" else "same"
        named = [
            Tensor("model.embed_tokens.weight", ("embedding.table",)),
            Tensor("model.norm.weight", ("norm.scale",), norm),
            *(tensor for layer in layers for tensor in _llama_block(layer, config, norm)),
        ]
    return named if config.is_tied else [*named, Tensor("lm_head.weight", ("output.table",))]


def flat_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a parameter as a matrix or vector, with the axes of heads merged."""
    if len(shape) == 1 or path.endswith(".table"):
        return shape
    if path.rsplit(".", 1)[-1].startswith("b_"):
        return (math.prod(shape),)
    inputs = 2 if path.endswith(".w_out") else 1
    return math.prod(shape[:inputs]), math.prod(shape[inputs:])


def shape_in_file(tensor: Tensor, shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    """The shape of a tensor in a file, given the shapes of the parameters."""
    parts = [flat_shape(path, shapes[path]) for path in tensor.paths]
    shape = (*parts[0][:-1], sum(part[-1] for part in parts))
    return shape[::-1] if tensor.form == "transposed" else shape


def from_file(
    array: np.ndarray, tensor: Tensor, shapes: dict[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """The parameters in a tensor of a file."""
    array = array.T if tensor.form == "transposed" else array
    if tensor.form == "minus one":
        array = array.astype(np.float32) + np.float32(1)
    ends = np.cumsum([flat_shape(path, shapes[path])[-1] for path in tensor.paths])
    parts = np.split(array, ends[:-1], axis=-1)
    return {
        path: part.reshape(shapes[path]) for path, part in zip(tensor.paths, parts, strict=True)
    }


def to_file(parameters: dict[str, Array], tensor: Tensor, dtype: np.dtype) -> np.ndarray:
    """The tensor of a file that holds the parameters: the inverse of `from_file`.

    Norms, float32 in the model, are cast to `dtype` if that is exact.
    """
    parts = [np.asarray(parameters[path]) for path in tensor.paths]
    parts = [
        part.reshape(flat_shape(path, part.shape))
        for path, part in zip(tensor.paths, parts, strict=True)
    ]
    array = np.concatenate(parts, axis=-1)
    if tensor.form == "minus one":
        array = array - np.float32(1)
    if all(path.endswith((".scale", ".bias")) for path in tensor.paths):
        with np.errstate(over="ignore"):
            narrow = array.astype(dtype)
        array = narrow if np.array_equal(narrow.astype(array.dtype), array) else array
    return np.ascontiguousarray(array.T if tensor.form == "transposed" else array)
