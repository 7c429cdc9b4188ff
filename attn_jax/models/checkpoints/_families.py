"""The keys of config.json for each architecture, and the default of each missing key."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from attn_jax.models.checkpoints import _windows
from attn_jax.models.checkpoints._values import Config, number
from attn_jax.models.decoder_config import DecoderConfig

TIED = "tie_word_embeddings"
ROTARY = ("rope_parameters", "rope_scaling", "rope_theta")
ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "silu": "silu"}

_GPT2 = {
    "vocab_size": "vocab_size",
    "n_embd": "model_dim",
    "n_layer": "num_layers",
    "n_head": "num_heads",
    "n_positions": "max_length",
    "n_inner": "hidden_dim",
    "layer_norm_epsilon": "norm_eps",
}
_LLAMA = {
    "vocab_size": "vocab_size",
    "hidden_size": "model_dim",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "num_kv_heads",
    "head_dim": "head_dim",
    "intermediate_size": "hidden_dim",
    "max_position_embeddings": "max_length",
    "rms_norm_eps": "norm_eps",
}


class Family(NamedTuple):
    """The config.json of one architecture, and how it maps to a `DecoderConfig`.

    Attributes:
      architecture: the class in `transformers`.
      names: keys of config.json, each with the `DecoderConfig` field of the same meaning.
      defaults: the value that `transformers` uses for each missing key.
      nullable: the keys whose null means "derived from the other sizes".
      fixed: keys of which only one value is supported, which is also their default.
      fields: `DecoderConfig` fields that are the same for the whole family.
      activation: the key of the activation.
      read: fields from the keys that are not in `names`.
      write: the inverse of `read`.
      ignored: further keys that do not change the forward pass.
    """

    architecture: str
    names: Mapping[str, str]
    defaults: Mapping[str, Any]
    nullable: tuple[str, ...]
    fixed: Mapping[str, Any]
    fields: Mapping[str, Any]
    activation: str
    read: Callable[[Config], dict[str, Any]] = lambda config: {}
    write: Callable[[DecoderConfig], dict[str, Any]] = lambda config: {}
    ignored: tuple[str, ...] = ()

    @property
    def has_rotary(self) -> bool:
        """Whether positions are rotary; otherwise they are a learned table."""
        return self.names is _LLAMA


def _gemma_fields(config: Config) -> dict[str, Any]:
    width = number("query_pre_attn_scalar", config["query_pre_attn_scalar"])
    if width <= 0:
        raise ValueError(f"config.json: query_pre_attn_scalar must be positive; got {width}")
    caps = {
        "logits_soft_cap": "attn_logit_softcapping",
        "final_soft_cap": "final_logit_softcapping",
    }
    return {
        "scale": width**-0.5,
        "embed_scale": config["hidden_size"] ** 0.5,
        **{
            field: None if config[key] is None else number(key, config[key])
            for field, key in caps.items()
        },
        **_windows.alternating(config),
    }


def _gemma_keys(config: DecoderConfig) -> dict[str, Any]:
    width = (config.scale or config.head_width**-0.5) ** -2
    return {
        # `transformers` needs an integer here: rounding errors of the square are removed.
        "query_pre_attn_scalar": round(width) if math.isclose(width, round(width)) else width,
        "attn_logit_softcapping": config.logits_soft_cap,
        "final_logit_softcapping": config.final_soft_cap,
        **_windows.write_types(config),
    }


_LLAMA_DEFAULTS = {
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "head_dim": None,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    TIED: False,
}
_RMS = {"norm": "rms", "gated": True, "use_bias": False, "use_qkv_bias": False}
FAMILIES: dict[str, Family] = {
    "gpt2": Family(
        "GPT2LMHeadModel",
        _GPT2,
        {
            "vocab_size": 50_257,
            "n_embd": 768,
            "n_layer": 12,
            "n_head": 12,
            "n_positions": 1024,
            "n_inner": None,
            "layer_norm_epsilon": 1e-5,
            "activation_function": "gelu_new",
            TIED: True,
        },
        nullable=("n_inner",),
        fixed={
            "scale_attn_weights": True,
            "scale_attn_by_inverse_layer_idx": False,
            "reorder_and_upcast_attn": False,
            "add_cross_attention": False,
        },
        fields={},
        activation="activation_function",
    ),
    "llama": Family(
        "LlamaForCausalLM",
        _LLAMA,
        _LLAMA_DEFAULTS,
        nullable=("num_key_value_heads", "head_dim"),
        fixed={"attention_bias": False, "mlp_bias": False, "rope_interleaved": False},
        fields=_RMS,
        activation="hidden_act",
        ignored=("max_window_layers",),
    ),
    "mistral": Family(
        "MistralForCausalLM",
        _LLAMA,
        _LLAMA_DEFAULTS
        | {
            "intermediate_size": 14_336,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131_072,
            "sliding_window": 4096,
        },
        nullable=("num_key_value_heads", "head_dim"),
        fixed={"attention_bias": False},
        fields=_RMS,
        activation="hidden_act",
        read=_windows.everywhere,
        write=_windows.write_everywhere,
        ignored=("max_window_layers",),
    ),
    "qwen3": Family(
        "Qwen3ForCausalLM",
        _LLAMA,
        _LLAMA_DEFAULTS
        | {
            "vocab_size": 151_936,
            "intermediate_size": 22_016,
            "num_key_value_heads": 32,
            "head_dim": 128,
            "max_position_embeddings": 32_768,
            "use_sliding_window": False,
            "sliding_window": 4096,
            "max_window_layers": 28,
            "layer_types": None,
        },
        nullable=("num_key_value_heads",),
        fixed={"attention_bias": False},
        fields=_RMS | {"qk_norm": True},
        activation="hidden_act",
        read=_windows.from_a_layer_on,
        write=_windows.write_used_types,
    ),
    "gemma2": Family(
        "Gemma2ForCausalLM",
        _LLAMA,
        {
            "vocab_size": 256_000,
            "hidden_size": 2304,
            "intermediate_size": 9216,
            "num_hidden_layers": 26,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-6,
            "hidden_activation": "gelu_pytorch_tanh",
            "query_pre_attn_scalar": 256,
            "sliding_window": 4096,
            "layer_types": None,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
            TIED: True,
        },
        nullable=(),
        fixed={"attention_bias": False, "use_bidirectional_attention": None},
        fields=_RMS | {"placement": "both"},
        activation="hidden_activation",
        read=_gemma_fields,
        write=_gemma_keys,
        ignored=("hidden_act", "max_window_layers"),
    ),
}
