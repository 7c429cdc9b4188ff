"""Masks and score mods as code of a fused kernel: one part outside of it, the rest on its tiles.

XLA computes the parts outside the kernel, once for each query, key or distance. There are all
lookups in arrays. The rest is elementwise, and a kernel evaluates it on tiles of pairs.
"""

from attn_jax._engine.rules.code import Kind, Part, RuleCode
from attn_jax._engine.rules.program import Refused
from attn_jax._engine.rules.rewrite import rewritten
from attn_jax._engine.rules.split import RuleSplit, split

__all__ = ["Kind", "Part", "Refused", "RuleCode", "RuleSplit", "rewritten", "split"]
