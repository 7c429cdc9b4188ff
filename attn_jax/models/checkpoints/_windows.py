"""Sliding windows in the config.json of each family, where a window counts its own position too.

`sliding_window` W is a window of W keys; `DecoderConfig.windows` counts the W − 1 others.
"""

from typing import Any

from attn_jax.models.checkpoints._values import Config, boolean, integer
from attn_jax.models.decoder_config import DecoderConfig

FULL, SLIDING = "full_attention", "sliding_attention"
_PLACEHOLDER_WINDOW = 4096


def everywhere(config: Config) -> dict[str, Any]:
    """Mistral: one window for all layers, or null for none."""
    width = _width(config)
    return {"windows": None if width is None else (width - 1,) * config["num_hidden_layers"]}


def alternating(config: Config) -> dict[str, Any]:
    """Gemma 2: `layer_types`; by default every other layer has a window, from the first one on."""
    layers = range(config["num_hidden_layers"])
    kinds = _kinds(config, [FULL if layer % 2 else SLIDING for layer in layers])
    return _windows(kinds, _width(config), "sliding_window is null")


def from_a_layer_on(config: Config) -> dict[str, Any]:
    """Qwen3: `layer_types`; by default the layers from `max_window_layers` on have windows."""
    is_used = boolean("use_sliding_window", config["use_sliding_window"])
    width = _width(config) if is_used else None
    first = integer("max_window_layers", config["max_window_layers"])
    layers = range(config["num_hidden_layers"])
    kinds = _kinds(
        config, [FULL if width is None or layer < first else SLIDING for layer in layers]
    )
    why_not = "sliding_window is null" if is_used else "use_sliding_window is false"
    return _windows(kinds, width, why_not)


def write_everywhere(config: DecoderConfig) -> dict[str, Any]:
    """The inverse of `everywhere`."""
    return {"sliding_window": None if config.windows is None else (config.windows[0] or 0) + 1}


def write_types(config: DecoderConfig) -> dict[str, Any]:
    """The inverse of `alternating`.

    `sliding_window` is a number even if no layer has a window: Gemma 2 in `transformers` needs one.
    """
    windows = config.windows or (None,) * config.num_layers
    widths = {window + 1 for window in windows if window is not None}
    kinds = [FULL if window is None else SLIDING for window in windows]
    return {"sliding_window": next(iter(widths), _PLACEHOLDER_WINDOW), "layer_types": kinds}


def write_used_types(config: DecoderConfig) -> dict[str, Any]:
    """The inverse of `from_a_layer_on`."""
    written, is_used = write_types(config), config.windows is not None
    width = written["sliding_window"] if is_used else None
    return written | {"sliding_window": width, "use_sliding_window": is_used}


def _width(config: Config) -> int | None:
    width = config["sliding_window"]
    if width == 0:
        raise ValueError("config.json: sliding_window must be at least 1, or null; got 0")
    return None if width is None else integer("sliding_window", width)


def _kinds(config: Config, otherwise: list[str]) -> list[str]:
    kinds = config["layer_types"]
    if kinds is None:
        return otherwise
    if not isinstance(kinds, list):
        raise ValueError(f"config.json: layer_types must be a list or null; got {kinds!r}")
    if len(kinds) != len(otherwise):
        raise ValueError(
            f"config.json: layer_types must have one entry a layer, {len(otherwise)}; got "
            f"{len(kinds)}"
        )
    for kind in kinds:
        if kind not in (FULL, SLIDING):
            raise ValueError(
                f"config.json: layer_types has {kind!r}; known are {FULL} and {SLIDING}"
            )
    return kinds


def _windows(kinds: list[str], width: int | None, why_not: str) -> dict[str, Any]:
    if SLIDING not in kinds:
        return {"windows": None}
    if width is None:
        raise ValueError(f"config.json: layer_types has sliding layers, but {why_not}")
    return {"windows": tuple(None if kind == FULL else width - 1 for kind in kinds)}
