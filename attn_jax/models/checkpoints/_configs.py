"""Conversion between config.json and `DecoderConfig`; unknown keys and values raise ValueError."""

import dataclasses
import math
from typing import Any

from attn_jax.models.checkpoints._families import ACTIVATIONS, FAMILIES, ROTARY, TIED, Family
from attn_jax.models.checkpoints._rope import read_rope, write_rope
from attn_jax.models.checkpoints._values import Config, boolean, integer, number
from attn_jax.models.decoder_config import DecoderConfig

# Keys that do not change the forward pass, or only in training.
_IGNORED = {
    *("_name_or_path", "architectures", "attn_implementation", "cache_implementation"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "tokenizer_class", "transformers_version"),
    *("attention_dropout", "attn_pdrop", "embd_pdrop", "resid_pdrop", "initializer_range"),
    *("chunk_size_feed_forward", "dtype", "torch_dtype", "id2label", "label2id", "n_ctx"),
    *("is_decoder", "is_encoder_decoder", "model_type", "pretraining_tp", "problem_type"),
    *("output_attentions", "output_hidden_states", "return_dict", "use_cache"),
    *("summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type"),
    *("summary_use_proj", "task_specific_params", "transformers.js_config", "unsloth_version"),
    *("_attn_implementation_autoset", "_commit_hash", "_flash_attn_2_enabled", "is_llama_config"),
}


def read_config(config: Config) -> tuple[str, DecoderConfig]:
    """The family's name and the `DecoderConfig`; a missing key has `transformers`' default.

    Raises:
      ValueError: an architecture, key or value is unknown, or values do not fit together.
    """
    name = config.get("model_type")
    if not isinstance(name, str) or name not in FAMILIES:
        raise ValueError(
            f"config.json: model_type={name!r} is unknown; known are {', '.join(FAMILIES)}"
        )
    family = FAMILIES[name]
    _check_keys(config, name, family)
    filled = {**family.defaults, **config}
    fields = {field: _size(key, filled[key], family) for key, field in family.names.items()}
    choices: dict[str, Any] = {
        **family.fields,
        **family.read(filled),
        "activation": _activation(filled, family.activation),
        "is_tied": boolean(TIED, filled[TIED]),
        "rotary": read_rope(filled) if family.has_rotary else None,
    }
    try:
        return name, canonical(DecoderConfig(**fields, **choices))
    except ValueError as error:
        raise ValueError(f"config.json: {error}") from error


def write_config(config: DecoderConfig) -> tuple[str, dict[str, Any]]:
    """The name of a family that computes what `config` describes, and its config.json.

    Raises:
      ValueError: there is no such family.
    """
    wanted = dataclasses.replace(canonical(config), dropout_rate=0.0)
    for name, family in FAMILIES.items():
        written = _written(name, family, wanted)
        if written is not None and _means(written, wanted):
            return name, written
    raise ValueError(
        f"no known architecture computes this configuration ({', '.join(FAMILIES)}): {wanted}"
    )


def with_origin(family: str, written: dict[str, Any], origin: Config) -> dict[str, Any]:
    """The config.json to write for a model that was loaded from `origin`.

    It is the origin's own if both describe the same model. Otherwise it is `written`, and the keys
    of the origin that do not change the forward pass: ids of special tokens, dropout rates, labels.
    """
    if read_config(origin)[1] == read_config(written)[1]:
        return dict(origin)
    kept = {*_IGNORED, *FAMILIES[family].ignored} - {"architectures", "model_type"}
    return {**{key: origin[key] for key in origin if key in kept}, **written}


def canonical(config: DecoderConfig) -> DecoderConfig:
    """The configuration with derived defaults filled in, so equal models have equal ones."""
    is_default = config.scale is not None and math.isclose(config.scale, config.head_width**-0.5)
    windows = config.windows
    return dataclasses.replace(
        config,
        num_kv_heads=config.kv_heads,
        head_dim=config.head_width,
        hidden_dim=4 * config.model_dim if config.hidden_dim is None else config.hidden_dim,
        scale=None if is_default else config.scale,
        windows=None if windows is None or set(windows) == {None} else windows,
    )


def _check_keys(config: Config, name: str, family: Family) -> None:
    known = {*_IGNORED, *family.defaults, *family.fixed, *family.ignored}
    known |= set(ROTARY) if family.has_rotary else set()
    if unknown := sorted(set(config) - known):
        raise ValueError(
            f"config.json: {', '.join(unknown)} of {name} is unknown, and might change what the "
            "model computes; remove it if it does not"
        )
    for key, wanted in family.fixed.items():
        if (config.get(key, wanted) or False) != (wanted or False):
            raise ValueError(
                f"config.json: {key}={config[key]!r} is not supported; only {wanted!r} is"
            )


def _size(key: str, value: Any, family: Family) -> Any:
    if value is None and key in family.nullable:
        return None
    return number(key, value) if family.names[key] == "norm_eps" else integer(key, value)


def _activation(config: Config, key: str) -> Any:
    name = config[key]
    if not isinstance(name, str) or name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ValueError(f"config.json: {key}={name!r} is not supported; known are {known}")
    return ACTIVATIONS[name]


def _written(name: str, family: Family, config: DecoderConfig) -> dict[str, Any] | None:
    """The config.json of a family for a configuration; None where its keys cannot express it."""
    if (config.rotary is not None) != family.has_rotary:
        return None
    if config.activation not in ACTIVATIONS.values():
        return None
    return {
        "architectures": [family.architecture],
        "model_type": name,
        **{key: getattr(config, field) for key, field in family.names.items()},
        **family.fixed,
        family.activation: _activation_name(family, config.activation),
        **family.write(config),
        TIED: config.is_tied,
        **({} if config.rotary is None else {"rope_parameters": write_rope(config.rotary)}),
    }


def _activation_name(family: Family, activation: str) -> str:
    """The name of an activation in config.json; of several names, the family's default one."""
    default = family.defaults[family.activation]
    return next(name for name in (default, *ACTIVATIONS) if ACTIVATIONS[name] == activation)


def _means(written: Config, wanted: DecoderConfig) -> bool:
    """Whether `read_config(written)` gives `wanted`, up to rounding of the scale factors."""
    try:
        _, read = read_config(written)
    except ValueError:
        return False
    factors = {}
    for name in ("scale", "embed_scale"):
        ours, theirs = getattr(read, name), getattr(wanted, name)
        is_rounded = None not in (ours, theirs) and math.isclose(ours, theirs)
        factors[name] = theirs if is_rounded else ours
    return dataclasses.replace(read, **factors) == wanted
