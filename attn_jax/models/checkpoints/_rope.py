"""Rotary positions as config.json spells them, in its older and its newer way."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from attn_jax.modules import Rotary
from attn_jax.positions import LinearScaling, Llama3Scaling, YarnScaling

# For each kind what makes it, and its keys by the names of our fields.
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


def read_rope(config: Mapping[str, Any]) -> Rotary:
    """Rotary positions of a configuration.

    Raises:
      ValueError: the kind of scaling, or one of its keys, is not known or is missing.
    """
    older = {_BASE: config.get(_BASE, 10_000.0), **(config.get("rope_scaling") or {})}
    rope = dict(config.get("rope_parameters") or older)
    base = float(rope.pop(_BASE, 10_000.0))
    kind = rope.pop(_KIND, rope.pop("type", "default"))
    if kind not in _KINDS:
        raise ValueError(
            f"config.json: {_KIND}={kind!r} is not supported; known are {', '.join(_KINDS)}"
        )
    make, names = _KINDS[kind]
    if unknown := sorted(set(rope) - set(names.values())):
        raise ValueError(f"config.json: {', '.join(unknown)} of {_KIND}={kind!r} is not known")
    given = {field: rope[key] for field, key in names.items() if key in rope}
    if make is None:
        return Rotary(base=base)
    needed = [f.name for f in dataclasses.fields(make) if f.default is dataclasses.MISSING]
    if missing := [names[field] for field in needed if field not in given]:
        raise ValueError(f"config.json: {_KIND}={kind!r} needs {', '.join(missing)}")
    return Rotary(base=base, scaling=make(**given))


def write_rope(rotary: Rotary) -> dict[str, Any]:
    """The same as config.json has it.

    Raises:
      ValueError: it has no word for such positions.
    """
    for kind, (make, names) in _KINDS.items():
        is_kind = rotary.scaling is None if make is None else isinstance(rotary.scaling, make)
        if is_kind and rotary.layout == "half" and rotary.fraction == 1:
            given = {key: getattr(rotary.scaling, field) for field, key in names.items()}
            filled = {key: value for key, value in given.items() if value is not None}
            return {_KIND: kind, _BASE: rotary.base, **filled}
    raise ValueError(f"config.json has no word for {rotary}")
