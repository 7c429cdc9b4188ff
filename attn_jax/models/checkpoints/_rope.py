"""Rotary positions in config.json, in its older and its newer spelling."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from attn_jax.models.checkpoints._values import Config, boolean, mapping, number
from attn_jax.modules import Rotary
from attn_jax.positions import LinearScaling, Llama3Scaling, YarnScaling

# For each rope_type the class of its scaling, and the key of each field of that class.
_KINDS: dict[str, tuple[Any, dict[str, str]]] = {
    "default": (None, {}),
    "linear": (LinearScaling, {"factor": "factor"}),
    "llama3": (
        Llama3Scaling,
        {
            "factor": "factor",
            "low_freq_factor": "low_freq_factor",
            "high_freq_factor": "high_freq_factor",
            "original_length": "original_max_position_embeddings",
        },
    ),
    "yarn": (
        YarnScaling,
        {
            "factor": "factor",
            "original_length": "original_max_position_embeddings",
            "beta_fast": "beta_fast",
            "beta_slow": "beta_slow",
            "truncate": "truncate",
            "attention_factor": "attention_factor",
        },
    ),
}
_BASE, _KIND = "rope_theta", "rope_type"
_NULLABLE = ("beta_fast", "beta_slow", "attention_factor")


def read_rope(config: Config) -> Rotary:
    """The rotary positions of a config.json.

    If both spellings are there, the older one (`rope_scaling`) is used, as in `transformers`.

    Raises:
      ValueError: the kind of scaling or one of its keys is unknown, missing, or has a wrong value.
    """
    older, newer = (mapping(key, config.get(key)) for key in ("rope_scaling", "rope_parameters"))
    rope = older or newer
    base = number(_BASE, rope.pop(_BASE, config.get(_BASE, 10_000.0)))
    kind = rope.pop(_KIND, rope.pop("type", "default"))
    rope.pop("type", None)
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError(
            f"config.json: {_KIND}={kind!r} is not supported; known are {', '.join(_KINDS)}"
        )
    if base <= 1:
        raise ValueError(f"config.json: {_BASE} must be greater than 1; got {base}")
    make, names = _KINDS[kind]
    if unknown := sorted(set(rope) - set(names.values())):
        raise ValueError(f"config.json: {', '.join(unknown)} of {_KIND}={kind!r} is unknown")
    if make is None:
        return Rotary(base=float(base))
    given = _given(rope, names, config.get("max_position_embeddings"))
    needed = [f.name for f in dataclasses.fields(make) if f.default is dataclasses.MISSING]
    if missing := [names[field] for field in needed if field not in given]:
        raise ValueError(f"config.json: {_KIND}={kind!r} needs {', '.join(missing)}")
    try:
        return Rotary(base=float(base), scaling=make(**given))
    except ValueError as error:
        raise ValueError(f"config.json: {error}") from error


def _given(rope: Config, names: Mapping[str, str], length: Any) -> dict[str, Any]:
    """The fields of a scaling; `original_length` defaults to the model's `length`."""
    given: dict[str, Any] = {"original_length": length} if "original_length" in names else {}
    for field, key in names.items():
        if key in rope and not (rope[key] is None and key in _NULLABLE):
            given[field] = (boolean if field == "truncate" else number)(key, rope[key])
    return given


def write_rope(rotary: Rotary) -> dict[str, Any]:
    """`rope_parameters` of config.json for rotary positions.

    Raises:
      ValueError: config.json cannot express them.
    """
    for kind, (make, names) in _KINDS.items():
        is_kind = rotary.scaling is None if make is None else isinstance(rotary.scaling, make)
        if is_kind and rotary.layout == "half" and rotary.fraction == 1:
            given = {key: getattr(rotary.scaling, field) for field, key in names.items()}
            filled = {key: value for key, value in given.items() if value is not None}
            return {_KIND: kind, _BASE: rotary.base, **filled}
    raise ValueError(f"config.json cannot express {rotary}")
