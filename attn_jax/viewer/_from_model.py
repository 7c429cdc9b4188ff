"""The queries, keys, masks and score mods of all layers of a language model on one text."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class LayerInputs:
    """The arguments of `from_qk`: queries and keys of all layers, masks, score mods and scales."""

    query_and_key: tuple[list[np.ndarray], list[np.ndarray]]
    options: dict[str, Any]


def layer_inputs(model: Any, tokens: Any) -> LayerInputs:
    """Runs the model on one text and returns what each layer's attention was given.

    Raises:
      ValueError: the tokens are not [T], or a layer has sinks.
      TypeError: the model has no `embedding` or no `blocks`.
    """
    ids = jnp.asarray(tokens)
    if ids.ndim != 1 or not ids.size or not jnp.issubdtype(ids.dtype, jnp.integer):
        raise ValueError(f"tokens must be ids [T], T >= 1; got {ids.dtype}{list(ids.shape)}")
    for part in ("embedding", "blocks"):
        if not hasattr(model, part):
            raise TypeError(
                f"model has no {part}, so its layers cannot be found; pass their queries and keys "
                f"to from_qk, or their weights to from_weights; got {type(model).__name__}"
            )
    x, queries, keys, layers = _embed(model, ids), [], [], []
    for block in model.blocks:
        attention = block.attention
        if getattr(attention, "sink", None) is not None:
            raise ValueError(
                "model has sinks, which take weight from all keys; the page cannot show sinks; "
                "pass the layers' weights to from_weights, with normalised=False"
            )
        normed = block.attention_residual.enter(x)
        queries.append(np.asarray(attention.project_query(normed), np.float64))
        keys.append(np.asarray(attention.project_memory(normed)[0], np.float64))
        layers.append(attention)
        x = block(x)
    return LayerInputs((queries, keys), _options(layers, queries[0].shape[-1]))


def _embed(model: Any, ids: jax.Array) -> jax.Array:
    """The input vectors of the first block."""
    x = model.embedding(ids)
    factor = getattr(getattr(model, "config", None), "embed_scale", 1)
    x = x if factor == 1 else x * jnp.asarray(factor, x.dtype)
    if getattr(model, "position", None) is None:
        return x
    return x + model.position(jnp.arange(ids.size, dtype=jnp.int32))


def _options(layers: list[Any], H: int) -> dict[str, Any]:
    scale = [H**-0.5 if layer.scale is None else float(layer.scale) for layer in layers]
    return {
        "mask": [_as_arrays(layer.mask) for layer in layers],
        "score_mod": [_as_arrays(layer.score_mod) for layer in layers],
        "scale": np.array(scale),
    }


def _as_arrays(rule: Any) -> Any:
    """The mask or score mod, with each nnx variable replaced by its array."""

    def is_variable(node: Any) -> bool:
        return hasattr(node, "get_value") and hasattr(node, "type")

    return jax.tree.map(lambda x: x[...] if is_variable(x) else x, rule, is_leaf=is_variable)
