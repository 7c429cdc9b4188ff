"""config.json of each family as a `DecoderConfig`, and back; the unknown is refused by name."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from attn_jax.models.checkpoints._rope import read_rope, write_rope
from attn_jax.models.decoder_config import DecoderConfig

type Config = Mapping[str, Any]

# Keys that say nothing of the mathematics of a forward pass, or only of training.
_IGNORED = {
    *("_name_or_path", "architectures", "attn_implementation", "cache_implementation"),
    *(
        "chunk_size_feed_forward",
        "dtype",
        "torch_dtype",
        "id2label",
        "label2id",
        "initializer_range",
    ),
    *(
        "is_decoder",
        "is_encoder_decoder",
        "model_type",
        "output_attentions",
        "output_hidden_states",
    ),
    *("pretraining_tp", "return_dict", "task_specific_params", "transformers_version", "use_cache"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "problem_type", "max_window_layers"),
    *("attention_dropout", "attn_pdrop", "embd_pdrop", "resid_pdrop", "n_ctx"),
    *(
        f"summary_{x}"
        for x in ("activation", "first_dropout", "proj_to_labels", "type", "use_proj")
    ),
}
_ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "silu": "silu"}
_SPELLED = {"gelu_tanh": "gelu_new"}
_ROTARY = ("rope_parameters", "rope_scaling", "rope_theta")
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
    """How one architecture spells its configuration.

    `names` are keys with a field of the same meaning; `fixed` are keys whose one value we compute,
    which is also what a missing one means; `fields` are what the family has in common; `own` are
    further keys, which `read` and `write` translate.
    """

    architecture: str
    names: Mapping[str, str]
    fixed: Mapping[str, Any]
    fields: Mapping[str, Any]
    activation: str
    is_tied: bool
    own: tuple[str, ...] = ()
    read: Callable[[Config, int], dict[str, Any]] = lambda config, layers: {}
    write: Callable[[DecoderConfig], dict[str, Any]] = lambda config: {}


def _gemma_fields(config: Config, layers: int) -> dict[str, Any]:
    return {
        "scale": config["query_pre_attn_scalar"] ** -0.5,
        "logits_soft_cap": config.get("attn_logit_softcapping"),
        "final_soft_cap": config.get("final_logit_softcapping"),
        "embed_scale": config["hidden_size"] ** 0.5,
        **_windows_by_type(config, layers),
    }


def _gemma_keys(config: DecoderConfig) -> dict[str, Any]:
    width = (config.scale or config.head_width**-0.5) ** -2
    return {
        # A whole number, as `transformers` wants it, where rounding alone keeps it from being one.
        "query_pre_attn_scalar": round(width) if math.isclose(width, round(width)) else width,
        "attn_logit_softcapping": config.logits_soft_cap,
        "final_logit_softcapping": config.final_soft_cap,
        "hidden_activation": "gelu_pytorch_tanh",
        **_types_by_window(config),
    }


def _windows_by_type(config: Config, layers: int) -> dict[str, Any]:
    """A window of W keys, its own among them, reads W − 1 others."""
    width, kinds = config.get("sliding_window"), config.get("layer_types")
    if width is None or kinds is None:
        return {}
    known = {"full_attention": None, "sliding_attention": width - 1}
    for kind in kinds:
        if kind not in known:
            raise ValueError(f"config.json: layer_types has {kind!r}; known are {', '.join(known)}")
    windows = tuple(known[kind] for kind in kinds)
    return {"windows": windows if any(w is not None for w in windows) else None}


def _types_by_window(config: DecoderConfig) -> dict[str, Any]:
    windows = config.windows or (None,) * config.num_layers
    widths = {window + 1 for window in windows if window is not None}
    kinds = ["full_attention" if w is None else "sliding_attention" for w in windows]
    return {"sliding_window": next(iter(widths), None), "layer_types": kinds}


def _one_window(config: Config, layers: int) -> dict[str, Any]:
    width = config.get("sliding_window")
    return {} if width is None else {"windows": (width - 1,) * layers}


def _window_key(config: DecoderConfig) -> dict[str, Any]:
    return {"sliding_window": None if config.windows is None else (config.windows[0] or 0) + 1}


_RMS = {"norm": "rms", "gated": True, "use_bias": False, "use_qkv_bias": False}
FAMILIES: dict[str, Family] = {
    "gpt2": Family(
        "GPT2LMHeadModel",
        _GPT2,
        {
            "scale_attn_weights": True,
            "scale_attn_by_inverse_layer_idx": False,
            "reorder_and_upcast_attn": False,
            "add_cross_attention": False,
        },
        {},
        activation="activation_function",
        is_tied=True,
    ),
    "llama": Family(
        "LlamaForCausalLM",
        _LLAMA,
        {"attention_bias": False, "mlp_bias": False},
        _RMS,
        activation="hidden_act",
        is_tied=False,
        own=_ROTARY,
    ),
    "mistral": Family(
        "MistralForCausalLM",
        _LLAMA,
        {},
        _RMS,
        activation="hidden_act",
        is_tied=False,
        own=(*_ROTARY, "sliding_window"),
        read=_one_window,
        write=_window_key,
    ),
    "qwen3": Family(
        "Qwen3ForCausalLM",
        _LLAMA,
        {"attention_bias": False},
        _RMS | {"qk_norm": True},
        activation="hidden_act",
        is_tied=False,
        own=(*_ROTARY, "sliding_window", "layer_types", "use_sliding_window"),
        read=_windows_by_type,
        write=lambda c: {**_types_by_window(c), "use_sliding_window": c.windows is not None},
    ),
    "gemma2": Family(
        "Gemma2ForCausalLM",
        _LLAMA,
        {"attention_bias": False, "use_bidirectional_attention": None},
        _RMS | {"placement": "both"},
        activation="hidden_activation",
        is_tied=True,
        own=(
            *(*_ROTARY, "sliding_window", "layer_types", "query_pre_attn_scalar", "hidden_act"),
            *("attn_logit_softcapping", "final_logit_softcapping"),
        ),
        read=_gemma_fields,
        write=_gemma_keys,
    ),
}


def read_config(config: Config) -> tuple[str, DecoderConfig]:
    """The family's name, and what it asks for.

    Raises:
      ValueError: an architecture, key or value is not known, or a key is missing.
    """
    name = config.get("model_type")
    if name not in FAMILIES:
        raise ValueError(
            f"config.json: model_type={name!r} is unknown; known are {', '.join(FAMILIES)}"
        )
    family = FAMILIES[name]
    known = {*_IGNORED, *family.names, *family.fixed, *family.own}
    known |= {family.activation, "tie_word_embeddings"}
    if unknown := sorted(set(config) - known):
        raise ValueError(
            f"config.json: {', '.join(unknown)} of {name} is not known here, and might change what "
            "the model computes; if it does not, take it out"
        )
    for key, wanted in family.fixed.items():
        if config.get(key, wanted) != wanted:
            raise ValueError(f"config.json: {key}={config[key]!r} is not supported, {wanted!r} is")
    for key in family.names:
        if key not in config and key not in ("n_inner", "num_key_value_heads", "head_dim"):
            raise ValueError(f"config.json: {key} is missing")
    fields: dict[str, Any] = {field: config.get(key) for key, field in family.names.items()}
    return name, canonical(
        DecoderConfig(
            **fields,
            **family.fields,
            **family.read(config, fields["num_layers"]),
            activation=_activation(config, family.activation),
            is_tied=config.get("tie_word_embeddings", family.is_tied),
            rotary=read_rope(config) if _ROTARY[0] in family.own else None,
        )
    )


def write_config(config: DecoderConfig) -> tuple[str, dict[str, Any]]:
    """The family whose configuration says just this, and that.

    Raises:
      ValueError: there is none.
    """
    wanted = dataclasses.replace(canonical(config), dropout_rate=0.0)
    for name, family in FAMILIES.items():
        written = _written(name, family, wanted)
        if written is not None and read_config(written)[1] == wanted:
            return name, written
    raise ValueError(
        f"no known architecture computes what this configuration asks for ({', '.join(FAMILIES)}): "
        f"{wanted}"
    )


def canonical(config: DecoderConfig) -> DecoderConfig:
    """With every default written out, so that equal models have equal configurations."""
    hidden = 4 * config.model_dim if config.hidden_dim is None else config.hidden_dim
    return dataclasses.replace(
        config, num_kv_heads=config.kv_heads, head_dim=config.head_width, hidden_dim=hidden
    )


def _written(name: str, family: Family, config: DecoderConfig) -> dict[str, Any] | None:
    """A configuration in the words of a family; None where it has no words for it."""
    has_rotary = _ROTARY[0] in family.own
    if (config.rotary is None) == has_rotary or config.activation not in _ACTIVATIONS.values():
        return None
    return {
        "architectures": [family.architecture],
        "model_type": name,
        **{key: getattr(config, field) for key, field in family.names.items()},
        **family.fixed,
        family.activation: _SPELLED.get(config.activation, config.activation),
        **family.write(config),
        "tie_word_embeddings": config.is_tied,
        **({} if config.rotary is None else {"rope_parameters": write_rope(config.rotary)}),
    }


def _activation(config: Config, key: str) -> Any:
    name = config.get(key, "gelu_new" if key == "activation_function" else "silu")
    if name not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        raise ValueError(f"config.json: {key}={name!r} is not supported; known are {known}")
    return _ACTIVATIONS[name]
