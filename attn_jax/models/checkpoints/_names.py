"""What each family calls a parameter, and how its file lays it out."""

import math
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Array

from attn_jax.models.decoder_config import DecoderConfig

type Form = Literal["as it is", "turned", "less one"]


class Tensor(NamedTuple):
    """A tensor of the file and the parameters that stand in it side by side.

    "turned" is PyTorch's linear layer, output before input; "less one" is Gemma's norm, whose
    weight w means 1 + w.
    """

    name: str
    paths: tuple[str, ...]
    form: Form = "as it is"


def _gpt2(layer: int) -> list[Tensor]:
    here, ours = f"transformer.h.{layer}", f"blocks.{layer}"
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
        *(Tensor(f"{here}.{name}", (f"{ours}.{path}",)) for name, path in plain.items()),
        *(
            Tensor(
                f"{here}.attn.c_attn.{name}",
                tuple(f"{ours}.attention.{letter}_{head}" for head in heads),
            )
            for name, letter in fused.items()
        ),
    ]


def _llama(layer: int, config: DecoderConfig, norm: Form) -> list[Tensor]:
    here, ours = f"model.layers.{layer}", f"blocks.{layer}"
    turned = {
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
        *(Tensor(f"{here}.{a}.weight", (f"{ours}.{b}",), "turned") for a, b in turned.items()),
        *(Tensor(f"{here}.{a}.weight", (f"{ours}.{b}.scale",), norm) for a, b in norms.items()),
    ]


def tensors(family: str, config: DecoderConfig) -> list[Tensor]:
    """Every tensor of a checkpoint."""
    layers = range(config.num_layers)
    if family == "gpt2":
        named = [
            Tensor("transformer.wte.weight", ("embedding.table",)),
            Tensor("transformer.wpe.weight", ("position.table",)),
            Tensor("transformer.ln_f.weight", ("norm.scale",)),
            Tensor("transformer.ln_f.bias", ("norm.bias",)),
            *(tensor for layer in layers for tensor in _gpt2(layer)),
        ]
    else:
        norm: Form = "less one" if family == "gemma2" else "as it is"
        named = [
            Tensor("model.embed_tokens.weight", ("embedding.table",)),
            Tensor("model.norm.weight", ("norm.scale",), norm),
            *(tensor for layer in layers for tensor in _llama(layer, config, norm)),
        ]
    return named if config.is_tied else [*named, Tensor("lm_head.weight", ("output.table",))]


def flat(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a parameter as a file has it, before it is turned: matrices and vectors."""
    if len(shape) == 1 or path.endswith(".table"):
        return shape
    if path.rsplit(".", 1)[-1].startswith("b_"):
        return (math.prod(shape),)
    inputs = 2 if path.endswith(".w_out") else 1
    return math.prod(shape[:inputs]), math.prod(shape[inputs:])


def shape_in_file(tensor: Tensor, shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    """What shape a tensor must have, given those of the parameters."""
    parts = [flat(path, shapes[path]) for path in tensor.paths]
    shape = (*parts[0][:-1], sum(part[-1] for part in parts))
    return shape[::-1] if tensor.form == "turned" else shape


def from_file(
    array: np.ndarray, tensor: Tensor, shapes: dict[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """The parameters in a tensor."""
    array = array.T if tensor.form == "turned" else array
    if tensor.form == "less one":
        array = array.astype(np.float32) + np.float32(1)
    ends = np.cumsum([flat(path, shapes[path])[-1] for path in tensor.paths])
    parts = np.split(array, ends[:-1], axis=-1)
    return {
        path: part.reshape(shapes[path]) for path, part in zip(tensor.paths, parts, strict=True)
    }


def to_file(parameters: dict[str, Array], tensor: Tensor, dtype: np.dtype) -> np.ndarray:
    """The tensor that holds parameters; norms in this dtype if that costs no bit, else as they are.

    Norms are wide here and narrow in most files.
    """
    parts = [np.asarray(parameters[path]) for path in tensor.paths]
    parts = [
        part.reshape(flat(path, part.shape)) for path, part in zip(tensor.paths, parts, strict=True)
    ]
    array = np.concatenate(parts, axis=-1)
    if tensor.form == "less one":
        array = array - np.float32(1)
    if all(path.endswith((".scale", ".bias")) for path in tensor.paths):
        with np.errstate(over="ignore"):
            narrow = array.astype(dtype)
        array = narrow if np.array_equal(narrow.astype(array.dtype), array) else array
    return np.ascontiguousarray(array.T if tensor.form == "turned" else array)
