"""Converts flax's `MultiHeadAttention` to ours and back, with the same parameters."""

from collections.abc import Iterable
from typing import Any

from flax import nnx

from attn_jax.modules.attention_fn import flax_attention
from attn_jax.modules.multi_head_attention import MultiHeadAttention

# The name of our parameter: flax's sub-module, and the name of its parameter.
_PAIRS = {
    "w_query": ("query", "kernel"),
    "w_key": ("key", "kernel"),
    "w_value": ("value", "kernel"),
    "w_out": ("out", "kernel"),
    "b_query": ("query", "bias"),
    "b_key": ("key", "bias"),
    "b_value": ("value", "bias"),
    "b_out": ("out", "bias"),
}
_NORMS = {"query_norm": "query_ln", "key_norm": "key_ln"}


def from_flax(layer: nnx.MultiHeadAttention) -> MultiHeadAttention:
    """Converts flax's multi-head attention to a `MultiHeadAttention` with the same parameters.

    `flax.nnx.MultiHeadAttention`,
    https://flax.readthedocs.io/en/latest/api_reference/flax.nnx/nn/attention.html. Outputs are
    equal, but for the cases in which `dot_product_attention` differs from flax's, such as fully
    masked queries. Masks and dropout are arguments of our calls. `layer(x, keys, values)` is flax's
    `layer(inputs_q, inputs_k, inputs_v)`. If flax's `dtype` is None, our layer computes in the
    dtype of the input, flax's in the promoted dtype of input and parameters.

    Args:
      layer: flax's layer; its cache and random state are not converted.

    Returns:
      A new layer, whose parameters are the same arrays.

    Raises:
      ValueError: the layer has a setting that ours lacks: another output width, attention function
        or precision. The message names it.

    Cost:
      No copies.

    Example:
      >>> from attn_jax.modules import from_flax
      >>> sizes = {"num_heads": 2, "in_features": 4, "decode": False}
      >>> flaxs = nnx.MultiHeadAttention(**sizes, rngs=nnx.Rngs(0))
      >>> x = jax.random.normal(jax.random.key(0), (3, 5, 4))
      >>> bool(jnp.allclose(from_flax(flaxs)(x), flaxs(x), atol=1e-6))
      True
    """
    known = (nnx.dot_product_attention, flax_attention)
    _check_ours(
        ("out_features", layer.out_features, (layer.in_features,)),
        ("attention_fn", layer.attention_fn, known),
        ("precision", layer.precision, (None,)),
    )
    ours = nnx.eval_shape(
        lambda: MultiHeadAttention(
            layer.in_features,
            layer.num_heads,
            num_kv_heads=layer.num_kv_heads,
            head_dim=layer.head_dim,
            memory_dim=layer.in_kv_features,
            use_bias=layer.use_bias,
            qk_norm="layer" if layer.normalize_qk else False,
            dropout_rate=layer.dropout_rate,
            dtype=layer.dtype,
            param_dtype=layer.param_dtype,
            rngs=nnx.Rngs(0),
        )
    )
    for mine, theirs in _parameters(ours, layer):
        mine.set_value(theirs[...])
    return ours


def to_flax(layer: MultiHeadAttention) -> nnx.MultiHeadAttention:
    """Converts a `MultiHeadAttention` to flax's layer with the same parameters.

    `flax.nnx.MultiHeadAttention`: the inverse of `from_flax`.

    Args:
      layer: our layer.

    Returns:
      A new layer, whose parameters are the same arrays, with flax's own attention function.

    Raises:
      ValueError: the layer has a setting that flax's lacks: a mask, a score mod, sinks, rotary
        positions, a scale, another width of values, norms other than LayerNorm, or biases in some
        projections only.

    Cost:
      No copies.

    Example:
      >>> from attn_jax.modules import MultiHeadAttention, from_flax, to_flax
      >>> ours = MultiHeadAttention(4, 2, rngs=nnx.Rngs(0))
      >>> bool((from_flax(to_flax(ours)).w_out[...] == ours.w_out[...]).all())
      True
    """
    norm = layer.query_norm
    biases = [layer.b_query is not None, layer.b_out is not None]
    _check_flaxs(
        mask=layer.mask is None,
        score_mod=layer.score_mod is None,
        sink=layer.sink is None,
        rotary=layer.rotary is None,
        scale=layer.scale is None,
        value_dim=layer.value_dim == layer.head_dim,
        memory_value_dim=layer.memory_value_dim == layer.memory_dim,
        qk_norm=norm is None or (isinstance(norm, nnx.LayerNorm) and norm.epsilon == 1e-6),
        use_out_bias=biases[0] == biases[1],
    )
    flaxs = nnx.eval_shape(
        lambda: nnx.MultiHeadAttention(
            layer.num_heads,
            layer.model_dim,
            layer.num_heads * layer.head_dim,
            num_kv_heads=layer.num_kv_heads,
            in_kv_features=layer.memory_dim,
            use_bias=biases[0],
            normalize_qk=norm is not None,
            dropout_rate=layer.dropout_rate,
            broadcast_dropout=False,
            dtype=layer.dtype,
            param_dtype=layer.w_query[...].dtype,
            decode=False,
            keep_rngs=False,
            rngs=nnx.Rngs(0),
        )
    )
    for mine, theirs in _parameters(layer, flaxs):
        theirs.set_value(mine[...])
    return flaxs


def _parameters(
    ours: MultiHeadAttention, flaxs: nnx.MultiHeadAttention
) -> Iterable[tuple[nnx.Param, nnx.Param]]:
    """Yields the corresponding parameters of both layers as pairs."""
    for name, (part, parameter) in _PAIRS.items():
        if getattr(ours, name) is not None:
            yield getattr(ours, name), getattr(getattr(flaxs, part), parameter)
    for name, norm in _NORMS.items():
        if getattr(ours, name) is not None:
            yield getattr(ours, name).scale, getattr(flaxs, norm).scale


def _check_ours(*settings: tuple[str, Any, tuple]) -> None:
    for name, got, wanted in settings:
        if got not in wanted:
            choices = " or ".join(getattr(value, "__name__", repr(value)) for value in wanted)
            raise ValueError(
                f"layer has {name}={got!r}; MultiHeadAttention supports only {choices}"
            )


def _check_flaxs(**is_flaxs: bool) -> None:
    others = [name for name, same in is_flaxs.items() if not same]
    if others:
        raise ValueError(f"layer has settings that flax's layer lacks: {', '.join(others)}")
