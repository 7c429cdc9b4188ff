"""The self-attentions of Raschka's book, step by step: four functions, and layers that call them.

They show one idea each, on one sequence. For work use `attn_jax.dot_product_attention` and
`attn_jax.modules.MultiHeadAttention`. The layers need flax; the functions do not.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

from attn_jax.lecture.functions import causal_self_attention as causal_self_attention
from attn_jax.lecture.functions import multi_head_self_attention as multi_head_self_attention
from attn_jax.lecture.functions import self_attention as self_attention
from attn_jax.lecture.functions import simplified_self_attention as simplified_self_attention

# Imported at first use, since they import flax.
_LAYERS = ("CausalSelfAttention", "MultiHeadSelfAttention", "SelfAttention")

if _TYPE_CHECKING:
    from attn_jax.lecture.layers import CausalSelfAttention as CausalSelfAttention
    from attn_jax.lecture.layers import MultiHeadSelfAttention as MultiHeadSelfAttention
    from attn_jax.lecture.layers import SelfAttention as SelfAttention
else:

    def __getattr__(name: str):
        if name in _LAYERS:
            _import_module("attn_jax._base.needs_flax")
            return getattr(_import_module("attn_jax.lecture.layers"), name)
        raise AttributeError(f"module 'attn_jax.lecture' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAYERS})
