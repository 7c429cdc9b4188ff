"""Attention for JAX: pure functions of one head that `vmap`, `grad`, `jit` and sharding extend."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

from attn_jax import caches as caches
from attn_jax import lecture as lecture
from attn_jax import masks as masks
from attn_jax import positions as positions
from attn_jax import score_mods as score_mods
from attn_jax import scores as scores
from attn_jax._attend import attend as attend
from attn_jax._attend import attend_with_logsumexp as attend_with_logsumexp
from attn_jax._attend import attention_weights as attention_weights
from attn_jax._block_mask import BlockMask as BlockMask
from attn_jax._block_mask import block_mask as block_mask
from attn_jax._dropout import dropout_mask as dropout_mask
from attn_jax._explain import Explanation as Explanation
from attn_jax._explain import explain as explain
from attn_jax._lineage import Mechanism as Mechanism
from attn_jax._lineage import Reduction as Reduction
from attn_jax._lineage import lineage as lineage
from attn_jax._merge import merge_partials as merge_partials
from attn_jax._multi_head import dot_product_attention as dot_product_attention
from attn_jax._multi_head_logsumexp import (
    dot_product_attention_with_logsumexp as dot_product_attention_with_logsumexp,
)
from attn_jax._multi_head_stats import (
    dot_product_attention_stats as dot_product_attention_stats,
)
from attn_jax._multi_head_stats import (
    dot_product_attention_weights as dot_product_attention_weights,
)
from attn_jax._stats import AttentionStats as AttentionStats
from attn_jax._stats import attention_stats as attention_stats
from attn_jax._tune import Tuning as Tuning
from attn_jax._tune import tune as tune
from attn_jax.caches._attention import cached_attention as cached_attention
from attn_jax.lecture.functions import causal_self_attention as causal_self_attention
from attn_jax.lecture.functions import multi_head_self_attention as multi_head_self_attention
from attn_jax.lecture.functions import self_attention as self_attention
from attn_jax.lecture.functions import simplified_self_attention as simplified_self_attention

# Imported at first use: some need flax, or tools that the rest does not need.
_LATER = ("benchmark", "models", "modules", "viewer")

if _TYPE_CHECKING:
    from attn_jax import benchmark as benchmark
    from attn_jax import models as models
    from attn_jax import modules as modules
    from attn_jax import viewer as viewer

    __version__: str
else:

    def __getattr__(name: str):
        if name in _LATER:
            return _import_module(f"attn_jax.{name}")
        if name == "__version__":
            return _import_module("attn_jax._version").version()
        raise AttributeError(f"module 'attn_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER, "__version__"})
